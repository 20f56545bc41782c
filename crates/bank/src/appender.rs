//! One passage through the appender: load, decide, append; on the fast way in one round trip, on the slow way
//! behind the lock.
//!
//! Nothing is answered before the state it rests on is confirmed: by the commit, or for a batch without events by a
//! look at the head. What is held changes only by what stands.
//!
//! One appender leads to one partition, or to whichever several a batch is over: then always on the slow way, behind all
//! their locks in ascending order, with nothing held between two batches.

use std::{
    collections::{BTreeSet, btree_map::Entry},
    sync::Arc,
};

use sqlx::{Connection, PgConnection, Postgres, Transaction};
use tokio::sync::watch;

use super::{
    CommandOutcome, Error, Pending, Settings,
    decide_batch::{self, Decided, HeadsByPartition, RecordedKeys},
    executor::UnknownAppend,
    storage_error::{StorageError, Kind, STATEMENT_MAX, within},
    account_cache::{CATCH_UP_EVENTS_MAX, Loaded, AccountCache},
    unsupported_event::UnsupportedEventGate,
    writing::{Written, remember_unknown_outcome, write},
};
use passbook_event_store::timestamp;
use passbook_event_store::{Partitions, StreamVersion, log, settle};
use passbook_telemetry::metrics::{METRICS, phase};

/// After so many batches on the slow way in which nobody else wrote, the fast way is tried again.
const LOCKED_BATCHES_AFTER_CONFLICT: u32 = 16;
/// A head this far ahead of the clock is worth a warning.
const CLOCK_BEHIND_MS_MAX: i64 = 1_000;

/// What this process knows of the log's end, and the accounts that it holds as they were there.
pub(super) struct Appender {
    partitions: Partitions,
    snapshot_every: i64,
    /// Where it leads; `None`: to several partitions at once.
    partition: Option<i16>,
    memory: AccountCache,
    /// What is known of the partition's end; of several, where the last batch left them.
    heads: HeadsByPartition,
    /// How many more batches take the slow way, because somebody else writes.
    slow_batches: u32,
    /// Whether the last batch wrote events.
    pub has_appended: bool,
    pub newer: UnsupportedEventGate,
}

/// The way to the log that a batch takes.
pub(super) enum AppendPath<'c> {
    /// As long as nobody else writes, there is nobody to wait for.
    Optimistic(&'c mut PgConnection),
    /// WaitingCommands the locks, until the transaction ends.
    Locked(Transaction<'c, Postgres>, HeadsByPartition),
}

/// A decided batch that stands.
struct CommittedBatch {
    decided: Decided,
    loaded: Loaded,
    heads: HeadsByPartition,
}

impl Appender {
    /// To one partition, or with `None` to several.
    pub(super) fn new(
        settings: &Settings,
        partition: Option<i16>,
        newer: Arc<watch::Sender<Option<StreamVersion>>>,
    ) -> Self {
        let partitions = settings.partitions;
        Self {
            partitions,
            snapshot_every: settings.snapshot_every,
            partition,
            memory: if partition.is_some() { AccountCache::of_one(settings) } else { AccountCache::none(settings) },
            heads: HeadsByPartition::new(),
            slow_batches: 0,
            has_appended: false,
            newer: UnsupportedEventGate { met: newer, partitions },
        }
    }

    /// The last positions as this process knows them.
    pub(super) fn positions(&self) -> impl Iterator<Item = (i16, i64)> {
        self.heads.iter().map(|(partition, head)| (*partition, head.position))
    }

    /// Drops all that is held: the database refused what was decided on it.
    pub(super) fn invalidate_cache(&mut self) {
        self.memory.clear();
        self.force_locked_path();
    }

    /// Takes the slow way for a while, on which a database that cannot be written to says so before anything is sent.
    pub(super) fn force_locked_path(&mut self) {
        self.slow_batches = LOCKED_BATCHES_AFTER_CONFLICT;
    }

    /// Waits for the turn of a batch.
    pub(super) async fn enter<'c>(
        &mut self,
        connection: &'c mut PgConnection,
        batch: &[Pending],
    ) -> Result<AppendPath<'c>, StorageError> {
        self.has_appended = false;
        self.newer.recheck(connection).await?;
        if self.partition.is_some() && self.slow_batches == 0 {
            return Ok(AppendPath::Optimistic(connection));
        }
        let prepared = self.memory.prepare(connection, batch, &self.newer).await?;
        let (transaction, heads) = self.lock(connection, batch, prepared).await?;
        Ok(AppendPath::Locked(transaction, heads))
    }

    /// Whether others may join a batch in its turn: behind the lock of one partition, but not behind those that the batch
    /// has chosen.
    pub(super) fn accepts_more_commands(&self, turn: &AppendPath<'_>) -> bool {
        self.partition.is_some() && matches!(turn, AppendPath::Locked(..))
    }

    /// Carries `batch` to its answers. What was sent without an answer is left in `unknown`.
    pub(super) async fn pass(
        &mut self,
        turn: AppendPath<'_>,
        batch: &[Pending],
        unknown: &mut Option<UnknownAppend>,
    ) -> Result<Vec<Result<CommandOutcome, Error>>, StorageError> {
        let (transaction, heads) = match turn {
            AppendPath::Locked(transaction, heads) => (transaction, heads),
            AppendPath::Optimistic(connection) => {
                if let Some(passed) = self.append_optimistic(connection, batch, unknown).await? {
                    METRICS.batches.with_label_values(&["fast"]).inc();
                    return Ok(self.keep(passed));
                }
                self.slow_batches = LOCKED_BATCHES_AFTER_CONFLICT;
                self.lock(connection, batch, Loaded::new()).await?
            }
        };
        let passed = self.append_locked(transaction, heads, batch, unknown).await?;
        METRICS.batches.with_label_values(&["slow"]).inc();
        Ok(self.keep(passed))
    }

    /// Whether an append without an answer stands. If not, it never will.
    pub(super) async fn settle(&mut self, connection: &mut PgConnection, unknown: &UnknownAppend) -> Result<bool, StorageError> {
        // Either way the head is not the one we know: the next passage catches up behind the lock.
        self.force_locked_path();
        within(STATEMENT_MAX, settle::settle(connection, &unknown.places)).await
    }

    /// Decides on what is held and appends in one autocommit call. `None`: somebody else has written since.
    async fn append_optimistic(
        &mut self,
        connection: &mut PgConnection,
        batch: &[Pending],
        unknown: &mut Option<UnknownAppend>,
    ) -> Result<Option<CommittedBatch>, StorageError> {
        for partition in self.partitions_of_batch(batch) {
            if let Entry::Vacant(unknown) = self.heads.entry(partition) {
                unknown.insert(within(STATEMENT_MAX, log::head(connection, partition)).await?);
            }
        }
        let heads = self.heads.clone();
        let loaded = self.memory.load(connection, batch, &self.newer).await?;
        let mut recorded = RecordedKeys::new();
        loop {
            let decided = self.decide(batch, &loaded, &recorded, &heads);
            match write(connection, &heads, &decided).await {
                Ok(Written::Done(heads)) => return Ok(Some(CommittedBatch { decided, loaded, heads })),
                Ok(Written::HeadMoved) => return Ok(None),
                Ok(Written::KeysRecorded(keys)) => recorded.extend(keys),
                Err(failure) => return Err(remember_unknown_outcome(failure, decided, &heads, unknown)),
            }
        }
    }

    /// Locks the heads, and learns what others have written. Nothing can be outrun behind them.
    async fn lock<'c>(
        &mut self,
        connection: &'c mut PgConnection,
        batch: &[Pending],
        prepared: Loaded,
    ) -> Result<(Transaction<'c, Postgres>, HeadsByPartition), StorageError> {
        let mut transaction = within(STATEMENT_MAX, connection.begin()).await?;
        let mut heads = HeadsByPartition::new();
        let appender = phase("turnstile");
        match self.partition {
            Some(partition) => {
                let known = self.heads.get(&partition);
                let turn = log::take_turn(&mut transaction, partition, known, CATCH_UP_EVENTS_MAX);
                let (head, written) = within(STATEMENT_MAX, turn).await?;
                let is_alone = written.as_ref().is_some_and(Vec::is_empty);
                self.slow_batches = if is_alone { self.slow_batches.saturating_sub(1) } else { LOCKED_BATCHES_AFTER_CONFLICT };
                self.memory.catch_up(prepared, written, &self.newer)?;
                heads.insert(partition, head);
                self.heads.clone_from(&heads);
            }
            // In ascending order, each in a statement of its own: whoever else locks several does the same.
            None => {
                for partition in self.partitions_of_batch(batch) {
                    heads.insert(partition, within(STATEMENT_MAX, log::lock_head(&mut transaction, partition)).await?);
                }
            }
        }
        appender.observe_duration();
        Ok((transaction, heads))
    }

    /// Decides and appends behind the locks.
    async fn append_locked(
        &mut self,
        mut transaction: Transaction<'_, Postgres>,
        heads: HeadsByPartition,
        batch: &[Pending],
        unknown: &mut Option<UnknownAppend>,
    ) -> Result<CommittedBatch, StorageError> {
        let loaded = self.memory.load(&mut transaction, batch, &self.newer).await?;
        let mut recorded = RecordedKeys::new();
        let (decided, next) = loop {
            let decided = self.decide(batch, &loaded, &recorded, &heads);
            match write(&mut transaction, &heads, &decided).await? {
                Written::Done(next) => break (decided, next),
                Written::KeysRecorded(keys) => recorded.extend(keys),
                Written::HeadMoved => {
                    let outage = "the database let two writers through the turnstile";
                    return Err(StorageError { kind: Kind::Unavailable, outage, reason: outage.to_owned() });
                }
            }
        };
        let commit = phase("commit");
        let committed = within(STATEMENT_MAX, transaction.commit()).await;
        commit.observe_duration();
        match committed {
            Ok(()) => Ok(CommittedBatch { decided, loaded, heads: next }),
            Err(failure) => Err(remember_unknown_outcome(failure, decided, &heads, unknown)),
        }
    }

    /// The partitions that a batch is over; a passage of nobody looks at one.
    fn partitions_of_batch(&self, batch: &[Pending]) -> BTreeSet<i16> {
        if let Some(partition) = self.partition {
            return BTreeSet::from([partition]);
        }
        let streams = batch.iter().flat_map(|pending| pending.command.accounts());
        let mut partitions_of_batch: BTreeSet<i16> = streams.map(|stream_id| self.partitions.of(stream_id)).collect();
        if partitions_of_batch.is_empty() {
            partitions_of_batch.insert(0);
        }
        partitions_of_batch
    }

    fn decide(&self, batch: &[Pending], loaded: &Loaded, recorded: &RecordedKeys, heads: &HeadsByPartition) -> Decided {
        let clock = timestamp::now();
        let latest = heads.values().map(|head| head.recorded_at).max().unwrap_or_default();
        let earliest = latest + chrono::Duration::microseconds(1);
        let ahead = earliest - clock;
        if ahead.num_milliseconds() > CLOCK_BEHIND_MS_MAX {
            tracing::warn!(ahead_ms = ahead.num_milliseconds(), "the log's last event is later than this clock");
        }
        decide_batch::decide(batch, loaded, recorded, self.partitions, heads, clock.max(earliest), self.snapshot_every)
    }

    /// Holds what the batch left behind, now that it stands.
    fn keep(&mut self, passed: CommittedBatch) -> Vec<Result<CommandOutcome, Error>> {
        let CommittedBatch { decided, loaded, heads } = passed;
        let events: usize = decided.write.values().map(|write| write.events.len()).sum();
        METRICS.appended_events.inc_by(events as u64);
        self.has_appended = events > 0;
        self.memory.keep(loaded, decided.changed);
        self.heads = heads;
        decided.answers
    }
}
