//! Compares the view of accounts with the log.

use futures_util::{FutureExt, TryStreamExt, future::BoxFuture};
use sqlx::{PgConnection, Result, query_file_as};
use uuid::Uuid;

use super::view::AccountView;
use crate::{
    decoded_event::DecodedEvent,
    projection::{Check, Mismatch, ViewGeneration},
    row_set_hash::ExpectedRows,
};

/// The row of each account that follows from its events.
#[derive(Default)]
pub(super) struct AccountsCheck(ExpectedRows<Option<AccountView>>);

impl Check for AccountsCheck {
    fn fold(&mut self, decoded: &DecodedEvent) {
        self.0.fold(decoded, |row| {
            *row = AccountView::evolve(row.take(), decoded);
            // Each event changes the row, so no row is final.
            None::<()>
        });
    }

    fn compare<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        view: ViewGeneration,
        only: Option<&'a [Uuid]>,
    ) -> BoxFuture<'a, Result<Option<Mismatch>>> {
        async move {
            let mut actual = self.0.actual_rows();
            let mut rows =
                query_file_as!(AccountView, "src/views/accounts/all.sql", view.partition, view.generation, only as _)
                    .fetch(connection);
            while let Some(row) = rows.try_next().await? {
                actual.add(row.account_id, &row);
            }
            Ok(self.0.mismatch(&actual, "account_view rows", Option::as_ref))
        }
        .boxed()
    }
}
