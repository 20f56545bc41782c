//! The journal of the books: every movement of money with its balanced postings, read from the log in bounded pages. No view is
//! needed, so the journal can be read from any log, and a slow client does not occupy a connection.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use sqlx::{PgConnection, PgPool};
use tokio::sync::Semaphore;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    decoded_event::{DecodedEvent, cannot_apply, decode},
    finality::last_moment_before,
    query_router::QUERY_MS_MAX,
    read_model::{Error, ReadModel},
    views::{
        bank_totals::read_currencies,
        ledger_totals::{originals::read_originals, projection::reversed_movement},
        transactions::{Details, Kind, kind},
    },
};
use passbook_domain::{
    Channel, Currency,
    books::{self, Posting},
};
use passbook_event_store::{
    Partitions, Position, StreamVersion, log,
    moment::{self, Settled},
    reader, timestamp, with_timeout,
};

/// The most entries of a page, and the most events of one read in a log with one partition.
const PAGE_ENTRIES_MAX: usize = 256;
/// The most events of one read in a log with many partitions, because the entries of all partitions wait in memory to be merged.
const PARTITION_EVENTS_MIN: usize = 32;
/// How many pages of journals are read at the same time. It is smaller than the pool, so that queries get a connection.
const JOURNAL_READS_AT_ONCE_MAX: usize = 2;

/// Days in UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalPeriod {
    /// The first day; `None`: from the first event on.
    pub from: Option<NaiveDate>,
    /// The day after the last; `None`: up to the last event.
    pub to: Option<NaiveDate>,
}

/// Reads journals. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Journal {
    pool: PgPool,
    partitions: Partitions,
    reads: Arc<Semaphore>,
}

/// The entries of a journal, read page by page in the order of their times, and within a partition in the order of the log.
#[derive(Debug)]
pub struct JournalEntries {
    journal: Journal,
    /// The parts of the journal, one per partition.
    parts: Vec<Part>,
}

/// The part of a journal in one partition.
#[derive(Debug)]
struct Part {
    partition: i16,
    /// The position of the last event that was read.
    after: i64,
    /// The position of the last event of the period.
    last: i64,
    /// Entries that were read and wait for their turn.
    entries: VecDeque<JournalEntry>,
}

/// A movement of money as the books have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct JournalEntry {
    /// The day in UTC on which the event was recorded.
    pub date: NaiveDate,
    /// When the event was recorded.
    #[serde(with = "timestamp")]
    pub recorded_at: DateTime<Utc>,
    /// The position of the event in the log.
    #[schema(value_type = String)]
    pub position: Position,
    /// The event that moved the money.
    pub event_id: Uuid,
    /// The customer's account.
    pub account_id: Uuid,
    /// The version of the account after the event.
    #[schema(example = 2, minimum = 1)]
    pub version: i64,
    /// Why money moved.
    #[schema(value_type = Kind)]
    pub kind: &'static str,
    /// The currency (ISO 4217).
    #[schema(value_type = String, example = "EUR", pattern = "^[A-Z]{3}$")]
    pub currency: Currency,
    /// One debit and one credit of the same amount.
    #[schema(value_type = Vec<JournalPosting>)]
    pub postings: [JournalPosting; 2],
    /// The transfer that the event is a side of.
    #[schema(required = true)]
    pub transfer_id: Option<Uuid>,
    /// The other account of the transfer; `null` for the reversal of one.
    #[schema(required = true)]
    pub counterparty_account_id: Option<Uuid>,
    /// The hold that was captured. That of a received transfer is the sender's.
    #[schema(required = true)]
    pub hold_id: Option<Uuid>,
    /// The version of the transaction of this account that a reversal pays back.
    #[schema(required = true, example = json!(null))]
    pub reverses_version: Option<i64>,
    /// The text that the caller supplied.
    #[schema(required = true, example = "invoice 2026-17")]
    pub reference: Option<String>,
    /// Where the money was deposited or withdrawn.
    #[schema(required = true, example = json!(null))]
    pub channel: Option<Channel>,
}

/// One side of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct JournalPosting {
    /// The ledger account.
    #[schema(example = "assets:cash:branch")]
    pub ledger_account: &'static str,
    /// The debited amount in minor units; 0 for a credit.
    #[schema(example = 500, minimum = 0, maximum = 9007199254740991i64)]
    pub debit: i64,
    /// The credited amount in minor units; 0 for a debit.
    #[schema(example = 0, minimum = 0, maximum = 9007199254740991i64)]
    pub credit: i64,
}

impl From<Posting> for JournalPosting {
    fn from(posting: Posting) -> Self {
        Self { ledger_account: posting.account.name(), debit: posting.debit(), credit: posting.credit() }
    }
}

impl ReadModel {
    /// The journal of a period, read at the primary, as [`Journal::entries`].
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn journal(
        &self,
        period: JournalPeriod,
        min_position: Option<&Position>,
    ) -> Result<(JournalEntries, Position), Error> {
        self.check_position(min_position)?;
        self.journal.entries(period, min_position).await
    }
}

impl Journal {
    /// Reads through `pool`, which must lead to the primary.
    pub fn new(pool: PgPool, partitions: Partitions) -> Self {
        Self { pool, partitions, reads: Arc::new(Semaphore::new(JOURNAL_READS_AT_ONCE_MAX)) }
    }

    /// The entries of a period, with the position of its last event. A period that is over is made final first: no event will be
    /// recorded in it. One that is not over ends at the last event of now.
    ///
    /// # Errors
    /// The log does not reach `min_position`, or the database failed.
    pub async fn entries(
        &self,
        period: JournalPeriod,
        min_position: Option<&Position>,
    ) -> Result<(JournalEntries, Position), Error> {
        let parts = with_timeout(Duration::from_millis(QUERY_MS_MAX), async {
            let mut connection = self.pool.acquire().await?;
            let mut parts = Vec::new();
            for partition in self.partitions.all() {
                let head = log::head(&mut connection, partition).await?.position;
                let (after, last) = bounds(&mut connection, partition, period).await?;
                parts.push((head, Part { partition, after, last: last.max(after), entries: VecDeque::new() }));
            }
            Ok(parts)
        });
        let parts = parts.await?;
        let at = |position: fn(&(i64, Part)) -> i64| {
            let positions = parts.iter().map(|part| self.partitions.position_in(part.1.partition, position(part)));
            positions.reduce(Position::merge).unwrap_or_default()
        };
        let (reached, last) = (at(|(head, _)| *head), at(|(_, part)| part.last));
        let is_behind =
            |minimum: &Position| parts.iter().any(|(head, part)| *head < minimum.in_partition(part.partition));
        if min_position.is_some_and(is_behind) {
            return Err(Error::Lagging { reached });
        }
        let parts = parts.into_iter().map(|(_, part)| part).collect();
        Ok((JournalEntries { journal: self.clone(), parts }, last))
    }

    /// Reads the next events of a part, and returns the entries of those that move money.
    async fn read(&self, partition: i16, after: i64, last: i64) -> Result<(i64, Vec<JournalEntry>), Error> {
        // Limits the connections that journals use at the same time.
        let _permit = self.reads.acquire().await;
        let events_max = (PAGE_ENTRIES_MAX / self.partitions.all().len()).max(PARTITION_EVENTS_MIN) as i64;
        let read = with_timeout(Duration::from_millis(QUERY_MS_MAX), async {
            let mut connection = self.pool.acquire().await?;
            let limit = events_max.min(last - after);
            let events = reader::events_after(&mut connection, partition, after, limit).await?;
            let events = decode(after, events)?;
            if (events.len() as i64) < limit {
                let position = after + events.len() as i64 + 1;
                return Err(cannot_apply(format!("the log has no event at position {position}")));
            }
            let entries = entries_of(&mut connection, self.partitions, partition, &events).await?;
            Ok((after + limit, entries))
        });
        Ok(read.await?)
    }
}

/// The position before the first event of a period, and that of the last one.
async fn bounds(connection: &mut PgConnection, partition: i16, period: JournalPeriod) -> sqlx::Result<(i64, i64)> {
    let start = |day: NaiveDate| day.and_time(chrono::NaiveTime::MIN).and_utc();
    let last = match period.to {
        Some(to) => match moment::settle(connection, partition, last_moment_before(start(to))).await? {
            Settled::At(position) => position,
            Settled::Future => log::head(connection, partition).await?.position,
        },
        None => log::head(connection, partition).await?.position,
    };
    let after = match period.from {
        Some(from) => reader::position_at(connection, partition, start(from)).await?,
        None => 0,
    };
    Ok((after, last))
}

impl JournalEntries {
    /// Whether all entries were returned.
    pub fn is_finished(&self) -> bool {
        self.parts.iter().all(|part| part.after == part.last && part.entries.is_empty())
    }

    /// The next entries. A page can be empty before the end, because not every event moves money.
    ///
    /// # Errors
    /// [`Error::Storage`] if the database failed, or the log contradicts itself.
    pub async fn next_page(&mut self) -> Result<Vec<JournalEntry>, Error> {
        for part in self.parts.iter_mut().filter(|part| part.entries.is_empty() && part.after < part.last) {
            let (after, entries) = self.journal.read(part.partition, part.after, part.last).await?;
            part.after = after;
            part.entries.extend(entries);
        }
        let mut page = Vec::new();
        while page.len() < PAGE_ENTRIES_MAX
            && let Some(next) = self.next_part()
            && let Some(entry) = next.entries.pop_front()
        {
            page.push(entry);
        }
        Ok(page)
    }

    /// The part whose first entry is the next one of the journal; `None` if a part must be read before this is known.
    fn next_part(&mut self) -> Option<&mut Part> {
        if self.parts.iter().any(|part| part.entries.is_empty() && part.after < part.last) {
            return None;
        }
        let parts = self.parts.iter_mut().filter(|part| !part.entries.is_empty());
        // The times of a partition never decrease. Of equal ones, the lower partition goes first.
        parts.min_by_key(|part| part.entries.front().map(|entry| entry.recorded_at))
    }
}

/// The entries of the events that move money.
async fn entries_of(
    connection: &mut PgConnection,
    partitions: Partitions,
    partition: i16,
    events: &[DecodedEvent],
) -> sqlx::Result<Vec<JournalEntry>> {
    let events: Vec<&DecodedEvent> = events.iter().filter(|decoded| decoded.event.balance_change() != 0).collect();
    let accounts: BTreeSet<Uuid> = events.iter().map(|decoded| decoded.recorded.stream_id).collect();
    let accounts: Vec<Uuid> = accounts.into_iter().collect();
    let currencies: HashMap<Uuid, Option<Currency>> =
        read_currencies(connection, partition, &accounts).await?.into_iter().collect();
    let reversed: BTreeSet<StreamVersion> = events.iter().filter_map(|decoded| reversed_movement(decoded)).collect();
    let reversed: Vec<StreamVersion> = reversed.into_iter().collect();
    let originals = read_originals(connection, partition, &reversed).await?;
    let entry = |decoded: &DecodedEvent| {
        let DecodedEvent { recorded, event, .. } = decoded;
        let failed = |reason: &str| cannot_apply(format!("the event at position {} {reason}", recorded.position));
        let currency = currencies.get(&recorded.stream_id).copied().flatten();
        let currency = currency.ok_or_else(|| failed("has no opening before it"))?;
        let original = reversed_movement(decoded).and_then(|movement| originals.get(&movement).copied());
        let postings =
            books::postings(event, original).map_err(|error| failed(&format!("cannot be posted: {error}")))?;
        let postings = postings.ok_or_else(|| failed("moves no money"))?;
        let details = Details::from_event(event);
        Ok(JournalEntry {
            date: recorded.recorded_at.date_naive(),
            recorded_at: recorded.recorded_at,
            position: partitions.position_in(partition, recorded.position),
            event_id: recorded.id,
            account_id: recorded.stream_id,
            version: recorded.version,
            kind: kind(event),
            currency,
            postings: postings.map(JournalPosting::from),
            transfer_id: details.transfer_id,
            counterparty_account_id: details.counterparty,
            hold_id: details.hold_id,
            reverses_version: details.reverses_version,
            reference: details.reference.map(ToOwned::to_owned),
            channel: details.channel,
        })
    };
    events.into_iter().map(entry).collect()
}
