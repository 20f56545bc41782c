//! Projects events into the ledger totals: the changes that a batch makes to each row are written once.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{Datelike, NaiveDate};
use futures_util::{FutureExt, future::BoxFuture};
use sqlx::{PgConnection, Result, query, query_file, query_scalar};

use super::{
    check::LedgerTotalsCheck,
    originals::read_originals,
    view::{LedgerKey, LedgerTotal},
};
use crate::{
    decoded_event::{DecodedEvent, cannot_apply},
    projection::{Check, Detail, Projection, RowKey, ViewGeneration},
    views::{
        RowWrites,
        account_cache::{AccountCache, CachedAccounts, Purpose},
        bank_totals::{opening_currency, read_currencies},
    },
};
use passbook_domain::{
    Currency,
    books::{self, LedgerAccount},
};
use passbook_event_store::StreamVersion;

/// Limit of accounts cached between batches; some 30 bytes each.
const CACHED_ACCOUNTS_MAX: CachedAccounts = CachedAccounts::new(200_000, 1_000_000);

/// The projection of the ledger totals.
pub(crate) struct LedgerTotals {
    /// The currency of each account, which never changes; `None` before its opening.
    currencies: AccountCache<Option<Currency>>,
    /// The ledger accounts of the movements that the current batch reverses.
    originals: BTreeMap<StreamVersion, LedgerAccount>,
    writes: RowWrites,
}

impl LedgerTotals {
    pub(in crate::views) fn new(purpose: Purpose, writes: RowWrites) -> Self {
        let currencies = AccountCache::new(CACHED_ACCOUNTS_MAX.of(purpose));
        Self { currencies, originals: BTreeMap::new(), writes }
    }

    /// What the events of a batch add to the rows.
    fn changes(&mut self, events: &[DecodedEvent]) -> Result<BTreeMap<LedgerKey, LedgerTotal>> {
        let mut changes: BTreeMap<LedgerKey, LedgerTotal> = BTreeMap::new();
        for decoded in events {
            let DecodedEvent { recorded, event, .. } = decoded;
            let currency = self.currencies.state_mut(recorded.stream_id);
            *currency = opening_currency(event).or(*currency);
            let Some(currency) = currency else {
                let position = recorded.position;
                return Err(cannot_apply(format!("the event at position {position} has no opening before it")));
            };
            let (day, currency) = (recorded.recorded_at.date_naive(), currency.code());
            changes.entry((day, currency, LedgerAccount::CustomerDeposits.name())).or_default().event_count += 1;
            let original = reversed_movement(decoded).and_then(|movement| self.originals.get(&movement).copied());
            let postings = books::postings(event, original).map_err(|error| {
                cannot_apply(format!("the event at position {} cannot be posted: {error}", recorded.position))
            })?;
            for posting in postings.into_iter().flatten() {
                changes.entry((day, currency, posting.account.name())).or_default().post(posting);
            }
        }
        Ok(changes)
    }
}

/// The movement whose ledger account the postings of an event need.
pub(crate) fn reversed_movement(DecodedEvent { recorded, event, .. }: &DecodedEvent) -> Option<StreamVersion> {
    let version = books::reversed_version(event)?;
    Some(StreamVersion { stream_id: recorded.stream_id, version })
}

impl Projection for LedgerTotals {
    fn name(&self) -> &'static str {
        "ledger_totals"
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
        async move {
            let missing = self.currencies.missing(events, |_| true);
            self.currencies.extend(read_currencies(connection, view.partition, &missing).await?);
            let reversed: BTreeSet<StreamVersion> = events.iter().filter_map(reversed_movement).collect();
            self.originals.retain(|movement, _| reversed.contains(movement));
            let is_missing = |movement: &StreamVersion| !self.originals.contains_key(movement);
            let missing: Vec<StreamVersion> = reversed.into_iter().filter(is_missing).collect();
            self.originals.extend(read_originals(connection, view.partition, &missing).await?);
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
            let changes = self.changes(events)?;
            add(connection, self.writes, view, &changes).await
        }
        .boxed()
    }

    fn clear_cache(&mut self) {
        self.currencies.clear();
        self.originals.clear();
    }

    fn check_sums<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        view: ViewGeneration,
        events: i64,
    ) -> BoxFuture<'a, Result<Option<String>>> {
        async move {
            let sums = query_file!("src/views/ledger_totals/sums.sql", view.partition, view.generation);
            let sums = sums.fetch_one(connection).await?;
            let event_count = sums.event_count;
            Ok(match sums.is_unbalanced {
                true => Some("the debits of a day and currency differ from its credits".to_owned()),
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
        limit: i64,
    ) -> BoxFuture<'a, Result<Option<RowKey>>> {
        async move {
            let after_day = i32::try_from(after.number).ok().and_then(NaiveDate::from_num_days_from_ce_opt);
            let after_day = after_day.unwrap_or_default();
            // The rows of whole days: a day has few.
            let last = query_scalar!(
                "SELECT max(slice.day)
                 FROM (
                     SELECT day FROM ledger_total
                     WHERE partition = $1 AND generation = $2 AND day > $3
                     ORDER BY day LIMIT $4
                 ) AS slice",
                view.partition,
                view.generation,
                after_day,
                limit
            );
            let Some(last) = last.fetch_one(&mut *connection).await? else { return Ok(None) };
            query!(
                "DELETE FROM ledger_total WHERE partition = $1 AND generation = $2 AND day > $3 AND day <= $4",
                view.partition,
                view.generation,
                after_day,
                last
            )
            .execute(connection)
            .await?;
            Ok(Some(RowKey { number: last.num_days_from_ce().into(), ..after }))
        }
        .boxed()
    }

    fn check(&self, _: Detail) -> Box<dyn Check> {
        Box::<LedgerTotalsCheck>::default()
    }
}

/// Adds the changes in the order of the keys, so that two writers take the row locks in the same order.
async fn add(
    connection: &mut PgConnection,
    writes: RowWrites,
    view: ViewGeneration,
    changes: &BTreeMap<LedgerKey, LedgerTotal>,
) -> Result<()> {
    macro_rules! statement {
        ($file:literal $(, $updated:expr)*) => {
            query_file!(
                $file,
                view.partition,
                view.generation,
                &changes.keys().map(|(day, ..)| *day).collect::<Vec<_>>(),
                &changes.keys().map(|(_, currency, _)| *currency).collect::<Vec<_>>() as _,
                &changes.keys().map(|(.., account)| *account).collect::<Vec<_>>() as _,
                &changes.values().map(|total| total.debit.to_string()).collect::<Vec<_>>(),
                &changes.values().map(|total| total.credit.to_string()).collect::<Vec<_>>(),
                &changes.values().map(|total| total.event_count).collect::<Vec<_>>(),
                $($updated,)*
            )
        };
    }
    match writes {
        RowWrites::Upsert => statement!("src/views/ledger_totals/add.sql").execute(connection).await.map(drop),
        RowWrites::UpdateThenInsert => {
            let updated = statement!("src/views/ledger_totals/add_existing.sql").fetch_all(&mut *connection).await?;
            if updated.len() == changes.len() {
                return Ok(());
            }
            let days: Vec<NaiveDate> = updated.iter().map(|row| row.day).collect();
            let (currencies, accounts): (Vec<String>, Vec<String>) =
                updated.into_iter().map(|row| (row.currency, row.ledger_account)).unzip();
            statement!("src/views/ledger_totals/insert.sql", &days, &currencies, &accounts)
                .execute(connection)
                .await
                .map(drop)
        }
    }
}
