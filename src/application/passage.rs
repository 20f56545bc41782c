//! One passage through the turnstile: load, decide, append; on the fast way in one round trip, on the slow way
//! behind the lock.
//!
//! Nothing is answered before the state it rests on is confirmed: by the commit, or for a batch without events by a
//! look at the head. What is held changes only after that.
//!
//! One turnstile leads to one partition, or to whichever several a batch is over: then always on the slow way, behind all
//! their locks in ascending order, with nothing held between two batches.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
    pin::pin,
    sync::Arc,
};

use futures_util::TryStreamExt;
use lru::LruCache;
use sqlx::{Connection, PgConnection};
use tokio::sync::watch;
use uuid::Uuid;

use super::{
    Answer, Error, Pending, Settings,
    batch::{self, Decided, Heads, Held, Loaded, Recorded, Undecodable},
    executor::Doubt,
    failure::{Failure, Nature, STATEMENT_MAX, within},
    newer::Newer,
};
use crate::{
    domain::{Event, account::STATE_VERSION, event::DecodeError},
    event_store::{
        Partitions, StreamVersion,
        log::{self, Head, Key, Outcome, Place},
        stream::{self, Piece},
    },
    metrics::{METRICS, phase},
    timestamp,
};

/// When others have written more than this since our last look, every held account is dropped.
const CATCH_UP_EVENTS_MAX: i64 = 10_000;
/// After so many batches on the slow way in which nobody else wrote, the fast way is tried again.
const QUIET_BATCHES: u32 = 16;
/// A head this far ahead of the clock is worth a warning.
const CLOCK_BEHIND_MS_MAX: i64 = 1_000;

/// What this process knows of the log's end, and the accounts that it holds as they were there.
pub(super) struct Turnstile {
    partitions: Partitions,
    snapshot_every: i64,
    /// Where it leads; `None`: to several partitions at once.
    lane: Option<Lane>,
    /// What is known of the lane's end; of several, where the last batch left them.
    heads: Heads,
    /// How many more batches take the slow way, because somebody else writes.
    slow_batches: u32,
    pub newer: Newer,
}

/// The one partition behind a turnstile.
struct Lane {
    partition: i16,
    held: LruCache<Uuid, Held>,
}

/// A decided batch that stands.
struct Passed {
    decided: Decided,
    loaded: Loaded,
    heads: Heads,
}

/// What became of a batch.
enum Written {
    Done(Heads),
    HeadMoved,
    KeysRecorded(Recorded),
}

impl Turnstile {
    /// To one partition, or with `None` to several.
    pub(super) fn new(
        settings: &Settings,
        partition: Option<i16>,
        newer: Arc<watch::Sender<Option<StreamVersion>>>,
    ) -> Self {
        let partitions = settings.partitions;
        let share = settings.cache_accounts.div_ceil(usize::from(partitions.count().unsigned_abs()));
        let held = || LruCache::new(NonZeroUsize::new(share).unwrap_or(NonZeroUsize::MIN));
        Self {
            partitions,
            snapshot_every: settings.snapshot_every,
            lane: partition.map(|partition| Lane { partition, held: held() }),
            heads: Heads::new(),
            slow_batches: 0,
            newer: Newer { met: newer, partitions },
        }
    }

    /// The last positions as this process knows them.
    pub(super) fn positions(&self) -> impl Iterator<Item = (i16, i64)> {
        self.heads.iter().map(|(partition, head)| (*partition, head.position))
    }

    /// Drops all that is held: the database refused what was decided on it.
    pub(super) fn distrust(&mut self) {
        if let Some(lane) = &mut self.lane {
            lane.held.clear();
        }
        self.tread_carefully();
    }

    /// Takes the slow way for a while, on which a database that cannot be written to says so before anything is sent.
    pub(super) fn tread_carefully(&mut self) {
        self.slow_batches = QUIET_BATCHES;
    }

    /// Carries `batch` to its answers. What was sent without an answer is left in `doubt`.
    pub(super) async fn pass(
        &mut self,
        connection: &mut PgConnection,
        batch: &[Pending],
        doubt: &mut Option<Doubt>,
    ) -> Result<Vec<Result<Answer, Error>>, Failure> {
        self.newer.look_again(connection).await?;
        if let Some(Lane { partition, .. }) = self.lane
            && self.slow_batches == 0
        {
            if let Some(passed) = self.pass_fast(connection, partition, batch, doubt).await? {
                METRICS.batches.with_label_values(&["fast"]).inc();
                return Ok(self.keep(passed));
            }
            self.slow_batches = QUIET_BATCHES;
        }
        let passed = self.pass_slow(connection, batch, doubt).await?;
        METRICS.batches.with_label_values(&["slow"]).inc();
        Ok(self.keep(passed))
    }

    /// Whether an append without an answer stands. If not, it never will.
    pub(super) async fn settle(&mut self, connection: &mut PgConnection, doubt: &Doubt) -> Result<bool, Failure> {
        // Either way the head is not the one we know: the next passage catches up behind the lock.
        self.tread_carefully();
        within(STATEMENT_MAX, log::settle(connection, &doubt.places)).await
    }

    /// Decides on what is held and appends in one autocommit call. `None`: somebody else has written since.
    async fn pass_fast(
        &mut self,
        connection: &mut PgConnection,
        partition: i16,
        batch: &[Pending],
        doubt: &mut Option<Doubt>,
    ) -> Result<Option<Passed>, Failure> {
        let head = match self.heads.get(&partition) {
            Some(head) => head.clone(),
            None => within(STATEMENT_MAX, log::head(connection, partition)).await?,
        };
        let heads = Heads::from([(partition, head)]);
        let loaded = self.load(connection, batch).await?;
        let mut recorded = Recorded::new();
        loop {
            let decided = self.decide(batch, &loaded, &recorded, &heads);
            match write(connection, &heads, &decided).await {
                Ok(Written::Done(heads)) => return Ok(Some(Passed { decided, loaded, heads })),
                Ok(Written::HeadMoved) => return Ok(None),
                Ok(Written::KeysRecorded(keys)) => recorded.extend(keys),
                Err(failure) => return Err(leave_in_doubt(failure, decided, &heads, doubt)),
            }
        }
    }

    /// Locks the heads first. Nothing can be outrun here.
    async fn pass_slow(
        &mut self,
        connection: &mut PgConnection,
        batch: &[Pending],
        doubt: &mut Option<Doubt>,
    ) -> Result<Passed, Failure> {
        let mut transaction = within(STATEMENT_MAX, connection.begin()).await?;
        let mut heads = Heads::new();
        let turnstile = phase("turnstile");
        // In ascending order, each in a statement of its own: whoever else locks several does the same.
        for partition in self.touched(batch) {
            heads.insert(partition, within(STATEMENT_MAX, log::lock_head(&mut transaction, partition)).await?);
        }
        turnstile.observe_duration();
        if let Some((partition, head)) = heads.first_key_value().filter(|_| self.lane.is_some()) {
            self.catch_up(&mut transaction, *partition, head).await?;
        }
        let loaded = self.load(&mut transaction, batch).await?;
        let mut recorded = Recorded::new();
        let (decided, next) = loop {
            let decided = self.decide(batch, &loaded, &recorded, &heads);
            match write(&mut transaction, &heads, &decided).await? {
                Written::Done(next) => break (decided, next),
                Written::KeysRecorded(keys) => recorded.extend(keys),
                Written::HeadMoved => {
                    let outage = "the database let two writers through the turnstile";
                    return Err(Failure { nature: Nature::Away, outage, reason: outage.to_owned() });
                }
            }
        };
        match within(STATEMENT_MAX, transaction.commit()).await {
            Ok(()) => Ok(Passed { decided, loaded, heads: next }),
            Err(failure) => Err(leave_in_doubt(failure, decided, &heads, doubt)),
        }
    }

    /// The partitions that a batch is over; a passage of nobody looks at one.
    fn touched(&self, batch: &[Pending]) -> BTreeSet<i16> {
        if let Some(Lane { partition, .. }) = self.lane {
            return BTreeSet::from([partition]);
        }
        let streams = batch.iter().flat_map(|pending| batch::streams(&pending.command));
        let mut touched: BTreeSet<i16> = streams.map(|stream_id| self.partitions.of(stream_id)).collect();
        if touched.is_empty() {
            touched.insert(0);
        }
        touched
    }

    /// Drops every held account that others have changed since our last look, and takes `head` for known.
    async fn catch_up(&mut self, connection: &mut PgConnection, partition: i16, head: &Head) -> Result<(), Failure> {
        let known = self.heads.get(&partition);
        if known.is_some_and(|known| (known.position, known.hash) == (head.position, head.hash)) {
            self.slow_batches = self.slow_batches.saturating_sub(1);
            self.heads.insert(partition, head.clone());
            return Ok(());
        }
        self.slow_batches = QUIET_BATCHES;
        let changed = match known {
            Some(known) if (1..=CATCH_UP_EVENTS_MAX).contains(&(head.position - known.position)) => {
                within(STATEMENT_MAX, log::streams_since(connection, partition, known)).await?
            }
            Some(_) | None => None,
        };
        if let Some(Lane { held, .. }) = &mut self.lane {
            match changed {
                Some(streams) => streams.iter().for_each(|stream_id| drop(held.pop(stream_id))),
                // Too much, or a history that does not contain what we saw: nothing held can be trusted.
                None => held.clear(),
            }
        }
        self.heads.insert(partition, head.clone());
        Ok(())
    }

    /// The accounts of the batch: those held, and the others folded from the store in one statement a partition.
    async fn load(&mut self, connection: &mut PgConnection, batch: &[Pending]) -> Result<Loaded, Failure> {
        let mut loaded = Loaded::new();
        let mut missing: BTreeMap<i16, Vec<Uuid>> = BTreeMap::new();
        for stream_id in batch.iter().flat_map(|pending| batch::streams(&pending.command)) {
            let lane = self.lane.as_mut();
            loaded.entry(stream_id).or_insert_with(|| match lane.and_then(|lane| lane.held.get(&stream_id)) {
                Some(held) => Ok(held.clone()),
                None => {
                    missing.entry(self.partitions.of(stream_id)).or_default().push(stream_id);
                    Ok(Held::default())
                }
            });
        }
        let misses: usize = missing.values().map(Vec::len).sum();
        METRICS.cache_lookups.with_label_values(&["hit"]).inc_by((loaded.len() - misses) as u64);
        METRICS.cache_lookups.with_label_values(&["miss"]).inc_by(misses as u64);
        let _load = (misses > 0).then(|| phase("load"));
        for (partition, missing) in missing {
            let unreadable = self.fold(connection, partition, &missing, Some(STATE_VERSION), &mut loaded).await?;
            if !unreadable.is_empty() {
                self.fold(connection, partition, &unreadable, None, &mut loaded).await?;
            }
        }
        Ok(loaded)
    }

    /// Folds streams from the store into `loaded`, and returns those whose snapshot cannot be read: it is a shortcut,
    /// and the events are the truth.
    async fn fold(
        &self,
        connection: &mut PgConnection,
        partition: i16,
        ids: &[Uuid],
        state_version: Option<i16>,
        loaded: &mut Loaded,
    ) -> Result<Vec<Uuid>, Failure> {
        let mut unreadable = Vec::new();
        let mut pieces = pin!(stream::load(connection, partition, ids, state_version));
        // Each piece is bounded in time, and not the whole: a long stream takes as long as it takes.
        while let Some((stream_id, piece)) = within(STATEMENT_MAX, pieces.try_next()).await? {
            if unreadable.last() == Some(&stream_id) {
                continue;
            }
            let before = loaded.remove(&stream_id).unwrap_or_else(|| Ok(Held::default()));
            let after = match piece {
                Piece::Snapshot { version, state } => match serde_json::from_str(&state) {
                    Ok(account) => {
                        METRICS.snapshots_used.inc();
                        Ok(Held { version, account })
                    }
                    Err(error) => {
                        tracing::warn!(%stream_id, version, %error, "a snapshot cannot be read");
                        unreadable.push(stream_id);
                        before
                    }
                },
                Piece::Event { version, event_type, schema_version, data } => {
                    let event = Event::decode(&event_type, schema_version, &data);
                    let event = self.newer.read(stream_id, version, event)?;
                    before.and_then(|held| {
                        evolve(held, version, event).map_err(|reason| {
                            tracing::error!(%stream_id, reason, "a stream cannot be folded");
                            Undecodable
                        })
                    })
                }
            };
            loaded.insert(stream_id, after);
        }
        Ok(unreadable)
    }

    fn decide(&self, batch: &[Pending], loaded: &Loaded, recorded: &Recorded, heads: &Heads) -> Decided {
        let clock = timestamp::now();
        let latest = heads.values().map(|head| head.recorded_at).max().unwrap_or_default();
        let earliest = latest + chrono::Duration::microseconds(1);
        let ahead = earliest - clock;
        if ahead.num_milliseconds() > CLOCK_BEHIND_MS_MAX {
            tracing::warn!(ahead_ms = ahead.num_milliseconds(), "the log's last event is later than this clock");
        }
        batch::decide(batch, loaded, recorded, self.partitions, heads, clock.max(earliest), self.snapshot_every)
    }

    /// Holds what the batch left behind, now that it stands.
    fn keep(&mut self, passed: Passed) -> Vec<Result<Answer, Error>> {
        let Passed { decided, loaded, heads } = passed;
        if let Some(Lane { held: all, .. }) = &mut self.lane {
            let read = loaded.into_iter().filter_map(|(stream_id, held)| Some((stream_id, held.ok()?)));
            for (stream_id, held) in read.filter(|(_, held)| held.version > 0).chain(decided.changed) {
                all.put(stream_id, held);
            }
        }
        METRICS.appended_events.inc_by(decided.write.values().map(|write| write.events.len() as u64).sum());
        self.heads = heads;
        decided.answers
    }
}

/// Writes a batch to each of its partitions; what has no events is confirmed. On the fast way there is one of them.
async fn write(connection: &mut PgConnection, heads: &Heads, decided: &Decided) -> Result<Written, Failure> {
    let _write = phase("write");
    let mut next = heads.clone();
    if heads.len() > 1 {
        // Before the first append: behind the locks nobody else records a key, and nothing has to be taken back.
        for (partition, write) in decided.write.iter().filter(|(_, write)| !write.asked.is_empty()) {
            let confirmed =
                within(STATEMENT_MAX, log::confirm(connection, *partition, &heads[partition], &write.asked));
            match told(*partition, confirmed.await?, &mut next) {
                None => {}
                Some(written) => return Ok(written),
            }
        }
    }
    for (partition, write) in &decided.write {
        let head = &heads[partition];
        let outcome = match write.events.is_empty() {
            true if heads.len() > 1 => continue,
            true => within(STATEMENT_MAX, log::confirm(connection, *partition, head, &write.asked)).await?,
            false => within(STATEMENT_MAX, log::append(connection, *partition, head, write)).await?,
        };
        if let Some(written) = told(*partition, outcome, &mut next) {
            return Ok(written);
        }
    }
    Ok(Written::Done(next))
}

/// Takes a head that stands into `next`; everything else is the end of the writing.
fn told(partition: i16, outcome: Outcome, next: &mut Heads) -> Option<Written> {
    match outcome {
        Outcome::Done(head) => {
            next.insert(partition, head);
            None
        }
        Outcome::HeadMoved => Some(Written::HeadMoved),
        Outcome::KeysRecorded(keys) => {
            let keyed = |key: Key| ((partition, key.id.clone()), key);
            Some(Written::KeysRecorded(keys.into_iter().map(keyed).collect()))
        }
    }
}

/// The account after the event at `version` of its stream, or why it cannot be folded.
fn evolve(held: Held, version: i64, event: Result<Event, DecodeError>) -> Result<Held, String> {
    match event {
        Ok(event) if version == held.version + 1 => Ok(Held { version, account: held.account.evolve(&event) }),
        Ok(_) => Err(format!("version {version} follows version {}", held.version)),
        Err(error) => Err(error.to_string()),
    }
}

/// Keeps what is needed to find out later whether a lost write stands.
fn leave_in_doubt(failure: Failure, decided: Decided, heads: &Heads, doubt: &mut Option<Doubt>) -> Failure {
    let place = |(partition, write): (&i16, &log::Batch)| {
        let (head, first) = heads.get(partition).zip(write.events.first())?;
        Some(Place { partition: *partition, position: head.position + 1, id: first.id })
    };
    let places: Vec<Place> = decided.write.iter().filter_map(place).collect();
    if failure.nature == Nature::Lost && !places.is_empty() {
        *doubt = Some(Doubt { places, answers: decided.answers });
    }
    failure
}
