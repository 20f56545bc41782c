//! Compares the view of movements with the log, in memory that grows with accounts only.

use std::{collections::HashMap, hash::RandomState};

use futures_util::{FutureExt, TryStreamExt, future::BoxFuture};
use sqlx::{PgConnection, Result, query_file};
use uuid::Uuid;

use super::{
    super::{
        projection::{Applicable, Check, Flaw, Place},
        tally::Tally,
    },
    TransactionView,
    entry::{Entry, Standing, row},
};

/// Every account's rows as its events make them.
#[derive(Default)]
pub(super) struct TransactionsCheck {
    key: RandomState,
    accounts: HashMap<Uuid, Account>,
}

#[derive(Default)]
struct Account {
    standing: Standing,
    rows: Tally,
    /// Of the last event.
    position: i64,
}

impl Check for TransactionsCheck {
    fn apply(&mut self, applicable: &Applicable) {
        let Applicable { recorded, event } = applicable;
        let entry = Entry::of(event);
        let account = self.accounts.entry(recorded.stream_id).or_default();
        let after = account.standing.after(event, &entry);
        account.standing = after;
        account.position = recorded.position;
        let row = row(applicable, &entry, after);
        account.rows.add(&self.key, (&row, after.status, after.transaction_count));
    }

    fn compare<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        place: Place,
        only: Option<&'a [Uuid]>,
    ) -> BoxFuture<'a, Result<Option<Flaw>>> {
        async move {
            let mut found: HashMap<Uuid, Tally> = HashMap::new();
            let mut rows =
                query_file!("src/transactions/all.sql", place.partition, place.generation, only as _).fetch(connection);
            while let Some(row) = rows.try_next().await? {
                let view = TransactionView {
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
                found.entry(row.account_id).or_default().add(&self.key, (&view, &*status, count));
            }
            let expected =
                |account_id: &Uuid| self.accounts.get(account_id).map(|account| account.rows).unwrap_or_default();
            let differs =
                |account_id: &&Uuid| found.get(*account_id).copied().unwrap_or_default() != expected(account_id);
            let flawed = self.accounts.keys().chain(found.keys()).find(differs);
            Ok(flawed.map(|account_id| Flaw {
                position: self.accounts.get(account_id).map_or(0, |account| account.position),
                sentence: format!("the transactions of account {account_id} are not what its events say"),
            }))
        }
        .boxed()
    }
}
