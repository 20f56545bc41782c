//! The log as it was recorded, page by page, for whoever reads what happened.

use std::{io, time::Duration};

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    Error,
    cursor::{Bookmark, Cursor},
    record::EventRecord,
};
use crate::{
    domain::EventType,
    event_store::{log, trail, whole::LinkedEvent},
};

/// How long one page may take before its server is taken for frozen.
const PAGE_MS_MAX: u64 = 5_000;
/// How many events are read for one page of a type of which there are many: a page may be short, and leads on.
const SCAN_EVENTS_MAX: i64 = 10_000;

/// The handle to the recorded events, cheap to clone.
#[derive(Clone, Debug)]
pub struct Trail {
    pool: PgPool,
    partition: i16,
}

/// Which events of the log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter {
    /// Of this type.
    pub event_type: Option<EventType>,
    /// Recorded at this time or later.
    pub since: Option<DateTime<Utc>>,
}

/// Events in the order of the log.
#[derive(Debug)]
pub struct LogPage {
    /// The events.
    pub events: Vec<EventRecord>,
    /// Where the next page begins.
    pub next: Cursor,
    /// Whether there was nothing behind `next` when it was read.
    pub is_last: bool,
}

/// Why a cursor leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misplaced {
    /// The log does not go so far.
    #[error("position {0} is beyond the log's head: this log has never been there, or was restored to before it")]
    BeyondHead(i64),
    /// Another event stands there.
    #[error("the event at position {0} is another one: the cursor is of another history of this log")]
    OtherHistory(i64),
}

impl Filter {
    /// Whether the event is one of those wanted.
    pub(super) fn takes(&self, event_type: Option<EventType>, recorded_at: DateTime<Utc>) -> bool {
        self.event_type.is_none_or(|wanted| event_type == Some(wanted))
            && self.since.is_none_or(|since| recorded_at >= since)
    }

    /// Whether every event is.
    pub(super) fn takes_all(&self) -> bool {
        self.event_type.is_none() && self.since.is_none()
    }
}

impl Trail {
    /// Reads through `pool`.
    pub fn new(pool: PgPool, partition: i16) -> Self {
        Self { pool, partition }
    }

    /// Where reading begins: at the bookmark, or at the filter's time if that is later.
    pub async fn begin(&self, after: Bookmark, filter: &Filter) -> Result<Cursor, Error> {
        in_time(async {
            let mut connection = self.pool.acquire().await?;
            let after = self.place(&mut connection, after).await?;
            let Some(since) = filter.since else { return Ok(after) };
            let before = trail::position_at(&mut connection, self.partition, since).await?;
            match before > after.position {
                true => self.place(&mut connection, Bookmark::of(before)).await,
                false => Ok(after),
            }
        })
        .await
    }

    /// Up to `limit` events behind `after`.
    pub async fn page(&self, after: Cursor, filter: &Filter, limit: i64) -> Result<LogPage, Error> {
        in_time(async {
            let mut connection = self.pool.acquire().await?;
            let mut page = match filter.event_type {
                None => read_on(&mut connection, self.partition, after, limit).await?,
                Some(event_type) => self.page_of_type(&mut connection, after, event_type, limit).await?,
            };
            // What was recorded before the time although the page begins behind it: nothing had come so far yet.
            page.events.retain(|event| filter.since.is_none_or(|since| event.recorded_at >= since));
            Ok(page)
        })
        .await
    }

    /// Up to `limit` events of an account after `version`, and whether there are more. `None`: there is no such account.
    pub async fn history(
        &self,
        account_id: Uuid,
        version: i64,
        limit: i64,
    ) -> Result<Option<(Vec<EventRecord>, bool)>, Error> {
        in_time(async {
            let mut connection = self.pool.acquire().await?;
            let read = trail::of_stream(&mut connection, self.partition, account_id, version, limit + 1).await?;
            let mut events = records(read)?;
            if events.is_empty() && (version == 0 || self.is_unknown(&mut connection, account_id).await?) {
                return Ok(None);
            }
            let more = events.len() as i64 > limit;
            if more {
                events.pop();
            }
            Ok(Some((events, more)))
        })
        .await
    }

    async fn is_unknown(&self, connection: &mut PgConnection, account_id: Uuid) -> Result<bool, Error> {
        Ok(trail::of_stream(connection, self.partition, account_id, 0, 1).await?.is_empty())
    }

    async fn page_of_type(
        &self,
        connection: &mut PgConnection,
        after: Cursor,
        event_type: EventType,
        limit: i64,
    ) -> Result<LogPage, Error> {
        let partition = self.partition;
        self.stands(connection, after).await?;
        // Before the events, so that none up to it is missing.
        let head = log::head(connection, partition).await?;
        let head = Cursor::new(head.position, &head.hash);
        let name = event_type.name();
        let (read, last) = match event_type.moves_money() {
            false => (trail::of_rare_type(connection, partition, name, after.position, limit).await?, head),
            true => {
                let last = head.position.min(after.position + SCAN_EVENTS_MAX);
                let read = trail::of_common_type(connection, partition, name, after.position, last, limit).await?;
                let last =
                    if last == head.position { head } else { self.place(connection, Bookmark::of(last)).await? };
                (read, last)
            }
        };
        let is_full = read.len() as i64 == limit;
        let events = records(read)?;
        let found = events.last().map(|event| event.cursor);
        let next = match found {
            Some(found) if is_full || found.position > last.position => found,
            Some(_) | None => last,
        };
        Ok(LogPage { events, next, is_last: !is_full && next.position >= head.position })
    }

    /// Makes sure that the log still holds the event before `after`.
    async fn stands(&self, connection: &mut PgConnection, after: Cursor) -> Result<(), Error> {
        match self.place(connection, Bookmark::of(after.position)).await? {
            found if found == after => Ok(()),
            _ => Err(Misplaced::OtherHistory(after.position).into()),
        }
    }

    async fn place(&self, connection: &mut PgConnection, bookmark: Bookmark) -> Result<Cursor, Error> {
        let position = bookmark.position;
        let hash = match position {
            0 => vec![],
            _ => trail::hash_at(connection, self.partition, position).await?.ok_or(Misplaced::BeyondHead(position))?,
        };
        Ok(bookmark.at(&hash).ok_or(Misplaced::OtherHistory(position))?)
    }
}

/// Up to `limit` events behind `after`, whatever they are, in one statement that reads the event before them once more:
/// if it is another one, or gone, the log's history is another one.
pub(super) async fn read_on(
    connection: &mut PgConnection,
    partition: i16,
    after: Cursor,
    limit: i64,
) -> Result<LogPage, Error> {
    let again = i64::from(after.position > 0);
    let mut read = trail::page(connection, partition, after.position, limit + again).await?.into_iter();
    if after.position > 0 {
        let before = read.next().ok_or(Misplaced::BeyondHead(after.position))?;
        if !after.is_of(before.event.position, &before.hash) {
            return Err(Misplaced::OtherHistory(after.position).into());
        }
    }
    let events = records(read)?;
    let next = events.last().map_or(after, |event| event.cursor);
    let is_last = (events.len() as i64) < limit;
    Ok(LogPage { events, next, is_last })
}

fn records(read: impl IntoIterator<Item = LinkedEvent>) -> sqlx::Result<Vec<EventRecord>> {
    read.into_iter().map(EventRecord::try_from).collect()
}

async fn in_time<T>(reading: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match timeout(Duration::from_millis(PAGE_MS_MAX), reading).await {
        Ok(read) => read,
        Err(_) => Err(sqlx::Error::from(io::Error::from(io::ErrorKind::TimedOut)).into()),
    }
}
