//! Compares the view of accounts with the log.

use futures_util::{FutureExt, TryStreamExt, future::BoxFuture};
use sqlx::{PgConnection, Result, query_file_as, types::Json};
use uuid::Uuid;

use super::row::{AccountRow, Columns};
use crate::{
    decoded_event::DecodedEvent,
    projection::{Check, Detail, Mismatch, ViewGeneration},
    row_set_hash::ExpectedRows,
};
use passbook_domain::{Holds, Limits, Metadata, Usage};

/// The row of each account that follows from its events.
pub(super) struct AccountsCheck(ExpectedRows<Option<AccountRow>>);

impl AccountsCheck {
    pub(super) fn new(detail: Detail) -> Self {
        Self(ExpectedRows::new(detail))
    }
}

impl Check for AccountsCheck {
    fn fold(&mut self, decoded: &DecodedEvent) {
        self.0.fold(decoded, |row| {
            *row = AccountRow::evolve(row.take(), decoded);
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
                query_file_as!(Columns, "src/views/accounts/all.sql", view.partition, view.generation, only as _)
                    .fetch(connection);
            while let Some(row) = rows.try_next().await? {
                let row = row.row()?;
                actual.add(row.account_id, &row);
            }
            let row = |row: &Option<AccountRow>| row.clone().map(|row| row.in_shape(view.schema_version));
            Ok(self.0.mismatch(&actual, "account_view rows", row))
        }
        .boxed()
    }
}
