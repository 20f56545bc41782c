//! The log as it was recorded, page by page, for whoever reads what happened.

use std::{io, time::Duration};

use sqlx::{PgConnection, PgPool};
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    Error,
    cursor::{Bookmark, Cursor, Mark, Place},
    filter::Filter,
    record::EventRecord,
};
use passbook_domain::EventType;
use passbook_event_store::{Partitions, Position, log, trail, whole::LinkedEvent};

/// How long one page may take before its server is taken for frozen.
const PAGE_MS_MAX: u64 = 5_000;
/// How many events are read for one page of a type of which there are many: a page may be short, and leads on.
const SCAN_EVENTS_MAX: i64 = 10_000;

/// The handle to the recorded events, cheap to clone.
#[derive(Clone, Debug)]
pub struct Trail {
    pool: PgPool,
    partitions: Partitions,
}

/// Events in the order of the log: of each partition by their positions, and by their times among each other.
#[derive(Debug)]
pub struct LogPage {
    /// The events.
    pub events: Vec<EventRecord>,
    /// Where the next page begins.
    pub next: Cursor,
    /// Whether there was nothing behind `next` when it was read.
    pub is_last: bool,
}

/// Events of one partition.
pub(super) struct Stretch {
    pub(super) events: Vec<EventRecord>,
    pub(super) next: Place,
    pub(super) is_last: bool,
}

/// Why a cursor leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misplaced {
    /// The log does not go so far.
    #[error("position {0} is beyond the log's head: this log has never been there, or was restored to before it")]
    BeyondHead(Position),
    /// Another event stands there.
    #[error("the event at position {0} is another one: the cursor is of another history of this log")]
    OtherHistory(Position),
    /// The log has other partitions.
    #[error("the cursor is of a log with other partitions: this one has {0}")]
    Elsewhere(i16),
}

impl Trail {
    /// Reads through `pool`.
    pub fn new(pool: PgPool, partitions: Partitions) -> Self {
        Self { pool, partitions }
    }

    /// Where reading begins: in each partition at the bookmark, or at the filter's time if that is later.
    pub async fn begin(&self, after: &Bookmark, filter: &Filter) -> Result<Cursor, Error> {
        let marks = after.marks(self.partitions).ok_or(Misplaced::Elsewhere(self.partitions.count()))?;
        in_time(async {
            let mut connection = self.pool.acquire().await?;
            let mut places = Vec::new();
            for (partition, mark) in self.partitions.all().zip(marks) {
                places.push(self.begin_in(&mut connection, partition, mark, filter).await?);
            }
            Ok(Cursor::new(places))
        })
        .await
    }

    async fn begin_in(
        &self,
        connection: &mut PgConnection,
        partition: i16,
        after: Mark,
        filter: &Filter,
    ) -> Result<Place, Error> {
        let after = self.place(connection, partition, after).await?;
        let Some(since) = filter.since else { return Ok(after) };
        let before = trail::position_at(connection, partition, since).await?;
        match before > after.position {
            true => self.place(connection, partition, Mark::of(before)).await,
            false => Ok(after),
        }
    }

    /// Up to `limit` events behind `after`: of each partition its share, and of those that have more what is left.
    pub async fn page(&self, after: &Cursor, filter: &Filter, limit: i64) -> Result<LogPage, Error> {
        in_time(async {
            let mut connection = self.pool.acquire().await?;
            let mut page = LogPage { events: vec![], next: after.clone(), is_last: true };
            let mut left = limit;
            let mut unfinished = self.beginning_anywhere(after);
            let mut share = (limit / i64::from(self.partitions.count())).max(1);
            while left > 0 && !unfinished.is_empty() {
                let mut go_on = Vec::new();
                for partition in unfinished.drain(..) {
                    let at = page.next.at(partition);
                    let wanted = share.min(left);
                    let is_last = wanted > 0 && {
                        let read = self.stretch(&mut connection, partition, at, filter, wanted).await?;
                        left -= read.events.len() as i64;
                        page.events.extend(read.events);
                        page.next.pass(partition, read.next);
                        // Of a type of which there are many a stretch may be short, and the page with it.
                        read.is_last
                    };
                    if !is_last {
                        go_on.push(partition);
                    }
                }
                page.is_last = go_on.is_empty();
                if share >= left || filter.event_type.is_some() {
                    break;
                }
                (unfinished, share) = (go_on, left);
            }
            if self.partitions.are_several() {
                // Times never decrease along a partition: its own order stays.
                page.events.sort_by_key(|event| (event.recorded_at, event.partition));
            }
            // What was recorded before the time although the page begins behind it: nothing had come so far yet.
            page.events.retain(|event| filter.since.is_none_or(|since| event.recorded_at >= since));
            Ok(page)
        })
        .await
    }

    /// Every partition, from another one on with each page: a short page is not always of the same.
    fn beginning_anywhere(&self, after: &Cursor) -> Vec<i16> {
        let read: i64 = self.partitions.all().fold(0, |sum, partition| sum.wrapping_add(after.at(partition).position));
        let mut partitions: Vec<i16> = self.partitions.all().collect();
        let first = read.rem_euclid(self.partitions.count().into());
        partitions.rotate_left(usize::try_from(first).unwrap_or(0));
        partitions
    }

    /// Up to `limit` events of one partition.
    async fn stretch(
        &self,
        connection: &mut PgConnection,
        partition: i16,
        after: Place,
        filter: &Filter,
        limit: i64,
    ) -> Result<Stretch, Error> {
        match filter.event_type {
            None => read_on(connection, self.partitions, partition, after, limit).await,
            Some(event_type) => self.stretch_of_type(connection, partition, after, event_type, limit).await,
        }
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
            let partition = self.partitions.of(account_id);
            let read = trail::of_stream(&mut connection, partition, account_id, version, limit + 1).await?;
            let mut events = records(self.partitions, partition, read)?;
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
        let partition = self.partitions.of(account_id);
        Ok(trail::of_stream(connection, partition, account_id, 0, 1).await?.is_empty())
    }

    async fn stretch_of_type(
        &self,
        connection: &mut PgConnection,
        partition: i16,
        after: Place,
        event_type: EventType,
        limit: i64,
    ) -> Result<Stretch, Error> {
        self.stands(connection, partition, after).await?;
        // Before the events, so that none up to it is missing.
        let head = log::head(connection, partition).await?;
        let head = Place::new(head.position, &head.hash);
        let name = event_type.name();
        let (read, last) = match event_type.moves_money() {
            false => (trail::of_rare_type(connection, partition, name, after.position, limit).await?, head),
            true => {
                let last = head.position.min(after.position + SCAN_EVENTS_MAX);
                let read = trail::of_common_type(connection, partition, name, after.position, last, limit).await?;
                let last = match last == head.position {
                    true => head,
                    false => self.place(connection, partition, Mark::of(last)).await?,
                };
                (read, last)
            }
        };
        let is_full = read.len() as i64 == limit;
        let events = records(self.partitions, partition, read)?;
        let found = events.last().map(|event| event.place);
        let next = match found {
            Some(found) if is_full || found.position > last.position => found,
            Some(_) | None => last,
        };
        Ok(Stretch { events, next, is_last: !is_full && next.position >= head.position })
    }

    /// Makes sure that the log still holds the event before `after`.
    async fn stands(&self, connection: &mut PgConnection, partition: i16, after: Place) -> Result<(), Error> {
        match self.place(connection, partition, Mark::of(after.position)).await? {
            found if found == after => Ok(()),
            _ => Err(Misplaced::OtherHistory(self.partitions.position(partition, after.position)).into()),
        }
    }

    async fn place(&self, connection: &mut PgConnection, partition: i16, mark: Mark) -> Result<Place, Error> {
        let position = self.partitions.position(partition, mark.position);
        let hash = match mark.position {
            0 => vec![],
            at => match trail::hash_at(connection, partition, at).await? {
                Some(hash) => hash,
                None => return Err(Misplaced::BeyondHead(position).into()),
            },
        };
        Ok(mark.at(&hash).ok_or(Misplaced::OtherHistory(position))?)
    }
}

/// Up to `limit` events of a partition behind `after`, whatever they are, in one statement that reads the event before them once more:
/// if it is another one, or gone, the log's history is another one.
pub(super) async fn read_on(
    connection: &mut PgConnection,
    partitions: Partitions,
    partition: i16,
    after: Place,
    limit: i64,
) -> Result<Stretch, Error> {
    let misplaced = || partitions.position(partition, after.position);
    let again = i64::from(after.position > 0);
    let mut read = trail::page(connection, partition, after.position, limit + again).await?.into_iter();
    if after.position > 0 {
        let before = read.next().ok_or_else(|| Misplaced::BeyondHead(misplaced()))?;
        if !after.is_of(before.event.position, &before.hash) {
            return Err(Misplaced::OtherHistory(misplaced()).into());
        }
    }
    let events = records(partitions, partition, read)?;
    let next = events.last().map_or(after, |event| event.place);
    let is_last = (events.len() as i64) < limit;
    Ok(Stretch { events, next, is_last })
}

fn records(
    partitions: Partitions,
    partition: i16,
    read: impl IntoIterator<Item = LinkedEvent>,
) -> sqlx::Result<Vec<EventRecord>> {
    read.into_iter().map(|linked| EventRecord::new(partitions, partition, linked)).collect()
}

async fn in_time<T>(reading: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match timeout(Duration::from_millis(PAGE_MS_MAX), reading).await {
        Ok(read) => read,
        Err(_) => Err(sqlx::Error::from(io::Error::from(io::ErrorKind::TimedOut)).into()),
    }
}
