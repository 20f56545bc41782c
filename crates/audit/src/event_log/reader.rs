//! Pages of recorded events: of the whole log, optionally filtered, and of one account.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use tokio::sync::{Semaphore, SemaphorePermit};
use uuid::Uuid;

use super::{
    cursor::{Cursor, CursorParam, PartitionCursor, PartitionCursorParam},
    error::{Error, InvalidCursorPosition},
    record::{EventFilter, EventRecord},
};
use passbook_domain::{Aggregate, EventType};
use passbook_event_store::{
    EventWithHash, Partitions, PrimaryConnector, log,
    reader::{self, TypeFilter},
    with_timeout,
};

/// How long reading one page may take.
const PAGE_TIMEOUT: Duration = Duration::from_secs(5);
/// How many events are scanned for one page of a frequent type, in all partitions together; more only if the page has more. Such a
/// page may be short although more events follow.
const SCAN_EVENTS_MAX: i64 = 10_000;
/// How many reads are repeated at the same time, each on a connection of its own.
const REPEATED_READS_MAX: usize = 2;

/// Reads pages of recorded events. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EventReader {
    pool: PgPool,
    /// Finds the primary again if the pool shows another history than a cursor.
    primary: PrimaryConnector,
    repeated_reads: Arc<Semaphore>,
    partitions: Partitions,
}

/// A page of events: in the order of positions within each partition, and in the order of times across partitions.
#[derive(Debug)]
pub struct LogPage {
    /// The events.
    pub events: Vec<EventRecord>,
    /// The cursor after the page.
    pub next: Cursor,
    /// Whether no event followed `next` when the page was read.
    pub is_last: bool,
}

/// A page of the events of one partition.
pub(super) struct PartitionPage {
    pub(super) events: Vec<EventRecord>,
    pub(super) next: PartitionCursor,
    pub(super) is_last: bool,
}

/// A connection to the primary, over which a read is repeated.
struct RepeatedRead<'a> {
    connection: PgConnection,
    _permit: SemaphorePermit<'a>,
}

/// The part of a partition to read.
#[derive(Clone, Copy)]
pub(super) struct PartitionRange {
    pub(super) partition: i16,
    pub(super) after: PartitionCursor,
    /// The most events to read.
    pub(super) limit: i64,
}

impl EventReader {
    /// Reads through `pool`. Before a cursor is refused, it is read again over a new connection of `primary`.
    pub fn new(pool: PgPool, primary: PrimaryConnector, partitions: Partitions) -> Self {
        Self { pool, primary, repeated_reads: Arc::new(Semaphore::new(REPEATED_READS_MAX)), partitions }
    }

    /// How many partitions the log has.
    pub(super) fn partitions(&self) -> Partitions {
        self.partitions
    }

    /// The cursor at which reading starts: in each partition after `after`, or at the filter's time if that is later.
    ///
    /// # Errors
    /// `after` identifies no event of this log, or the database failed.
    pub async fn start(&self, after: &CursorParam, filter: &EventFilter) -> Result<Cursor, Error> {
        let other_partitions = InvalidCursorPosition::OtherPartitions(self.partitions.count());
        let after = after.per_partition(self.partitions).ok_or(other_partitions)?;
        with_page_timeout(async {
            let first = self.cursors(&mut *self.pool.acquire().await?, &after, filter).await;
            match self.connect_if_in_doubt(&first).await? {
                None => first,
                Some(mut repeated) => self.cursors(&mut repeated.connection, &after, filter).await,
            }
        })
        .await
    }

    async fn cursors(
        &self,
        connection: &mut PgConnection,
        after: &[PartitionCursorParam],
        filter: &EventFilter,
    ) -> Result<Cursor, Error> {
        let mut cursors = Vec::new();
        for (partition, after) in self.partitions.all().zip(after) {
            cursors.push(self.start_in_partition(connection, partition, *after, filter.since).await?);
        }
        Ok(Cursor::new(cursors))
    }

    /// Connects to the primary again if the log had another history than a cursor: the pool may still have led to a former primary.
    /// `None` if there is no doubt.
    async fn connect_if_in_doubt<T>(&self, first: &Result<T, Error>) -> Result<Option<RepeatedRead<'_>>, Error> {
        let Err(Error::InvalidCursorPosition(error)) = first else { return Ok(None) };
        if !error.may_be_of_former_primary() {
            return Ok(None);
        }
        let Ok(permit) = self.repeated_reads.acquire().await else { return Ok(None) };
        let connection = self.primary.connect_verified().await?.connection;
        Ok(Some(RepeatedRead { connection, _permit: permit }))
    }

    async fn start_in_partition(
        &self,
        connection: &mut PgConnection,
        partition: i16,
        after: PartitionCursorParam,
        since: Option<DateTime<Utc>>,
    ) -> Result<PartitionCursor, Error> {
        let after = self.resolve(connection, partition, after).await?;
        let Some(since) = since else { return Ok(after) };
        let last_before = reader::position_at(connection, partition, since).await?;
        match last_before > after.position {
            true => self.resolve(connection, partition, PartitionCursorParam::from_position(last_before)).await,
            false => Ok(after),
        }
    }

    /// Reads up to `limit` events after `after`. Each partition first gets an equal share of the page. Partitions with more
    /// events then fill the rest of it.
    ///
    /// # Errors
    /// The log no longer contains the events of `after`, or the database failed.
    pub async fn page(&self, after: &Cursor, filter: &EventFilter, limit: i64) -> Result<LogPage, Error> {
        with_page_timeout(async {
            let first = self.read_page(&mut *self.pool.acquire().await?, after, filter, limit).await;
            match self.connect_if_in_doubt(&first).await? {
                None => first,
                Some(mut repeated) => self.read_page(&mut repeated.connection, after, filter, limit).await,
            }
        })
        .await
    }

    async fn read_page(
        &self,
        connection: &mut PgConnection,
        after: &Cursor,
        filter: &EventFilter,
        limit: i64,
    ) -> Result<LogPage, Error> {
        let mut page = LogPage { events: vec![], next: after.clone(), is_last: true };
        let mut left = limit;
        let mut unfinished = self.rotated_partitions(after);
        let mut share = (limit / i64::from(self.partitions.count())).max(1);
        while left > 0 && !unfinished.is_empty() {
            let mut still_unfinished = Vec::new();
            for partition in unfinished {
                let range = PartitionRange { partition, after: page.next.at(partition), limit: share.min(left) };
                let is_last = range.limit > 0 && {
                    let read = self.partition_page(connection, range, filter).await?;
                    left -= read.events.len() as i64;
                    page.events.extend(read.events);
                    page.next.advance(partition, read.next);
                    read.is_last
                };
                if !is_last {
                    still_unfinished.push(partition);
                }
            }
            page.is_last = still_unfinished.is_empty();
            // A page of one type gets no second round, because it may have scanned its maximum already.
            if share >= left || filter.event_type.is_some() {
                break;
            }
            (unfinished, share) = (still_unfinished, left);
        }
        if self.partitions.is_partitioned() {
            // Times never decrease along a partition, so the stable sort keeps the order within it.
            page.events.sort_by_key(|event| (event.recorded_at, event.partition));
        }
        // If `since` is in the future, the page starts at the head, and events before `since` may follow.
        page.events.retain(|event| filter.since.is_none_or(|since| event.recorded_at >= since));
        Ok(page)
    }

    /// All partitions, beginning with another one for each page, so that short pages do not favour one partition.
    fn rotated_partitions(&self, after: &Cursor) -> Vec<i16> {
        let sum: i64 = self.partitions.all().fold(0, |sum, partition| sum.wrapping_add(after.at(partition).position));
        let mut partitions: Vec<i16> = self.partitions.all().collect();
        let first = sum.rem_euclid(self.partitions.count().into());
        partitions.rotate_left(usize::try_from(first).unwrap_or(0));
        partitions
    }

    /// The events of a partition that the filter's type selects.
    async fn partition_page(
        &self,
        connection: &mut PgConnection,
        range: PartitionRange,
        filter: &EventFilter,
    ) -> Result<PartitionPage, Error> {
        match filter.event_type {
            None => read_range(connection, self.partitions, range).await,
            Some(event_type) => self.partition_page_of_type(connection, range, event_type).await,
        }
    }

    async fn partition_page_of_type(
        &self,
        connection: &mut PgConnection,
        range: PartitionRange,
        event_type: EventType,
    ) -> Result<PartitionPage, Error> {
        let PartitionRange { partition, after, limit } = range;
        self.ensure_history_matches(connection, partition, after).await?;
        // The head is read before the events, so that no event up to it is missing.
        let head = log::head(connection, partition).await?;
        let head = PartitionCursor::new(head.position, &head.hash);
        let filter = TypeFilter { partition, event_type: event_type.name(), after: after.position };
        // Events that move money are frequent and have no index by type, so a range of positions is scanned for them.
        let (read, scanned_to) = match event_type.is_common() {
            false => (reader::page_of_rare_type(connection, filter, limit).await?, head),
            true => {
                let scan_events = (SCAN_EVENTS_MAX / i64::from(self.partitions.count())).max(limit);
                let last = head.position.min(after.position + scan_events);
                let read = reader::page_of_common_type(connection, filter, last, limit).await?;
                let scanned_to = match last == head.position {
                    true => head,
                    false => self.resolve(connection, partition, PartitionCursorParam::from_position(last)).await?,
                };
                (read, scanned_to)
            }
        };
        let is_full = read.len() as i64 == limit;
        let events = records(self.partitions, partition, read)?;
        let next = match events.last().map(|event| event.cursor) {
            Some(last) if is_full || last.position > scanned_to.position => last,
            Some(_) | None => scanned_to,
        };
        Ok(PartitionPage { events, next, is_last: !is_full && next.position >= head.position })
    }

    /// Fails unless the log still contains the cursor's event.
    async fn ensure_history_matches(
        &self,
        connection: &mut PgConnection,
        partition: i16,
        cursor: PartitionCursor,
    ) -> Result<(), Error> {
        let position = PartitionCursorParam::from_position(cursor.position);
        match self.resolve(connection, partition, position).await? {
            found if found == cursor => Ok(()),
            _ => {
                Err(InvalidCursorPosition::OtherHistory(self.partitions.position_in(partition, cursor.position)).into())
            }
        }
    }

    /// Reads the hash of the cursor's event, and compares it with the cursor's own hash if it has one.
    async fn resolve(
        &self,
        connection: &mut PgConnection,
        partition: i16,
        cursor: PartitionCursorParam,
    ) -> Result<PartitionCursor, Error> {
        let position = self.partitions.position_in(partition, cursor.position);
        let hash = match cursor.position {
            0 => vec![],
            at => match reader::hash_at(connection, partition, at).await? {
                Some(hash) => hash,
                None => return Err(InvalidCursorPosition::BeyondHead(position).into()),
            },
        };
        Ok(cursor.resolve(&hash).ok_or(InvalidCursorPosition::OtherHistory(position))?)
    }

    /// Up to `limit` events of an account after `version`, and whether more follow. `None` if the account does not exist.
    ///
    /// # Errors
    /// The database failed.
    pub async fn account_events(
        &self,
        account_id: Uuid,
        version: i64,
        limit: i64,
    ) -> Result<Option<(Vec<EventRecord>, bool)>, Error> {
        with_page_timeout(async {
            let mut connection = self.pool.acquire().await?;
            let partition = self.partitions.partition_of(account_id);
            let read = reader::page_of_stream(&mut connection, partition, account_id, version, limit + 1).await?;
            if read.first().is_some_and(|read| !is_of_account(&read.event.event_type)) {
                return Ok(None);
            }
            let mut events = records(self.partitions, partition, read)?;
            if events.is_empty() {
                let is_unknown = version == 0
                    || reader::page_of_stream(&mut connection, partition, account_id, 0, 1).await?.is_empty();
                if is_unknown {
                    return Ok(None);
                }
            }
            let has_more = events.len() as i64 > limit;
            if has_more {
                events.pop();
            }
            Ok(Some((events, has_more)))
        })
        .await
    }
}

/// Whether the stream of an event with this type's name is that of an account.
fn is_of_account(event_type: &str) -> bool {
    EventType::aggregate_of(event_type) == Aggregate::BankAccount
}

/// Reads the events of all types in a range. The same statement reads the event at `after` again. If that event is
/// missing or has another hash, the log was replaced by another history.
pub(super) async fn read_range(
    connection: &mut PgConnection,
    partitions: Partitions,
    range: PartitionRange,
) -> Result<PartitionPage, Error> {
    let PartitionRange { partition, after, limit } = range;
    let position = || partitions.position_in(partition, after.position);
    let repeated = i64::from(after.position > 0);
    let mut read = reader::page(connection, partition, after.position, limit + repeated).await?.into_iter();
    if after.position > 0 {
        let first = read.next().ok_or_else(|| InvalidCursorPosition::BeyondHead(position()))?;
        if !after.matches(first.event.position, &first.hash) {
            return Err(InvalidCursorPosition::OtherHistory(position()).into());
        }
    }
    let events = records(partitions, partition, read)?;
    let next = events.last().map_or(after, |event| event.cursor);
    let is_last = (events.len() as i64) < limit;
    Ok(PartitionPage { events, next, is_last })
}

fn records(
    partitions: Partitions,
    partition: i16,
    read: impl IntoIterator<Item = EventWithHash>,
) -> sqlx::Result<Vec<EventRecord>> {
    read.into_iter().map(|linked| EventRecord::new(partitions, partition, linked)).collect()
}

async fn with_page_timeout<T>(read: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    with_timeout(PAGE_TIMEOUT, async { Ok(read.await) }).await?
}
