//! Copies a log into a new one with more partitions, while the old one serves: page by page, each in one transaction with
//! how far it has come, and read back and compared before it counts. What is missing at the end is copied while the old one
//! rests.
//!
//! The new log has a multiple of the old one's partitions, so each of its partitions takes from one of the old: the order
//! of times stays what it was.

mod keys;
mod views;

use std::collections::{BTreeMap, HashMap};

use chrono::Utc;
use sqlx::{Connection, PgConnection, query_scalar};
use uuid::Uuid;

use crate::{
    domain::account::STATE_VERSION,
    event_store::{
        Partitions, Position, Primary, StreamVersion, chain,
        copied::{self, Progress},
        layout,
        log::{self, Head},
        trail,
        whole::LinkedEvent,
    },
};

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

/// Why nothing more is copied.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant says it in its sentence")]
pub enum Error {
    #[error(
        "{to} partitions cannot take what is in {from}: each must take from one alone, so ask for a multiple of {from}, up to 64"
    )]
    NotAMultiple { from: i16, to: i16 },
    #[error("the target is a log of its own already: a copy needs a database in which nobody has served")]
    NotEmpty,
    #[error("the target was copied and finished at {0}: what the old log took since is not in it, and cannot be added")]
    Finished(chrono::DateTime<Utc>),
    #[error(
        "the target was begun as a copy of a log with {begun} partitions, and this one has {found}: it is another log"
    )]
    Another { begun: i16, found: i16 },
    #[error(
        "the target was begun as a copy into {begun} partitions, and not into {asked}: go on with {begun}, or begin in an empty \
         database"
    )]
    Begun { begun: i16, asked: i16 },
    #[error("the old log is a copy itself, and not all of it is there: let the copy into it come to its end first")]
    SourceUnfinished,
    #[error(
        "the log is not in order at position {0}: `passbook verify` tells more, and nothing of this page was copied"
    )]
    Broken(Position),
    #[error(
        "the old log no longer holds at position {0} what was copied from there: a failover has lost it, so begin anew in an \
         empty database"
    )]
    Lost(Position),
    #[error("the event at position {0} of the old log is not in the new one as it was: it must not be served")]
    Differs(Position),
    #[error("the receipt of the key {key:?} of {caller:?} cannot be carried over: {reason}")]
    Receipt { caller: String, key: String, reason: &'static str },
    #[error("somebody else copies into the same log: one at a time")]
    Contended,
    #[error("a service is still connected to the old log: stop it, and run this again")]
    StillServed,
    #[error("the old log holds {source_events} events, and the new one {target_events}")]
    Uneven { source_events: i64, target_events: i64 },
    #[error("a database cannot be used: {0}")]
    Storage(#[from] sqlx::Error),
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
        let until = self.heads().await?;
        let heads = self.heads().await?;
        let all: i64 = heads.iter().map(|head| head.position).sum();
        let from = self.from;
        for (partition, head) in from.all().zip(heads) {
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
        for (partition, head) in self.from.all().zip(until) {
            self.copy_keys(partition, head.recorded_at).await?;
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
        self.round(&tell).await?;
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

    /// What was copied and not compared before this process began.
    async fn catch_up_comparing(&mut self, partition: i16) -> Result<(), Error> {
        while self.of(partition).compared < self.of(partition).position {
            let Progress { compared, position, .. } = *self.of(partition);
            let mut page = self.read(partition, compared, None).await?;
            page.retain(|linked| linked.event.position <= position);
            if page.is_empty() {
                return Err(Error::Broken(self.from.position(partition, compared + 1)));
            }
            self.compare(partition, &page).await?;
        }
        Ok(())
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

    /// Reads back what was copied: every event is there as it was, and each partition holds them in the same order.
    async fn compare(&mut self, partition: i16, page: &[LinkedEvent]) -> Result<(), Error> {
        let found = self.find(page.iter().map(version)).await?;
        let mut last: HashMap<i16, i64> = HashMap::new();
        for linked in page {
            let lane = self.to.of(linked.event.stream_id);
            let there = found.get(&key(version(linked))).filter(|there| is_same(there, linked));
            let here = last.entry(lane).or_default();
            match there {
                Some(there) if there.event.position > *here => *here = there.event.position,
                Some(_) | None => return Err(Error::Differs(self.from.position(partition, linked.event.position))),
            }
        }
        let Some(last) = page.last() else { return Ok(()) };
        let compared = Progress { compared: last.event.position, ..self.of(partition).clone() };
        if !copied::advance(&mut self.target, compared.position, &compared).await? {
            return Err(Error::Contended);
        }
        self.set(compared);
        Ok(())
    }

    /// Events of the new log by their streams and versions.
    async fn find(
        &mut self,
        wanted: impl Iterator<Item = StreamVersion>,
    ) -> Result<HashMap<(Uuid, i64), LinkedEvent>, Error> {
        let mut lanes: BTreeMap<i16, Vec<StreamVersion>> = BTreeMap::new();
        for wanted in wanted {
            lanes.entry(self.to.of(wanted.stream_id)).or_default().push(wanted);
        }
        let mut found = HashMap::new();
        for (lane, wanted) in lanes {
            let events = copied::find(&mut self.target, lane, &wanted).await?;
            found.extend(events.into_iter().map(|linked| (key(version(&linked)), linked)));
        }
        Ok(found)
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

fn version(linked: &LinkedEvent) -> StreamVersion {
    StreamVersion { stream_id: linked.event.stream_id, version: linked.event.version }
}

fn key(version: StreamVersion) -> (Uuid, i64) {
    (version.stream_id, version.version)
}

/// All that an event keeps.
fn is_same(there: &LinkedEvent, here: &LinkedEvent) -> bool {
    let kept = |linked: &LinkedEvent| {
        let event = &linked.event;
        (event.id, event.stream_id, event.version, event.schema_version, event.recorded_at)
    };
    let texts =
        |linked: &LinkedEvent| (linked.event.event_type.clone(), linked.event.data.clone(), linked.metadata.clone());
    kept(there) == kept(here) && texts(there) == texts(here)
}
