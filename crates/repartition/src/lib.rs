//! Copies a log into a new one with more partitions, while the old one serves: page by page, each in one transaction with
//! how far it has come, and read back and compared before it counts. What is missing at the end is copied while the old one
//! rests.
//!
//! The new log has a multiple of the old one's partitions, so each of its partitions takes from one of the old: the order
//! of times stays what it was.

mod compare;
mod error;
mod keys;
mod views;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection, query_scalar};
use uuid::Uuid;

use passbook_domain::account::STATE_VERSION;
use passbook_event_store::{
    Partitions, Position, Primary, chain,
    copied::{self, Progress},
    layout,
    log::{self, Head},
    trail,
    whole::LinkedEvent,
};

pub use error::Error;
pub use views::Views;

/// How many events, keys or snapshots one transaction copies.
const PAGE_ROWS_MAX: i64 = 2_000;

/// A copy that is under way.
pub struct Copy {
    source: PgConnection,
    target: PgConnection,
    from: Partitions,
    to: Partitions,
    /// Of each partition of the old log.
    progress: Vec<Progress>,
}

/// What a finished copy holds.
#[derive(Clone, Debug)]
pub struct Copied {
    /// How many events.
    pub events: i64,
    /// Where the new log ends.
    pub position: Position,
}

impl Copy {
    /// Begins a copy into a database in which there is no log yet, or goes on with one.
    ///
    /// # Errors
    /// The partitions do not fit, or the target is something else.
    pub async fn open(source: &Primary, target: &Primary, from: Partitions, to: Partitions) -> Result<Self, Error> {
        if to.count() % from.count() != 0 {
            return Err(Error::NotAMultiple { from: from.count(), to: to.count() });
        }
        let mut source = patient(source).connect().await?;
        if copied::is_under_way(&mut source).await? {
            return Err(Error::SourceUnfinished);
        }
        let mut target = patient(target).connect().await?;
        if layout::fixed(&mut target).await?.is_none() {
            let mut transaction = target.begin().await?;
            if layout::create(&mut transaction, to).await? {
                copied::begin(&mut transaction, from).await?;
            }
            transaction.commit().await?;
        }
        let progress = copied::progress(&mut target).await?;
        let Some(first) = progress.first() else { return Err(Error::NotEmpty) };
        if let Some(finished_at) = first.finished_at {
            return Err(Error::Finished(finished_at));
        }
        if first.source_count != from.count() {
            return Err(Error::Another { begun: first.source_count, found: from.count() });
        }
        if let Some(begun) = layout::fixed(&mut target).await?.filter(|begun| *begun != to) {
            return Err(Error::Begun { begun: begun.count(), asked: to.count() });
        }
        Ok(Self { source, target, from, to, progress })
    }

    /// Copies what the old log holds now, and compares it. `tell` hears how many events are copied, and of how many.
    pub async fn round(&mut self, tell: impl Fn(i64, i64)) -> Result<(), Error> {
        // A key may be of events in two partitions: both are before the second look, if it was recorded before the first.
        let until = self.heads().await?.iter().map(|head| head.recorded_at).collect();
        self.copy_until(until, tell).await
    }

    /// Copies all events that are there now, and the keys that each partition recorded up to a time.
    async fn copy_until(&mut self, until: Vec<DateTime<Utc>>, tell: impl Fn(i64, i64)) -> Result<(), Error> {
        let heads = self.heads().await?;
        let all: i64 = heads.iter().map(|head| head.position).sum();
        let from = self.from;
        for (partition, head) in from.all().zip(&heads) {
            let lost = |position| Error::Lost(from.position(partition, position));
            if self.of(partition).position > head.position {
                return Err(lost(head.position + 1));
            }
            self.catch_up_comparing(partition).await?;
            while self.of(partition).position < head.position {
                self.copy_page(partition).await?;
                tell(self.progress.iter().map(|progress| progress.position).sum(), all);
            }
            // A page tells by its own first event whether it continues what was copied. Where none came, the head does.
            let copied = self.of(partition);
            if copied.position == head.position && copied.hash != head.hash {
                return Err(lost(head.position));
            }
        }
        for ((partition, until), head) in self.from.all().zip(until).zip(heads) {
            self.copy_keys(partition, until, until.min(head.recorded_at)).await?;
        }
        Ok(())
    }

    /// Where each partition of the old log ends.
    async fn heads(&mut self) -> Result<Vec<Head>, Error> {
        let mut heads = Vec::new();
        for partition in self.from.all() {
            heads.push(log::head(&mut self.source, partition).await?);
        }
        Ok(heads)
    }

    /// Copies the rest while nobody can append to the old log, and gives the new one free.
    ///
    /// # Errors
    /// A service is connected to the old log, or the two are not equal.
    pub async fn finish(mut self, tell: impl Fn(i64, i64)) -> Result<Copied, Error> {
        // Most of it before the old log is held up.
        self.round(&tell).await?;
        sqlx::raw_sql("BEGIN").execute(&mut self.source).await?;
        let mut source_events = 0;
        for partition in self.from.all() {
            source_events += log::lock_head(&mut self.source, partition).await?.position;
        }
        // Now, since who comes later waits for the heads. An instance that is idle has its projector alone.
        let connected: i64 = query_scalar(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name IN ('passbook writer', 'passbook projector')",
        )
        .fetch_one(&mut self.source)
        .await?;
        if connected > 0 {
            return Err(Error::StillServed);
        }
        // All keys: that of an opening may also be kept in a partition whose last event is older.
        self.copy_until(vec![DateTime::<Utc>::MAX_UTC; usize::from(self.from.count().unsigned_abs())], &tell).await?;
        self.copy_snapshots().await?;

        let (mut target_events, mut position) = (0, Position::default());
        for partition in self.to.all() {
            let end = log::head(&mut self.target, partition).await?.position;
            let here = self.to.position(partition, end);
            position = if partition == 0 { here } else { position.and(here) };
            target_events += end;
        }
        // Each event of the old log was found in the new one, and there are no others.
        if source_events != target_events {
            return Err(Error::Uneven { source_events, target_events });
        }
        let mut transaction = self.target.begin().await?;
        for progress in &mut self.progress {
            progress.finished_at = Some(Utc::now());
            if !copied::advance(&mut transaction, progress.position, progress).await? {
                return Err(Error::Contended);
            }
        }
        transaction.commit().await?;
        sqlx::raw_sql("COMMIT").execute(&mut self.source).await?;
        Ok(Copied { events: target_events, position })
    }

    fn of(&self, partition: i16) -> &Progress {
        // There is one of each: it was read so.
        &self.progress[usize::from(partition.unsigned_abs())]
    }

    fn set(&mut self, progress: Progress) {
        let at = usize::from(progress.source_partition.unsigned_abs());
        self.progress[at] = progress;
    }

    /// One page: into all partitions that it leads to, and how far it has come, in one transaction; then compared.
    async fn copy_page(&mut self, partition: i16) -> Result<(), Error> {
        let before = self.of(partition).clone();
        let page = self.read(partition, before.position, Some(&before.hash)).await?;
        let Some(last) = page.last() else { return Ok(()) };
        let mut lanes: BTreeMap<i16, Vec<&LinkedEvent>> = BTreeMap::new();
        for linked in &page {
            lanes.entry(self.to.of(linked.event.stream_id)).or_default().push(linked);
        }
        let copied = Progress { position: last.event.position, hash: last.hash.clone(), ..before.clone() };
        let mut transaction = self.target.begin().await?;
        for (lane, events) in lanes {
            let head: Head = log::lock_head(&mut transaction, lane).await?;
            copied::append(&mut transaction, lane, &head, &events).await?;
        }
        if !copied::advance(&mut transaction, before.position, &copied).await? {
            return Err(Error::Contended);
        }
        transaction.commit().await?;
        self.set(copied);
        self.compare(partition, &page).await
    }

    /// The page behind `position`, if its links are whole; `hash` is what the event there must have.
    async fn read(&mut self, partition: i16, position: i64, hash: Option<&[u8]>) -> Result<Vec<LinkedEvent>, Error> {
        let again = i64::from(position > 0);
        let mut page = trail::page(&mut self.source, partition, position, PAGE_ROWS_MAX + again).await?;
        let broken = |position| Error::Broken(self.from.position(partition, position));
        let mut previous = vec![0; 32];
        if position > 0 {
            previous = match page.first() {
                Some(first) if first.event.position == position => page.remove(0).hash,
                Some(_) | None => return Err(broken(position)),
            };
            if hash.is_some_and(|hash| hash != previous) {
                return Err(Error::Lost(self.from.position(partition, position)));
            }
        }
        for (expected, linked) in (position + 1..).zip(&page) {
            let link: [u8; 32] = previous.try_into().map_err(|_| broken(expected))?;
            if linked.event.position != expected || *linked.hash != chain::hash(&link, linked.link(partition)) {
                return Err(broken(expected));
            }
            previous = linked.hash.clone();
        }
        Ok(page)
    }

    /// A shortcut: without it the first command on a long account would read all of it.
    async fn copy_snapshots(&mut self) -> Result<(), Error> {
        for partition in self.from.all() {
            let mut after = Uuid::nil();
            loop {
                let page = copied::snapshots(&mut self.source, partition, STATE_VERSION, after, PAGE_ROWS_MAX).await?;
                let Some(last) = page.last() else { break };
                after = last.stream_id;
                let mut lanes: BTreeMap<i16, Vec<_>> = BTreeMap::new();
                for snapshot in page {
                    lanes.entry(self.to.of(snapshot.stream_id)).or_default().push(snapshot);
                }
                for (lane, snapshots) in lanes {
                    copied::write_snapshots(&mut self.target, lane, STATE_VERSION, &snapshots).await?;
                }
            }
        }
        Ok(())
    }
}

/// A copy takes its time within a transaction. It is found by its name, and is no writer of a service.
fn patient(options: &Primary) -> Primary {
    options.shaped(|options| {
        options.application_name("passbook copy").options([("idle_in_transaction_session_timeout", "0")])
    })
}
