//! Compares the view of daily balances with the log, in memory that grows with accounts only.

use std::{collections::HashMap, hash::RandomState};

use futures_util::{FutureExt, TryStreamExt, future::BoxFuture};
use sqlx::{PgConnection, Result, query_file_as};
use uuid::Uuid;

use super::{
    super::{
        Sum,
        projection::{Applicable, Check, Flaw, Place},
        tally::Tally,
    },
    DailyBalance, Recorded,
};

/// Every account's days as its events make them.
#[derive(Default)]
pub(super) struct DailyBalancesCheck {
    key: RandomState,
    accounts: HashMap<Uuid, Account>,
}

#[derive(Default)]
struct Account {
    /// Days that are over.
    over: Tally,
    last: Option<DailyBalance>,
    /// Of the last movement.
    position: i64,
}

impl Account {
    fn days(&self, key: &RandomState) -> Tally {
        let mut days = self.over;
        self.last.iter().for_each(|day| days.add(key, day));
        days
    }
}

impl Check for DailyBalancesCheck {
    fn apply(&mut self, applicable: &Applicable) {
        let account = self.accounts.entry(applicable.recorded.stream_id).or_default();
        let Some(day) = DailyBalance::evolve(account.last, applicable) else { return };
        if let Some(over) = account.last.replace(day).filter(|last| last.date != day.date) {
            account.over.add(&self.key, over);
        }
        account.position = applicable.recorded.position;
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
                query_file_as!(Recorded, "src/daily_balances/all.sql", place.partition, place.generation, only as _)
                    .fetch(connection);
            while let Some(row) = rows.try_next().await? {
                found.entry(row.account_id).or_default().add(&self.key, row.day());
            }
            let expected = |id: &Uuid| self.accounts.get(id).map(|account| account.days(&self.key)).unwrap_or_default();
            let differs = |id: &&Uuid| found.get(*id).copied().unwrap_or_default() != expected(id);
            let flawed = self.accounts.keys().chain(found.keys()).find(differs);
            Ok(flawed.map(|account_id| Flaw {
                position: self.accounts.get(account_id).map_or(0, |account| account.position),
                sentence: format!("the daily balances of account {account_id} are not what its events say"),
            }))
        }
        .boxed()
    }
}
