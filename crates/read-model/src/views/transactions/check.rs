//! Compares the view of transactions with the log.

use futures_util::{FutureExt, TryStreamExt, future::BoxFuture};
use sqlx::{PgConnection, Result, query_file};
use uuid::Uuid;

use super::{
    row::{AccountState, Entry, transaction},
    view::TransactionView,
};
use crate::{
    decoded_event::DecodedEvent,
    projection::{Check, Mismatch, ViewGeneration},
    row_set_hash::ExpectedRows,
};

/// The rows of each account that follow from its events.
#[derive(Default)]
pub(super) struct TransactionsCheck(ExpectedRows<AccountState>);

impl Check for TransactionsCheck {
    fn fold(&mut self, decoded: &DecodedEvent) {
        self.0.fold(decoded, |state| {
            let entry = Entry::from_event(&decoded.event);
            *state = state.evolve(&decoded.event, &entry);
            Some((transaction(decoded, &entry, *state), state.status, state.transaction_count))
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
            let mut rows = query_file!("src/views/transactions/all.sql", view.partition, view.generation, only as _)
                .fetch(connection);
            while let Some(row) = rows.try_next().await? {
                let transaction = TransactionView {
                    version: row.version,
                    kind: row.kind,
                    amount: row.amount,
                    balance_after: row.balance_after,
                    transfer_id: row.transfer_id,
                    counterparty_account_id: row.counterparty_account_id,
                    reference: row.reference,
                    recorded_at: row.recorded_at,
                    event_id: row.event_id,
                };
                let (status, count) = (row.status.unwrap_or_default(), row.transaction_count.unwrap_or_default());
                actual.add(row.account_id, (transaction, status, count));
            }
            Ok(self.0.mismatch(&actual, "transactions", |_| None::<&()>))
        }
        .boxed()
    }
}
