//! Compares the view of accounts with the log.

use std::collections::{HashMap, HashSet};

use futures_util::{FutureExt, TryStreamExt, future::BoxFuture};
use sqlx::{PgConnection, Result, query_file_as};
use uuid::Uuid;

use super::{
    super::projection::{Applicable, Check, Flaw, Place},
    AccountView,
};

/// Every account as its events make it, with the position of the last one.
#[derive(Default)]
pub(super) struct AccountsCheck(HashMap<Uuid, (Option<AccountView>, i64)>);

impl Check for AccountsCheck {
    fn apply(&mut self, applicable: &Applicable) {
        let (row, position) = self.0.entry(applicable.recorded.stream_id).or_default();
        *row = AccountView::evolve(row.take(), applicable);
        *position = applicable.recorded.position;
    }

    fn compare<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        place: Place,
        only: Option<&'a [Uuid]>,
    ) -> BoxFuture<'a, Result<Option<Flaw>>> {
        async move {
            let flaw = |account_id: Uuid, position, what| {
                Some(Flaw { position, sentence: format!("the view of account {account_id} {what}") })
            };
            let mut seen = HashSet::new();
            let mut rows =
                query_file_as!(AccountView, "src/accounts/all.sql", place.partition, place.generation, only as _)
                    .fetch(connection);
            while let Some(row) = rows.try_next().await? {
                match self.0.get(&row.account_id) {
                    None => return Ok(flaw(row.account_id, 0, "is of an account that was never opened")),
                    Some((expected, position)) if expected.as_ref() != Some(&row) => {
                        return Ok(flaw(row.account_id, *position, "is not what its events say"));
                    }
                    Some(_) => seen.insert(row.account_id),
                };
            }
            let missing = self.0.iter().find(|(account_id, _)| !seen.contains(*account_id));
            Ok(missing.and_then(|(account_id, (_, position))| flaw(*account_id, *position, "is missing")))
        }
        .boxed()
    }
}
