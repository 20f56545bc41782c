//! Compares the view of transactions with the log.

use futures_util::{FutureExt, TryStreamExt, future::BoxFuture};
use sqlx::{PgConnection, Result, query_file, types::Json};
use uuid::Uuid;

use super::{
    row::{AccountState, Entry, transaction},
    view::{Columns, TransactionView},
};
use crate::{
    decoded_event::DecodedEvent,
    projection::{Check, Detail, Mismatch, ViewGeneration},
    row_set_hash::ExpectedRows,
};
use passbook_domain::{Event, Metadata};

/// The rows of each account that follow from its events, and what was reversed of each movement.
pub(super) struct TransactionsCheck(ExpectedRows<AccountState>);

impl TransactionsCheck {
    pub(super) fn new(detail: Detail) -> Self {
        Self(ExpectedRows::new(detail))
    }
}

/// A row: the transaction, and the state of the account after it.
#[derive(Hash)]
struct HistoryRow<'a> {
    transaction: TransactionView,
    status: &'a str,
    transaction_count: i64,
    overdraft: i64,
    holds_version: Option<i64>,
    holds: Option<String>,
}

impl Check for TransactionsCheck {
    fn fold(&mut self, decoded: &DecodedEvent) {
        let DecodedEvent { recorded, event, .. } = decoded;
        self.0.fold(decoded, |state| {
            let entry = Entry::from_event(event);
            let holds = state.evolve(decoded, &entry);
            let after = state.row;
            Some(HistoryRow {
                transaction: transaction(decoded, &entry, after),
                status: after.status,
                transaction_count: after.transaction_count,
                overdraft: after.overdraft,
                holds_version: after.holds_version,
                holds,
            })
        });
        if let Event::MovementReversed(reversed) = event {
            self.0.add_amount(recorded.stream_id, reversed.reverses_version, reversed.amount.minor_units());
        }
    }

    fn compare<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        view: ViewGeneration,
        only: Option<&'a [Uuid]>,
    ) -> BoxFuture<'a, Result<Option<Mismatch>>> {
        async move {
            let mut actual = self.0.actual_rows();
            let ViewGeneration { partition, generation, .. } = view;
            let mut rows =
                query_file!("src/views/transactions/all.sql", partition, generation, only as _).fetch(&mut *connection);
            while let Some(row) = rows.try_next().await? {
                let account_id = row.account_id;
                let columns = Columns {
                    version: row.version,
                    kind: row.kind,
                    amount: row.amount,
                    balance_after: row.balance_after,
                    transfer_id: row.transfer_id,
                    counterparty_account_id: row.counterparty_account_id,
                    hold_id: row.hold_id,
                    reverses_version: row.reverses_version,
                    reversed: None,
                    reference: row.reference,
                    channel: row.channel,
                    metadata: row.metadata,
                    recorded_at: row.recorded_at,
                    event_id: row.event_id,
                };
                let row = HistoryRow {
                    transaction: columns.view(),
                    status: row.status.as_deref().unwrap_or_default(),
                    transaction_count: row.transaction_count.unwrap_or_default(),
                    overdraft: row.overdraft.unwrap_or_default(),
                    holds_version: row.holds_version,
                    holds: row.holds,
                };
                actual.add(account_id, row);
            }
            drop(rows);
            let mut reversed = query_file!("src/views/transactions/all_reversed.sql", partition, generation, only as _)
                .fetch(connection);
            while let Some(row) = reversed.try_next().await? {
                actual.add_amount(row.account_id, row.version, row.reversed);
            }
            Ok(self.0.mismatch(&actual, "transactions", |_| None::<()>))
        }
        .boxed()
    }
}
