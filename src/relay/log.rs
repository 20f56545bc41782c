//! The log behind a place, page by page, as long as the event at that place is still the same.

use std::{io, time::Duration};

use sqlx::PgPool;
use tokio::time::timeout;

use crate::event_store::{trail, whole::LinkedEvent};

/// How long one reading may take before its server is taken for frozen.
const READ_MS_MAX: u64 = 5_000;

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
