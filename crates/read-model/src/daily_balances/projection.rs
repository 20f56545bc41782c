//! Keeps the view of daily balances: each account's last day is held, and each changed day is written once a batch.

use std::{collections::BTreeMap, num::NonZeroUsize};

use chrono::NaiveDate;
use futures_util::{FutureExt, future::BoxFuture};
use lru::LruCache;
use sqlx::{PgConnection, Result, query, query_file, query_file_as};
use uuid::Uuid;

use super::{
    super::{
        Sum,
        projection::{Applicable, Check, Place, Projection},
    },
    DailyBalance, Recorded,
    check::DailyBalancesCheck,
};

/// How many accounts the projector holds between batches; more than a batch has events.
const HELD_ACCOUNTS_MAX: NonZeroUsize = NonZeroUsize::new(50_000).expect("is not zero");

/// Keeps the view.
pub(crate) struct DailyBalances {
    /// Each account's last day; `None`: no money has moved yet.
    held: LruCache<Uuid, Option<DailyBalance>>,
}

impl Default for DailyBalances {
    fn default() -> Self {
        Self { held: LruCache::new(HELD_ACCOUNTS_MAX) }
    }
}

impl Projection for DailyBalances {
    fn name(&self) -> &'static str {
        "daily_balances"
    }

    fn schema_version(&self) -> i16 {
        1
    }

    fn apply<'a>(
        &'a mut self,
        connection: &'a mut PgConnection,
        place: Place,
        events: &'a [Applicable],
    ) -> BoxFuture<'a, Result<()>> {
        async move {
            self.hold(connection, place, events).await?;
            let mut days = BTreeMap::new();
            for applicable in events.iter().filter(|applicable| applicable.event.gain() != 0) {
                let account_id = applicable.recorded.stream_id;
                let last = self.held.get_or_insert_mut(account_id, || None);
                if let Some(day) = DailyBalance::evolve(*last, applicable) {
                    *last = Some(day);
                    days.insert((account_id, day.date), day);
                }
            }
            upsert(connection, place, &days).await
        }
        .boxed()
    }

    fn forget(&mut self) {
        self.held.clear();
    }

    fn check_sums<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        place: Place,
        _: i64,
    ) -> BoxFuture<'a, Result<Option<String>>> {
        async move {
            let broken = query_file!("src/daily_balances/broken.sql", place.partition, place.generation);
            let broken = broken.fetch_optional(connection).await?;
            Ok(broken
                .map(|row| format!("{} of account {} does not follow from the day before it", row.day, row.account_id)))
        }
        .boxed()
    }

    fn discard<'a>(&'a self, connection: &'a mut PgConnection, place: Place, limit: i64) -> BoxFuture<'a, Result<u64>> {
        async move {
            let deleted = query!(
                "DELETE FROM daily_balance
                 WHERE partition = $1 AND generation = $2 AND (account_id, day) IN (
                     SELECT account_id, day FROM daily_balance WHERE partition = $1 AND generation = $2
                     ORDER BY account_id, day LIMIT $3
                 )",
                place.partition,
                place.generation,
                limit
            );
            Ok(deleted.execute(connection).await?.rows_affected())
        }
        .boxed()
    }

    fn check(&self) -> Box<dyn Check> {
        Box::<DailyBalancesCheck>::default()
    }
}

impl DailyBalances {
    /// Sees to it that the last day of each account of `events` is held: those that are not are read in one statement.
    async fn hold(&mut self, connection: &mut PgConnection, place: Place, events: &[Applicable]) -> Result<()> {
        let mut missing = Vec::new();
        for Applicable { recorded, event } in events {
            match self.held.get(&recorded.stream_id) {
                Some(_) => {}
                // An account that is opened here has no day before, and one on which no money moves needs none.
                None if recorded.version == 1 => drop(self.held.put(recorded.stream_id, None)),
                None if event.gain() == 0 => {}
                None => missing.push(recorded.stream_id),
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        missing.sort_unstable();
        missing.dedup();
        let read = query_file_as!(Recorded, "src/daily_balances/last.sql", place.partition, place.generation, &missing);
        for row in read.fetch_all(connection).await? {
            self.held.put(row.account_id, Some(row.day()));
        }
        Ok(())
    }
}

/// Writes rows in the order of their key, so that two writers take the row locks in the same order.
async fn upsert(
    connection: &mut PgConnection,
    place: Place,
    days: &BTreeMap<(Uuid, NaiveDate), DailyBalance>,
) -> Result<()> {
    if days.is_empty() {
        return Ok(());
    }
    query_file!(
        "src/daily_balances/upsert.sql",
        place.partition,
        place.generation,
        &days.keys().map(|(account_id, _)| *account_id).collect::<Vec<_>>(),
        &days.values().map(|day| day.date).collect::<Vec<_>>(),
        &days.values().map(|day| day.opening).collect::<Vec<_>>(),
        &texts(days.values().map(|day| day.money_in)),
        &texts(days.values().map(|day| day.money_out)),
        &days.values().map(|day| day.closing).collect::<Vec<_>>(),
        &days.values().map(|day| day.count).collect::<Vec<_>>(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

fn texts(sums: impl Iterator<Item = Sum>) -> Vec<String> {
    sums.map(|sum| sum.to_string()).collect()
}
