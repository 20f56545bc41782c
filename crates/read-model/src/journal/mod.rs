//! The journal of the books: every movement of money with its balanced postings, read from the log in bounded pages. No view is
//! needed, so the journal can be read from any log, and a slow client does not occupy a connection.

mod entry;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use chrono::{NaiveDate, NaiveTime};
use sqlx::{PgConnection, PgPool};
use tokio::sync::Semaphore;

use self::entry::entries_of;
use crate::{
    decoded_event::{DecodedBatch, cannot_apply, decode},
    finality::last_moment_before,
    query_router::QUERY_MS_MAX,
    read_model::{Error, ReadModel},
};
use passbook_event_store::{
    Partitions, Position, log,
    moment::{self, Settled},
    reader, with_timeout,
};

pub use self::entry::{JournalEntry, JournalPosting};

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
            let DecodedBatch { events, count } = decode(after, events)?;
            if count < limit {
                let position = after + count + 1;
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
    let start = |day: NaiveDate| day.and_time(NaiveTime::MIN).and_utc();
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
