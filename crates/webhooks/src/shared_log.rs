//! Reads the log for all endpoints of a process. Those that are near the head share each page, so that fifty endpoints read the log once.

use std::{
    collections::VecDeque,
    num::NonZeroUsize,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use lru::LruCache;
use passbook_audit::EventRecord;
use passbook_domain::Event;
use passbook_event_store::{EventWithHash, Partitions, reader, with_timeout};
use sqlx::PgPool;
use tokio::{sync::Mutex, time::Instant};
use uuid::Uuid;

/// The events of one page.
const PAGE_EVENTS_MAX: i64 = 500;
/// The pages of a partition that are kept for the other endpoints.
const PAGES_MAX: usize = 8;
/// The time limit of one read.
const READ_S_MAX: u64 = 5;
/// The shortest time between two reads at the head of a partition.
const HEAD_READ_MS_MIN: u64 = 20;
/// The accounts whose owners are remembered.
const OWNERS_MAX: usize = 10_000;

/// An event of the log, and the body of its deliveries.
#[derive(Debug)]
pub(crate) struct LogEvent {
    pub(crate) partition: i16,
    pub(crate) position: i64,
    pub(crate) hash: Vec<u8>,
    pub(crate) record: EventRecord,
    body: OnceLock<Bytes>,
}

impl LogEvent {
    fn new(partitions: Partitions, partition: i16, linked: EventWithHash) -> sqlx::Result<Arc<Self>> {
        let (position, hash) = (linked.event.position, linked.hash.clone());
        let record = EventRecord::new(partitions, partition, linked)?;
        Ok(Arc::new(Self { partition, position, hash, record, body: OnceLock::new() }))
    }

    /// The event as `GET /v1/events` shows it.
    pub(crate) fn body(&self) -> Bytes {
        // Serializing this type does not fail.
        self.body.get_or_init(|| serde_json::to_vec(&self.record).unwrap_or_default().into()).clone()
    }

    /// About how much memory the event takes, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        2 * (self.record.data.get().len() + self.record.metadata.get().len()) + 1_000
    }
}

/// Where reading continues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogCursor {
    pub(crate) partition: i16,
    /// The position of the last event that was read; 0 before the first.
    pub(crate) position: i64,
    /// Its hash.
    pub(crate) hash: Vec<u8>,
}

/// Why no page was read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The log has another event at the cursor, or none.
    #[error("the log has another history: it does not contain the event at position {0} that was read last")]
    OtherHistory(i64),
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] sqlx::Error),
}

/// Consecutive events.
type Page = Arc<[Arc<LogEvent>]>;

/// The last pages of a partition.
#[derive(Default)]
struct Recent {
    pages: VecDeque<Page>,
    /// The last event that was read at the head.
    end: Option<LogCursor>,
    read_at: Option<Instant>,
}

/// The log, shared by the endpoints of a process. Cheap to clone.
#[derive(Clone)]
pub(crate) struct SharedLog {
    pool: PgPool,
    partitions: Partitions,
    recent: Arc<[Mutex<Recent>]>,
    owners: Arc<Mutex<LruCache<Uuid, Option<Arc<str>>>>>,
}

impl SharedLog {
    pub(crate) fn new(pool: PgPool, partitions: Partitions) -> Self {
        let recent = partitions.all().map(|_| Mutex::default()).collect();
        let owners = LruCache::new(NonZeroUsize::new(OWNERS_MAX).unwrap_or(NonZeroUsize::MIN));
        Self { pool, partitions, recent, owners: Arc::new(Mutex::new(owners)) }
    }

    /// The next events after a cursor. Empty: there are none, or the head was read a moment ago.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub(crate) async fn after(&self, cursor: &LogCursor) -> Result<Vec<Arc<LogEvent>>, ReadError> {
        let index = usize::try_from(cursor.partition).unwrap_or_default();
        let Some(recent) = self.recent.get(index) else { return Ok(vec![]) };
        let mut recent = recent.lock().await;
        if let Some(events) = recent.after(cursor) {
            return Ok(events);
        }
        let is_at_end = recent.end.as_ref() == Some(cursor);
        if recent.end.as_ref().is_some_and(|end| cursor.position < end.position) {
            // Far behind the head: a page of its own, while the others go on.
            drop(recent);
            return self.read(cursor).await;
        }
        let pause = Duration::from_millis(HEAD_READ_MS_MIN);
        if is_at_end && recent.read_at.is_some_and(|at| at.elapsed() < pause) {
            return Ok(vec![]);
        }
        let events = self.read(cursor).await?;
        recent.append(cursor, &events, is_at_end);
        Ok(events)
    }

    async fn read(&self, cursor: &LogCursor) -> Result<Vec<Arc<LogEvent>>, ReadError> {
        // The event at the cursor is read again: after a restore or a failover it may be another one.
        let overlap = i64::from(cursor.position > 0);
        let reading = async {
            let mut connection = self.pool.acquire().await?;
            reader::page(&mut connection, cursor.partition, cursor.position, PAGE_EVENTS_MAX + overlap).await
        };
        let mut rows = with_timeout(Duration::from_secs(READ_S_MAX), reading).await?.into_iter();
        if overlap > 0
            && rows.next().is_none_or(|first| first.event.position != cursor.position || first.hash != cursor.hash)
        {
            return Err(ReadError::OtherHistory(cursor.position));
        }
        let events = rows.map(|linked| LogEvent::new(self.partitions, cursor.partition, linked));
        Ok(events.collect::<sqlx::Result<_>>()?)
    }

    /// Up to `limit` events of a stream from `version` on.
    pub(crate) async fn of_stream(
        &self,
        (partition, stream_id): (i16, Uuid),
        version: i64,
        limit: i64,
    ) -> sqlx::Result<Vec<Arc<LogEvent>>> {
        let reading = async {
            let mut connection = self.pool.acquire().await?;
            reader::page_of_stream(&mut connection, partition, stream_id, version - 1, limit).await
        };
        let rows = with_timeout(Duration::from_secs(READ_S_MAX), reading).await?.into_iter();
        rows.map(|linked| LogEvent::new(self.partitions, partition, linked)).collect()
    }

    /// The hash of the event at a position.
    pub(crate) async fn hash_at(&self, partition: i16, position: i64) -> sqlx::Result<Option<Vec<u8>>> {
        if position == 0 {
            return Ok(Some(vec![]));
        }
        let index = usize::try_from(partition).unwrap_or_default();
        if let Some(recent) = self.recent.get(index) {
            let recent = recent.lock().await;
            let mut events = recent.pages.iter().flat_map(|page| page.iter());
            if let Some(event) = events.find(|event| event.position == position) {
                return Ok(Some(event.hash.clone()));
            }
        }
        let mut connection = self.pool.acquire().await?;
        reader::hash_at(&mut connection, partition, position).await
    }

    /// The owner of an account; `None` if the stream is not one of an account.
    pub(crate) async fn owner(&self, partition: i16, stream_id: Uuid) -> sqlx::Result<Option<Arc<str>>> {
        if let Some(owner) = self.owners.lock().await.get(&stream_id) {
            return Ok(owner.clone());
        }
        let first = self.of_stream((partition, stream_id), 1, 1).await?;
        let owner = first.first().and_then(|first| {
            match Event::decode(&first.record.event_type, first.record.schema_version, first.record.data.get()) {
                Ok(Event::AccountOpened(opened)) => Some(opened.owner),
                Ok(_) | Err(_) => None,
            }
        });
        self.owners.lock().await.put(stream_id, owner.clone());
        Ok(owner)
    }
}

impl Recent {
    /// Adds a page that was read after `cursor`. It continues the last one if that is `at_end`.
    fn append(&mut self, cursor: &LogCursor, events: &[Arc<LogEvent>], at_end: bool) {
        self.read_at = Some(Instant::now());
        if !at_end {
            self.pages.clear();
            self.end = Some(cursor.clone());
        }
        let Some(last) = events.last() else { return };
        self.end = Some(LogCursor { partition: last.partition, position: last.position, hash: last.hash.clone() });
        if self.pages.len() == PAGES_MAX {
            self.pages.pop_front();
        }
        self.pages.push_back(events.to_vec().into());
    }

    /// The events after the cursor in the page that follows it; `None` if no page does.
    fn after(&self, cursor: &LogCursor) -> Option<Vec<Arc<LogEvent>>> {
        let mut before: Option<&Arc<LogEvent>> = None;
        for page in &self.pages {
            let start = page.partition_point(|event| event.position <= cursor.position);
            let last_read = start.checked_sub(1).and_then(|last| page.get(last)).or(before);
            if start < page.len()
                && last_read.is_some_and(|event| event.position == cursor.position && event.hash == cursor.hash)
            {
                return Some(page[start..].to_vec());
            }
            before = page.last();
        }
        None
    }
}

#[cfg(test)]
impl LogEvent {
    /// A deposit. Its version is its position.
    pub(crate) fn for_test(position: i64, stream_id: Uuid) -> Arc<Self> {
        use passbook_event_store::RecordedEvent;
        let event = RecordedEvent {
            position,
            id: Uuid::from_u128(position as u128),
            stream_id,
            version: position,
            event_type: "MoneyDeposited".to_owned(),
            schema_version: 2,
            data: r#"{"amount":5}"#.to_owned(),
            recorded_at: chrono::DateTime::UNIX_EPOCH,
        };
        let linked = EventWithHash { event, metadata: "{}".to_owned(), hash: vec![position as u8; 32] };
        Self::new(Partitions::ONE, 0, linked).expect("an event")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(position: i64) -> LogCursor {
        LogCursor { partition: 0, position, hash: vec![position as u8; 32] }
    }

    fn positions(events: Option<Vec<Arc<LogEvent>>>) -> Option<Vec<i64>> {
        events.map(|events| events.iter().map(|event| event.position).collect())
    }

    #[test]
    fn a_cursor_within_the_recent_pages_needs_no_read() {
        let page = |range: std::ops::RangeInclusive<i64>| -> Page {
            range.map(|position| LogEvent::for_test(position, Uuid::nil())).collect()
        };
        let recent = Recent { pages: VecDeque::from([page(5..=7), page(8..=9)]), ..Recent::default() };
        assert_eq!(positions(recent.after(&cursor(5))), Some(vec![6, 7]));
        assert_eq!(positions(recent.after(&cursor(7))), Some(vec![8, 9]));
        assert_eq!(positions(recent.after(&cursor(8))), Some(vec![9]));
        // The hash of the event before the first page is unknown, and behind the last one is nothing.
        assert_eq!([4, 2, 9].map(|position| positions(recent.after(&cursor(position)))), [None, None, None]);
        let other = LogCursor { hash: vec![0; 32], ..cursor(7) };
        assert_eq!(positions(recent.after(&other)), None);
    }
}
