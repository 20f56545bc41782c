//! Reads the log in pages, and verifies before each page that the log still contains the event before it.

use std::time::Duration;

use sqlx::{Connection, PgPool};
use tokio::{sync::mpsc, time::sleep};
use tokio_util::task::AbortOnDropHandle;

use passbook_event_store::{EventWithHash, PrimaryConnector, VerifiedPrimary, reader, with_timeout};
use passbook_telemetry::supervision;

/// The time limit of each statement of the relay. After it, the database server counts as unavailable.
pub(super) const STATEMENT_MAX: Duration = Duration::from_secs(5);
/// The number of events in one page.
pub(super) const PAGE_EVENTS_MAX: usize = 1_000;
/// The number of pages that are read ahead of the publisher.
const PAGES_AHEAD_MAX: usize = 2;
/// The interval between polls for new events. It doubles from the minimum to the maximum while there are none.
const POLL_MS_MIN: u64 = 5;
const POLL_MS_MAX: u64 = 50;

/// Consecutive events of the log.
type Page = Result<Vec<EventWithHash>, ReadError>;

/// A position in the log, with the hash of the event there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LogPosition {
    /// The event's position; 0 before the first event.
    pub(super) position: i64,
    /// The event's hash; empty before the first event.
    pub(super) hash: Vec<u8>,
}

impl From<&EventWithHash> for LogPosition {
    fn from(recorded: &EventWithHash) -> Self {
        Self { position: recorded.event.position, hash: recorded.hash.clone() }
    }
}

/// How the log contradicts a position that was published earlier.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum HistoryMismatch {
    /// The log ends before the position.
    #[error("position {0} is beyond the log's head")]
    BeyondHead(i64),
    /// The log's event at the position has another hash.
    #[error("the log contains a different event at position {0}")]
    DifferentEvent(i64),
}

/// Why the log could not be read from a position.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The log does not contain the event with the expected hash; the hash is `None` if it is unknown.
    History(HistoryMismatch, Option<Vec<u8>>),
    Storage(sqlx::Error),
}

impl HistoryMismatch {
    /// The position of the event that the log does not contain.
    pub(super) fn position(self) -> i64 {
        match self {
            Self::BeyondHead(position) | Self::DifferentEvent(position) => position,
        }
    }
}

impl From<sqlx::Error> for ReadError {
    fn from(error: sqlx::Error) -> Self {
        Self::Storage(error)
    }
}

/// Reads the event at `position` and returns it with its hash.
///
/// # Errors
/// The log has no event there, its hash differs from `expected_hash`, or the database is unavailable.
pub(super) async fn locate(
    pool: &PgPool,
    partition: i16,
    position: i64,
    expected_hash: Option<&[u8]>,
) -> Result<LogPosition, ReadError> {
    if position == 0 {
        return Ok(LogPosition::default());
    }
    let reading = async { reader::hash_at(&mut *pool.acquire().await?, partition, position).await };
    let hash = with_timeout(STATEMENT_MAX, reading).await?;
    match mismatch(position, hash.as_deref(), expected_hash) {
        None => Ok(LogPosition { position, hash: hash.unwrap_or_default() }),
        Some(mismatch) => Err(ReadError::History(mismatch, expected_hash.map(<[u8]>::to_vec))),
    }
}

fn mismatch(position: i64, found: Option<&[u8]>, expected: Option<&[u8]>) -> Option<HistoryMismatch> {
    match found {
        None => Some(HistoryMismatch::BeyondHead(position)),
        Some(found) if expected.is_some_and(|expected| expected != found) => {
            Some(HistoryMismatch::DifferentEvent(position))
        }
        Some(_) => None,
    }
}

/// What the primary says about a mismatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The log of the primary has another history.
    Confirmed,
    /// The log of the primary contains the event: another server answered before.
    Refuted,
    /// The log that was found has another history, but a server did not answer, and may be the primary.
    Unknown,
}

/// Reads an event again over a new connection, after every server was asked which one is the primary.
///
/// # Errors
/// The primary cannot be reached.
pub(super) async fn read_again(
    primary: &PrimaryConnector,
    partition: i16,
    (position, expected): (i64, Option<&[u8]>),
) -> sqlx::Result<Verdict> {
    let VerifiedPrimary { mut connection, all_answered } = primary.connect_verified().await?;
    let found = with_timeout(STATEMENT_MAX, reader::hash_at(&mut connection, partition, position)).await?;
    // Best effort: the connection is closed either way.
    let _ = connection.close().await;
    Ok(match mismatch(position, found.as_deref(), expected) {
        None => Verdict::Refuted,
        Some(_) if all_answered => Verdict::Confirmed,
        Some(_) => Verdict::Unknown,
    })
}

/// Reads the page after the event `after`. The same statement reads that event again, which detects another history.
async fn read_page(pool: &PgPool, partition: i16, after: &LogPosition) -> Page {
    let overlap = usize::from(after.position > 0);
    let limit = (PAGE_EVENTS_MAX + overlap) as i64;
    let reading = async { reader::page(&mut *pool.acquire().await?, partition, after.position, limit).await };
    let mut events = with_timeout(STATEMENT_MAX, reading).await?;
    if after.position > 0 {
        if events.is_empty() {
            let expected = Some(after.hash.clone());
            return Err(ReadError::History(HistoryMismatch::BeyondHead(after.position), expected));
        }
        if LogPosition::from(&events.remove(0)) != *after {
            let expected = Some(after.hash.clone());
            return Err(ReadError::History(HistoryMismatch::DifferentEvent(after.position), expected));
        }
    }
    Ok(events)
}

/// Reads pages after the event `after` in a task of its own, ahead of the publisher. The task ends with the first error, which
/// is the last item of the channel, or when the handle is dropped.
pub(super) fn read_ahead(
    pool: PgPool,
    partition: i16,
    after: LogPosition,
) -> (mpsc::Receiver<Page>, AbortOnDropHandle<()>) {
    let (sender, pages) = mpsc::channel(PAGES_AHEAD_MAX);
    (pages, AbortOnDropHandle::new(supervision::spawn("log reader", read_loop(pool, partition, after, sender))))
}

async fn read_loop(pool: PgPool, partition: i16, mut after: LogPosition, pages: mpsc::Sender<Page>) {
    let mut poll_ms = POLL_MS_MIN;
    loop {
        let page = read_page(&pool, partition, &after).await;
        let has_failed = page.is_err();
        match page.as_ref().ok().map(|events| events.last()) {
            Some(None) => {
                sleep(Duration::from_millis(poll_ms)).await;
                poll_ms = (poll_ms * 2).min(POLL_MS_MAX);
                continue;
            }
            Some(Some(last)) => after = last.into(),
            None => {}
        }
        poll_ms = POLL_MS_MIN;
        if pages.send(page).await.is_err() || has_failed {
            return;
        }
    }
}
