//! The log behind a place, page by page, as long as the event at that place is still the same.

use std::{io, time::Duration};

use sqlx::PgPool;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use super::guarded::Guarded;
use passbook_event_store::{trail, whole::LinkedEvent};

/// How long one reading may take before its server is taken for frozen.
const READ_MS_MAX: u64 = 5_000;

/// How many events are read at once.
pub(super) const PAGE_EVENTS_MAX: i64 = 1_000;
/// How many pages wait to be published while the next one is read.
const AHEAD_PAGES_MAX: usize = 2;
/// The poll behind the log's head, backing off while nothing happens.
const POLL_MS_MIN: u64 = 5;
const POLL_MS_MAX: u64 = 50;

/// Events that follow each other in the log.
type Page = Result<Vec<LinkedEvent>, Error>;

/// Behind an event, or before the first one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// The event's position; 0 before the first one.
    pub(super) position: i64,
    pub(super) hash: Vec<u8>,
}

impl Place {
    /// Behind this event.
    pub(super) fn behind(linked: &LinkedEvent) -> Self {
        Self { position: linked.event.position, hash: linked.hash.clone() }
    }
}

/// Why a place leads nowhere.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum Misplaced {
    /// The log does not go so far.
    #[error("position {0} is beyond the log's head")]
    BeyondHead(i64),
    /// Another event stands there.
    #[error("the event at position {0} is another one")]
    OtherEvent(i64),
}

/// Why nothing was read.
#[derive(Debug)]
pub(super) enum Error {
    Misplaced(Misplaced),
    Storage(sqlx::Error),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Storage(error)
    }
}

/// The place at `position`, where the event with this hash stands, if one is given.
pub(super) async fn find(pool: &PgPool, partition: i16, position: i64, hash: Option<&[u8]>) -> Result<Place, Error> {
    if position == 0 {
        return Ok(Place::default());
    }
    let looking = async { trail::hash_at(&mut *pool.acquire().await?, partition, position).await };
    let found = in_time(looking).await?.ok_or(Error::Misplaced(Misplaced::BeyondHead(position)))?;
    match hash.is_none_or(|hash| hash == found) {
        true => Ok(Place { position, hash: found }),
        false => Err(Error::Misplaced(Misplaced::OtherEvent(position))),
    }
}

/// Up to `limit` events behind `after`. One statement reads the event before them once more: if it is another one, or gone,
/// the log's history is another one.
pub(super) async fn read(pool: &PgPool, partition: i16, after: &Place, limit: i64) -> Result<Vec<LinkedEvent>, Error> {
    let again = i64::from(after.position > 0);
    let reading = async { trail::page(&mut *pool.acquire().await?, partition, after.position, limit + again).await };
    let mut events = in_time(reading).await?;
    if after.position > 0 {
        if events.is_empty() {
            return Err(Error::Misplaced(Misplaced::BeyondHead(after.position)));
        }
        if Place::behind(&events.remove(0)) != *after {
            return Err(Error::Misplaced(Misplaced::OtherEvent(after.position)));
        }
    }
    Ok(events)
}

async fn in_time<T>(reading: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    match timeout(Duration::from_millis(READ_MS_MAX), reading).await {
        Ok(read) => read,
        Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
    }
}

/// Reads what stands behind `from` ahead of whoever takes the pages, until the guard is dropped or there is an error to tell.
pub(super) fn read_ahead(pool: PgPool, partition: i16, from: Place) -> (mpsc::Receiver<Page>, Guarded) {
    let (pages, taken) = mpsc::channel(AHEAD_PAGES_MAX);
    (taken, Guarded::spawn(read_on(pool, partition, from, pages)))
}

async fn read_on(pool: PgPool, partition: i16, mut from: Place, pages: mpsc::Sender<Page>) {
    let mut poll = POLL_MS_MIN;
    loop {
        let page = read(&pool, partition, &from, PAGE_EVENTS_MAX).await;
        let is_over = page.is_err();
        match page.as_ref().ok().map(|events| events.last()) {
            Some(None) => {
                sleep(Duration::from_millis(poll)).await;
                poll = (poll * 2).min(POLL_MS_MAX);
                continue;
            }
            Some(Some(last)) => from = Place::behind(last),
            None => {}
        }
        poll = POLL_MS_MIN;
        if pages.send(page).await.is_err() || is_over {
            return;
        }
    }
}
