//! Projects events into the bank's totals: the changes that a batch makes to each currency are written once.

use std::collections::BTreeMap;

use futures_util::{FutureExt, future::BoxFuture};
use sqlx::{PgConnection, Result, query, query_file};
use uuid::Uuid;

use super::{
    check::BankTotalsCheck,
    view::{CurrencyTotal, SCHEMA_VERSION, opening_currency},
};
use crate::{
    decoded_event::{DecodedEvent, cannot_apply},
    projection::{Check, Detail, Projection, RowKey, ViewGeneration},
    views::{
        RowWrites,
        account_cache::{AccountCache, CachedAccounts, Purpose},
    },
};
use passbook_domain::{Currency, EventType};
use passbook_event_store::{
    StreamVersion,
    stream::{Member, find_member},
};

/// Where the log records the currency of an account.
const CURRENCY: Member<'static> = Member { event_type: EventType::AccountOpened.name(), name: "currency" };
/// Limit of accounts cached between batches; some 30 bytes each.
const CACHED_ACCOUNTS_MAX: CachedAccounts = CachedAccounts::new(200_000, 1_000_000);

/// The projection of the bank's totals.
pub(crate) struct BankTotals {
    /// The currency of each account, which never changes; `None` before its opening.
    currencies: AccountCache<Option<Currency>>,
    writes: RowWrites,
}

impl BankTotals {
    pub(in crate::views) fn new(purpose: Purpose, writes: RowWrites) -> Self {
        Self { currencies: AccountCache::new(CACHED_ACCOUNTS_MAX.of(purpose)), writes }
    }
}

impl Projection for BankTotals {
    fn name(&self) -> &'static str {
        "bank_totals"
    }

    fn schema_version(&self) -> i16 {
        SCHEMA_VERSION
    }

    fn preload<'a>(
        &'a mut self,
        connection: &'a mut PgConnection,
        view: ViewGeneration,
        events: &'a [DecodedEvent],
    ) -> BoxFuture<'a, Result<()>> {
        async move {
            let missing = self.currencies.missing(events, |_| true);
            self.currencies.extend(read_currencies(connection, view.partition, &missing).await?);
            Ok(())
        }
        .boxed()
    }

    fn apply<'a>(
        &'a mut self,
        connection: &'a mut PgConnection,
        view: ViewGeneration,
        events: &'a [DecodedEvent],
    ) -> BoxFuture<'a, Result<()>> {
        async move {
            self.preload(connection, view, events).await?;
            let mut changes: BTreeMap<&str, CurrencyTotal> = BTreeMap::new();
            for DecodedEvent { recorded, event, .. } in events {
                let currency = self.currencies.state_mut(recorded.stream_id);
                *currency = opening_currency(event).or(*currency);
                let Some(currency) = currency else {
                    let position = recorded.position;
                    return Err(cannot_apply(format!("the event at position {position} has no opening before it")));
                };
                changes.entry(currency.code()).or_default().add(event);
            }
            add(connection, self.writes, view, &changes).await
        }
        .boxed()
    }

    fn clear_cache(&mut self) {
        self.currencies.clear();
    }

    fn check_sums<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        view: ViewGeneration,
        events: i64,
    ) -> BoxFuture<'a, Result<Option<String>>> {
        async move {
            let sums = query!(
                r#"SELECT
                       coalesce(sum(event_count), 0)::bigint AS "event_count!",
                       coalesce(bool_or(least(open, frozen, closed) < 0), false) AS "is_negative!"
                   FROM bank_total
                   WHERE partition = $1 AND generation = $2"#,
                view.partition,
                view.generation
            )
            .fetch_one(connection)
            .await?;
            let event_count = sums.event_count;
            Ok(match sums.is_negative {
                true => Some("a number of accounts is negative".to_owned()),
                false => {
                    (event_count != events).then(|| format!("it counts {event_count} events, but the log has {events}"))
                }
            })
        }
        .boxed()
    }

    fn discard<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        view: ViewGeneration,
        after: RowKey,
        _limit: i64,
    ) -> BoxFuture<'a, Result<Option<RowKey>>> {
        async move {
            // One row per currency, so one slice deletes them all.
            let deleted = query!(
                "DELETE FROM bank_total WHERE partition = $1 AND generation = $2",
                view.partition,
                view.generation
            );
            Ok((deleted.execute(connection).await?.rows_affected() > 0).then_some(after))
        }
        .boxed()
    }

    fn check(&self, _: Detail) -> Box<dyn Check> {
        Box::<BankTotalsCheck>::default()
    }
}

/// Reads the currencies of accounts from their openings in the log, because the view has no rows per account. The rest of an opening
/// is not read: it can be long.
pub(crate) async fn read_currencies(
    connection: &mut PgConnection,
    partition: i16,
    ids: &[Uuid],
) -> Result<Vec<(Uuid, Option<Currency>)>> {
    let openings: Vec<StreamVersion> =
        ids.iter().map(|stream_id| StreamVersion { stream_id: *stream_id, version: 1 }).collect();
    let currency = |(opening, code): (StreamVersion, String)| match Currency::from_code(&code) {
        Some(currency) => Ok((opening.stream_id, Some(currency))),
        None => Err(cannot_apply(format!("account {} has the unknown currency {code}", opening.stream_id))),
    };
    find_member(connection, partition, &openings, CURRENCY).await?.into_iter().map(currency).collect()
}

/// Adds the changes in the order of the keys, so that two writers take the row locks in the same order.
async fn add(
    connection: &mut PgConnection,
    writes: RowWrites,
    view: ViewGeneration,
    changes: &BTreeMap<&str, CurrencyTotal>,
) -> Result<()> {
    macro_rules! statement {
        ($file:literal $(, $updated:expr)*) => {
            query_file!(
                $file,
                view.partition,
                view.generation,
                &changes.keys().copied().collect::<Vec<_>>() as _,
                &changes.values().map(|total| total.accounts.open).collect::<Vec<_>>(),
                &changes.values().map(|total| total.accounts.frozen).collect::<Vec<_>>(),
                &changes.values().map(|total| total.accounts.closed).collect::<Vec<_>>(),
                &changes.values().map(|total| total.money.to_string()).collect::<Vec<_>>(),
                &changes.values().map(|total| total.event_count).collect::<Vec<_>>(),
                &changes.values().map(|total| total.transferred.to_string()).collect::<Vec<_>>(),
                $($updated,)*
            )
        };
    }
    match writes {
        RowWrites::Upsert => statement!("src/views/bank_totals/add.sql").execute(connection).await.map(drop),
        RowWrites::UpdateThenInsert => {
            let updated = statement!("src/views/bank_totals/add_existing.sql").fetch_all(&mut *connection).await?;
            if updated.len() == changes.len() {
                return Ok(());
            }
            let updated: Vec<String> = updated.into_iter().map(|row| row.currency).collect();
            statement!("src/views/bank_totals/insert.sql", &updated).execute(connection).await.map(drop)
        }
    }
}
