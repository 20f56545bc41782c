//! Projects events into the view of daily balances: folds them into the last day of each account, and writes each changed day once
//! per batch.

use std::collections::BTreeMap;

use chrono::{Datelike, NaiveDate};
use futures_util::{FutureExt, future::BoxFuture};
use sqlx::{PgConnection, Result, query, query_file, query_file_as};
use uuid::Uuid;

use super::{
    check::DailyBalancesCheck,
    view::{AccountDay, DailyBalance},
};
use crate::{
    decoded_event::DecodedEvent,
    money_sum::MoneySum,
    projection::{Check, Detail, Projection, RowKey, ViewGeneration},
    views::{
        RowWrites,
        account_cache::{AccountCache, CachedAccounts, PRELOADED_ACCOUNTS_MAX, Purpose},
        columns::WRITTEN_ROWS_MAX,
    },
};
use passbook_event_store::locked_read::rows_max;

/// How many last days one statement reads while the checkpoints are locked.
const LOCKED_DAYS_MAX: usize = rows_max(160);
/// Limit of accounts cached between batches; some 120 bytes each.
const CACHED_ACCOUNTS_MAX: CachedAccounts = CachedAccounts::new(50_000, 250_000);

/// The projection of the view of daily balances.
pub(crate) struct DailyBalances {
    /// The last day of each account; `None` if no money has moved yet.
    last_days: AccountCache<Option<DailyBalance>>,
    writes: RowWrites,
}

impl DailyBalances {
    pub(in crate::views) fn new(purpose: Purpose, writes: RowWrites) -> Self {
        Self { last_days: AccountCache::new(CACHED_ACCOUNTS_MAX.of(purpose)), writes }
    }

    /// Caches the last days of the accounts of a batch. Each statement reads up to `days_max` days.
    async fn load(
        &mut self,
        connection: &mut PgConnection,
        view: ViewGeneration,
        events: &[DecodedEvent],
        days_max: usize,
    ) -> Result<()> {
        let missing = self.last_days.missing(events, |event| event.balance_change() != 0);
        for ids in missing.chunks(days_max) {
            let days = read_last_days(connection, view, ids).await?;
            self.last_days.extend(days.iter().map(|row| (row.account_id, Some(row.day()))));
        }
        Ok(())
    }
}

impl Projection for DailyBalances {
    fn name(&self) -> &'static str {
        "daily_balances"
    }

    fn schema_version(&self) -> i16 {
        1
    }

    fn preload<'a>(
        &'a mut self,
        connection: &'a mut PgConnection,
        view: ViewGeneration,
        events: &'a [DecodedEvent],
    ) -> BoxFuture<'a, Result<()>> {
        self.load(connection, view, events, PRELOADED_ACCOUNTS_MAX).boxed()
    }

    fn apply<'a>(
        &'a mut self,
        connection: &'a mut PgConnection,
        view: ViewGeneration,
        events: &'a [DecodedEvent],
    ) -> BoxFuture<'a, Result<()>> {
        async move {
            self.load(connection, view, events, LOCKED_DAYS_MAX).await?;
            let mut days = BTreeMap::new();
            for decoded in events.iter().filter(|decoded| decoded.event.balance_change() != 0) {
                let account_id = decoded.recorded.stream_id;
                let last = self.last_days.state_mut(account_id);
                if let Some(day) = DailyBalance::evolve(*last, decoded) {
                    *last = Some(day);
                    days.insert((account_id, day.date), day);
                }
            }
            let days: Vec<(Uuid, DailyBalance)> =
                days.into_iter().map(|((account_id, _), day)| (account_id, day)).collect();
            for days in days.chunks(WRITTEN_ROWS_MAX) {
                upsert(connection, self.writes, view, days).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn clear_cache(&mut self) {
        self.last_days.clear();
    }

    fn check_sums<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        view: ViewGeneration,
        _: i64,
    ) -> BoxFuture<'a, Result<Option<String>>> {
        async move {
            let mismatch = query_file!("src/views/daily_balances/broken.sql", view.partition, view.generation);
            let mismatch = mismatch.fetch_optional(connection).await?;
            Ok(mismatch.map(|row| {
                format!("the day {} of account {} does not follow from the previous day", row.day, row.account_id)
            }))
        }
        .boxed()
    }

    fn discard<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        view: ViewGeneration,
        after: RowKey,
        limit: i64,
    ) -> BoxFuture<'a, Result<Option<RowKey>>> {
        async move {
            let after_day = i32::try_from(after.number).ok().and_then(NaiveDate::from_num_days_from_ce_opt);
            let after_day = after_day.unwrap_or_default();
            let last = query!(
                "SELECT account_id, day
                 FROM (
                     SELECT account_id, day FROM daily_balance
                     WHERE partition = $1 AND generation = $2 AND (account_id, day) >= ($3, $4)
                     ORDER BY account_id, day LIMIT $5
                 ) AS slice
                 ORDER BY account_id DESC, day DESC
                 LIMIT 1",
                view.partition,
                view.generation,
                after.account_id,
                after_day,
                limit
            );
            let Some(last) = last.fetch_optional(&mut *connection).await? else { return Ok(None) };
            query!(
                "DELETE FROM daily_balance
                 WHERE partition = $1 AND generation = $2
                   AND (account_id, day) >= ($3, $4) AND (account_id, day) <= ($5, $6)",
                view.partition,
                view.generation,
                after.account_id,
                after_day,
                last.account_id,
                last.day
            )
            .execute(connection)
            .await?;
            Ok(Some(RowKey { account_id: last.account_id, number: last.day.num_days_from_ce().into() }))
        }
        .boxed()
    }

    fn check(&self, detail: Detail) -> Box<dyn Check> {
        Box::new(DailyBalancesCheck::new(detail))
    }
}

async fn read_last_days(connection: &mut PgConnection, view: ViewGeneration, ids: &[Uuid]) -> Result<Vec<AccountDay>> {
    query_file_as!(AccountDay, "src/views/daily_balances/last.sql", view.partition, view.generation, ids)
        .fetch_all(connection)
        .await
}

/// Writes rows in the order of their keys, so that two writers take the row locks in the same order.
async fn upsert(
    connection: &mut PgConnection,
    writes: RowWrites,
    view: ViewGeneration,
    days: &[(Uuid, DailyBalance)],
) -> Result<()> {
    let rows = || days.iter().map(|(_, day)| day);
    macro_rules! statement {
        ($file:literal $(, $updated:expr)*) => {
            query_file!(
                $file,
                view.partition,
                view.generation,
                &days.iter().map(|(account_id, _)| *account_id).collect::<Vec<_>>(),
                &rows().map(|day| day.date).collect::<Vec<_>>(),
                &rows().map(|day| day.opening).collect::<Vec<_>>(),
                &texts(rows().map(|day| day.money_in)),
                &texts(rows().map(|day| day.money_out)),
                &rows().map(|day| day.closing).collect::<Vec<_>>(),
                &rows().map(|day| day.count).collect::<Vec<_>>(),
                $($updated,)*
            )
        };
    }
    match writes {
        RowWrites::Upsert => statement!("src/views/daily_balances/upsert.sql").execute(connection).await.map(drop),
        RowWrites::UpdateThenInsert => {
            let updated = statement!("src/views/daily_balances/update.sql").fetch_all(&mut *connection).await?;
            if updated.len() == days.len() {
                return Ok(());
            }
            let (ids, days): (Vec<Uuid>, Vec<NaiveDate>) =
                updated.into_iter().map(|row| (row.account_id, row.day)).unzip();
            statement!("src/views/daily_balances/insert.sql", &ids, &days).execute(connection).await.map(drop)
        }
    }
}

fn texts(sums: impl Iterator<Item = MoneySum>) -> Vec<String> {
    sums.map(|sum| sum.to_string()).collect()
}
