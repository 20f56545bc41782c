//! Keeps the bank's totals: what a batch of events adds to each currency is written once.

use std::{collections::BTreeMap, num::NonZeroUsize};

use futures_util::{FutureExt, future::BoxFuture};
use lru::LruCache;
use sqlx::{PgConnection, Result, query, query_file};
use uuid::Uuid;

use super::{
    super::projection::{Applicable, Check, Place, Projection, cannot_apply},
    Total,
    check::BankTotalsCheck,
};
use passbook_domain::{Currency, Event};
use passbook_event_store::feed;

/// Of how many accounts the projector knows the currency; more than a batch has events.
const HELD_ACCOUNTS_MAX: NonZeroUsize = NonZeroUsize::new(200_000).expect("is not zero");

/// Keeps the view.
pub(crate) struct BankTotals {
    /// Only an opening says an account's currency, which it has for life.
    currencies: LruCache<Uuid, Currency>,
}

impl Default for BankTotals {
    fn default() -> Self {
        Self { currencies: LruCache::new(HELD_ACCOUNTS_MAX) }
    }
}

impl Projection for BankTotals {
    fn name(&self) -> &'static str {
        "bank_totals"
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
            self.learn_currencies(connection, place.partition, events).await?;
            let mut changes: BTreeMap<&str, Total> = BTreeMap::new();
            for Applicable { recorded, event } in events {
                let Some(currency) = self.currencies.peek(&recorded.stream_id) else {
                    return Err(cannot_apply(format!("position {} has no opening", recorded.position)));
                };
                changes.entry(currency.code()).or_default().record(event);
            }
            add(connection, place, &changes).await
        }
        .boxed()
    }

    /// A log that lost its end may have opened an account anew, in another currency.
    fn forget(&mut self) {
        self.currencies.clear();
    }

    fn check_sums<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        place: Place,
        position: i64,
    ) -> BoxFuture<'a, Result<Option<String>>> {
        async move {
            let sums = query!(
                r#"SELECT
                       coalesce(sum(event_count), 0)::bigint AS "event_count!",
                       coalesce(bool_or(least(open, frozen, closed, money) < 0), false) AS "is_negative!"
                   FROM bank_total
                   WHERE partition = $1 AND generation = $2"#,
                place.partition,
                place.generation
            )
            .fetch_one(connection)
            .await?;
            let event_count = sums.event_count;
            Ok(match sums.is_negative {
                true => Some("it counts less than nothing".to_owned()),
                false => (event_count != position).then(|| format!("it counts {event_count} events of {position}")),
            })
        }
        .boxed()
    }

    fn discard<'a>(&'a self, connection: &'a mut PgConnection, place: Place, limit: i64) -> BoxFuture<'a, Result<u64>> {
        async move {
            let deleted = query!(
                "DELETE FROM bank_total
                 WHERE partition = $1 AND generation = $2 AND currency IN (
                     SELECT currency FROM bank_total WHERE partition = $1 AND generation = $2
                     ORDER BY currency LIMIT $3
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
        Box::<BankTotalsCheck>::default()
    }
}

impl BankTotals {
    /// Sees to it that the currency of each account of `events` is held: of those that are not, the openings are read from
    /// the log in one statement.
    async fn learn_currencies(
        &mut self,
        connection: &mut PgConnection,
        partition: i16,
        events: &[Applicable],
    ) -> Result<()> {
        let mut missing = Vec::new();
        for Applicable { recorded, event } in events {
            match event {
                Event::AccountOpened(opened) => drop(self.currencies.put(recorded.stream_id, opened.currency)),
                _ if self.currencies.get(&recorded.stream_id).is_none() => missing.push(recorded.stream_id),
                _ => {}
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        missing.sort_unstable();
        missing.dedup();
        for recorded in feed::openings(connection, partition, &missing).await? {
            let opening = Applicable::try_from(recorded)?;
            if let Some(currency) = currency(&opening.event) {
                self.currencies.put(opening.recorded.stream_id, currency);
            }
        }
        Ok(())
    }
}

/// The currency that an opening says.
pub(super) fn currency(event: &Event) -> Option<Currency> {
    match event {
        Event::AccountOpened(opened) => Some(opened.currency),
        Event::MoneyDeposited(_)
        | Event::MoneyWithdrawn(_)
        | Event::TransferSent(_)
        | Event::TransferReceived(_)
        | Event::AccountFrozen(_)
        | Event::AccountUnfrozen(_)
        | Event::AccountClosed(_) => None,
    }
}

/// Adds in the order of the key, so that two writers take the row locks in the same order.
async fn add(connection: &mut PgConnection, place: Place, changes: &BTreeMap<&str, Total>) -> Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    query_file!(
        "src/bank_totals/add.sql",
        place.partition,
        place.generation,
        &changes.keys().copied().collect::<Vec<_>>() as _,
        &changes.values().map(|total| total.accounts.open).collect::<Vec<_>>(),
        &changes.values().map(|total| total.accounts.frozen).collect::<Vec<_>>(),
        &changes.values().map(|total| total.accounts.closed).collect::<Vec<_>>(),
        &changes.values().map(|total| total.money.to_string()).collect::<Vec<_>>(),
        &changes.values().map(|total| total.event_count).collect::<Vec<_>>(),
    )
    .execute(connection)
    .await?;
    Ok(())
}
