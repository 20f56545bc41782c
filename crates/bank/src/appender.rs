//! Decides a batch and appends it to the log, either optimistically in one round trip, or in a transaction that holds the
//! log-head lock.
//!
//! No result is returned before the state that it depends on is confirmed. The commit confirms it or, for a batch with neither
//! events nor keys, a check of the head. The account cache changes only after that.
//!
//! An appender writes to one partition. One more appender executes the commands that span partitions: it always locks the heads
//! of all their partitions, in ascending order, and caches nothing.

use std::collections::{BTreeSet, btree_map::Entry};

use sqlx::{Connection, PgConnection, Postgres, Transaction};

use super::{
    account_cache::{AccountCache, CATCH_UP_EVENTS_MAX, LoadedAccounts},
    append_outcome::{AppendOutcome, CommittedBatch, UnknownAppend},
    clock::LogInterval,
    command::PendingCommand,
    decide_batch::{self, Basis, Decided, HeadsByPartition, RecordedKeys},
    storage_error::{Kind, STATEMENT_TIMEOUT, StorageError},
    unsupported_event::UnsupportedEventGate,
};
use passbook_event_store::timestamp;
use passbook_event_store::{
    Partitions,
    log::{self, Key, Outcome},
    unknown_outcome, with_timeout,
};
use passbook_telemetry::metrics::{METRICS, phase};

/// After a conflict, the optimistic path is tried again after this many locked batches without a concurrent event.
const LOCKED_BATCHES_AFTER_CONFLICT: u32 = 16;
/// A head that is further ahead of this instance's clock is logged, once a minute.
const CLOCK_BEHIND_MS_MAX: i64 = 1_000;

/// The result of one write to the log.
enum WriteOutcome {
    /// Everything is written; these are the new heads.
    Written(HeadsByPartition),
    /// Nothing was written: another instance has appended, or has raised the fence.
    HeadMoved,
    /// Nothing was written: these keys of the batch are recorded already.
    KeysRecorded(RecordedKeys),
}

/// How a batch reaches the log.
pub(super) enum AppendPath<'c> {
    /// One autocommit call, which writes nothing if the head has moved. Chosen while no other instance writes.
    Optimistic(&'c mut PgConnection),
    /// A transaction that holds the log-head locks; no other instance can write until it ends.
    Locked(Transaction<'c, Postgres>, HeadsByPartition),
}

impl AppendPath<'_> {
    fn connection(&mut self) -> &mut PgConnection {
        match self {
            Self::Optimistic(connection) => connection,
            Self::Locked(transaction, _) => transaction,
        }
    }
}

/// Appends the batches of one executor.
pub(super) struct Appender {
    partitions: Partitions,
    /// `None` for commands that span partitions.
    partition: Option<i16>,
    snapshot_every: i64,
    cache: AccountCache,
    gate: UnsupportedEventGate,
    /// The heads after the last batch.
    heads: HeadsByPartition,
    /// How many more batches take the locked path.
    locked_batches: u32,
    clock_warnings: LogInterval,
}

impl Appender {
    /// An appender for one partition, or with `None` for commands that span partitions.
    pub(super) fn new(
        partitions: Partitions,
        partition: Option<i16>,
        snapshot_every: i64,
        cache: AccountCache,
        gate: UnsupportedEventGate,
    ) -> Self {
        let heads = HeadsByPartition::new();
        Self {
            partitions,
            partition,
            snapshot_every,
            cache,
            gate,
            heads,
            locked_batches: 0,
            clock_warnings: LogInterval::default(),
        }
    }

    /// The last known position of each partition that this appender has written to.
    pub(super) fn positions(&self) -> impl Iterator<Item = (i16, i64)> {
        self.heads.iter().map(|(partition, head)| (*partition, head.position))
    }

    /// Clears the cache, because the database refused events that were decided on it.
    pub(super) fn invalidate_cache(&mut self) {
        self.cache.clear();
        self.force_locked_path();
    }

    /// Makes the next batches take the locked path. There a database that cannot write fails before anything is sent.
    pub(super) fn force_locked_path(&mut self) {
        self.locked_batches = LOCKED_BATCHES_AFTER_CONFLICT;
    }

    /// Chooses the path of a batch. On the locked path it waits for the log-head locks.
    ///
    /// # Errors
    /// The database fails, or the log contains an event of a newer release.
    pub(super) async fn begin<'c>(
        &mut self,
        connection: &'c mut PgConnection,
        batch: &[PendingCommand],
    ) -> Result<AppendPath<'c>, StorageError> {
        self.gate.recheck(connection).await?;
        if self.partition.is_some() && self.locked_batches == 0 {
            return Ok(AppendPath::Optimistic(connection));
        }
        let prefetched = self.cache.prefetch(connection, batch).await?;
        self.lock(connection, batch, prefetched).await
    }

    /// Whether commands may join the batch after [`Self::begin`]: they may if the lock of the only partition is held. The
    /// partitions that a spanning batch has locked are those of its commands, so no other command may join.
    pub(super) fn accepts_more_commands(&self, path: &AppendPath<'_>) -> bool {
        self.partition.is_some() && matches!(path, AppendPath::Locked(..))
    }

    /// Decides `batch` and writes it. It decides again if keys of the batch turn out to be recorded, and continues on the
    /// locked path if another instance has appended.
    ///
    /// # Errors
    /// The database fails, and nothing was written.
    pub(super) async fn append(
        &mut self,
        mut path: AppendPath<'_>,
        batch: &[PendingCommand],
    ) -> Result<AppendOutcome, StorageError> {
        let mut basis = self.load_basis(&mut path, batch).await?;
        loop {
            let decided = self.decide(batch, &basis);
            match write(path.connection(), &basis.heads, &decided).await {
                Ok(WriteOutcome::Written(heads)) => return Ok(self.commit(path, basis, decided, heads).await),
                Ok(WriteOutcome::KeysRecorded(keys)) => basis.recorded_keys.extend(keys),
                Ok(WriteOutcome::HeadMoved) => {
                    path = self.lock_after_conflict(path, batch).await?;
                    basis = self.load_basis(&mut path, batch).await?;
                }
                Err(error) => {
                    return match path {
                        AppendPath::Optimistic(_) => Ok(AppendOutcome::of_failed_commit(error, decided, &basis.heads)),
                        // COMMIT was not sent, so Postgres rolls the transaction back.
                        AppendPath::Locked(..) => Err(error),
                    };
                }
            }
        }
    }

    /// Finds out whether an append has committed. If it has not, the fence is raised, and it can never commit later.
    ///
    /// # Errors
    /// The database fails; the outcome is still unknown.
    pub(super) async fn resolve(
        &mut self,
        connection: &mut PgConnection,
        unknown: &UnknownAppend,
    ) -> Result<bool, StorageError> {
        // The head has moved or has a new fence: the locked path reads it.
        self.force_locked_path();
        let resolving = unknown_outcome::resolve_unknown_append(connection, &unknown.first_rows);
        with_timeout(STATEMENT_TIMEOUT, resolving).await.map_err(|error| {
            // The data of the batch was not sent again, so no error here can mean that Postgres rejects it.
            StorageError { kind: Kind::Unavailable, ..error.into() }
        })
    }

    /// Locks the heads in a transaction, and updates the cache to them.
    async fn lock<'c>(
        &mut self,
        connection: &'c mut PgConnection,
        batch: &[PendingCommand],
        prefetched: LoadedAccounts,
    ) -> Result<AppendPath<'c>, StorageError> {
        let mut transaction = with_timeout(STATEMENT_TIMEOUT, connection.begin()).await?;
        let mut heads = HeadsByPartition::new();
        let timer = phase("lock");
        match self.partition {
            Some(partition) => {
                let known = self.heads.get(&partition);
                let locking = log::lock_head_and_read_since(&mut transaction, partition, known, CATCH_UP_EVENTS_MAX);
                let (head, concurrent) = with_timeout(STATEMENT_TIMEOUT, locking).await?;
                let is_alone = concurrent.as_ref().is_some_and(Vec::is_empty);
                self.locked_batches =
                    if is_alone { self.locked_batches.saturating_sub(1) } else { LOCKED_BATCHES_AFTER_CONFLICT };
                self.cache.catch_up(prefetched, concurrent)?;
                heads.insert(partition, head);
                self.heads.clone_from(&heads);
            }
            // All instances lock several heads in ascending order, each with its own statement. This prevents deadlocks.
            None => {
                for partition in self.partitions_of_batch(batch) {
                    let locking = log::lock_head(&mut transaction, partition);
                    heads.insert(partition, with_timeout(STATEMENT_TIMEOUT, locking).await?);
                }
            }
        }
        timer.observe_duration();
        Ok(AppendPath::Locked(transaction, heads))
    }

    /// The locked path, after the optimistic path has found that another instance has appended.
    async fn lock_after_conflict<'c>(
        &mut self,
        path: AppendPath<'c>,
        batch: &[PendingCommand],
    ) -> Result<AppendPath<'c>, StorageError> {
        match path {
            AppendPath::Optimistic(connection) => {
                self.force_locked_path();
                self.lock(connection, batch, LoadedAccounts::new()).await
            }
            AppendPath::Locked(..) => Err(StorageError::head_moved_under_lock()),
        }
    }

    /// Loads what the batch is decided on. On the optimistic path the heads are the last known ones.
    async fn load_basis(&mut self, path: &mut AppendPath<'_>, batch: &[PendingCommand]) -> Result<Basis, StorageError> {
        let heads = match path {
            AppendPath::Locked(_, heads) => heads.clone(),
            AppendPath::Optimistic(connection) => {
                for partition in self.partitions_of_batch(batch) {
                    if let Entry::Vacant(unknown) = self.heads.entry(partition) {
                        unknown.insert(with_timeout(STATEMENT_TIMEOUT, log::head(connection, partition)).await?);
                    }
                }
                self.heads.clone()
            }
        };
        let accounts = self.cache.load(path.connection(), batch).await?;
        Ok(Basis { heads, accounts, recorded_keys: RecordedKeys::new() })
    }

    /// The partitions of the accounts in a batch. An empty batch checks one partition.
    fn partitions_of_batch(&self, batch: &[PendingCommand]) -> BTreeSet<i16> {
        if let Some(partition) = self.partition {
            return BTreeSet::from([partition]);
        }
        let streams = batch.iter().flat_map(|pending| pending.command.accounts());
        let mut partitions: BTreeSet<i16> = streams.map(|stream_id| self.partitions.partition_of(stream_id)).collect();
        if partitions.is_empty() {
            partitions.insert(0);
        }
        partitions
    }

    fn decide(&self, batch: &[PendingCommand], basis: &Basis) -> Decided {
        let clock = timestamp::now();
        let latest = basis.heads.values().map(|head| head.recorded_at).max().unwrap_or_default();
        let earliest = latest + chrono::Duration::microseconds(1);
        let ahead_ms = (earliest - clock).num_milliseconds();
        if ahead_ms > CLOCK_BEHIND_MS_MAX && self.clock_warnings.is_due() {
            tracing::warn!(ahead_ms, "log head is ahead of the clock of this instance");
        }
        decide_batch::decide(batch, basis, self.partitions, clock.max(earliest), self.snapshot_every)
    }

    /// Commits the transaction of the locked path; on the optimistic path the write has committed. Then updates the cache.
    async fn commit(
        &mut self,
        path: AppendPath<'_>,
        basis: Basis,
        decided: Decided,
        heads: HeadsByPartition,
    ) -> AppendOutcome {
        let label = match path {
            AppendPath::Optimistic(_) => "optimistic",
            AppendPath::Locked(transaction, _) => {
                let timer = phase("commit");
                let committed = with_timeout(STATEMENT_TIMEOUT, transaction.commit()).await;
                timer.observe_duration();
                if let Err(error) = committed {
                    return AppendOutcome::of_failed_commit(error.into(), decided, &basis.heads);
                }
                "locked"
            }
        };
        METRICS.batches.with_label_values(&[label]).inc();
        let events = decided.appends.values().map(|append| append.events.len()).sum();
        METRICS.appended_events.inc_by(events as u64);
        self.cache.store(basis.accounts, decided.changed);
        self.heads = heads;
        AppendOutcome::Committed(CommittedBatch { results: decided.results, events })
    }
}

/// Writes a decided batch to each of its partitions. If there are neither events nor keys, it checks the head instead.
async fn write(
    connection: &mut PgConnection,
    heads: &HeadsByPartition,
    decided: &Decided,
) -> Result<WriteOutcome, StorageError> {
    let _timer = phase("write");
    debug_assert!(
        decided.appends.keys().eq(heads.keys()),
        "a batch is written to the partitions that it was decided on"
    );
    let spans = heads.len() > 1;
    // Over several partitions all keys are checked before the first append, so that no append has to be undone. The locks
    // keep other instances from recording these keys meanwhile.
    let checks = decided.appends.iter().filter(|(_, append)| spans && !append.keys_to_check.is_empty());
    // A key without events is that of a refusal.
    let has_rows = |append: &log::Batch| !append.events.is_empty() || !append.keys.is_empty();
    let appends = decided.appends.iter().filter(|(_, append)| !spans || has_rows(append));
    let steps = checks.map(|step| (step, false)).chain(appends.map(|step| (step, has_rows(step.1))));

    let mut next = heads.clone();
    for ((partition, append), is_append) in steps {
        let head = &heads[partition];
        let outcome = match is_append {
            true => with_timeout(STATEMENT_TIMEOUT, log::append(connection, *partition, head, append)).await?,
            false => {
                let keys = &append.keys_to_check;
                with_timeout(STATEMENT_TIMEOUT, log::check_head_and_keys(connection, *partition, head, keys)).await?
            }
        };
        match outcome {
            Outcome::Done(head) => drop(next.insert(*partition, head)),
            Outcome::HeadMoved => return Ok(WriteOutcome::HeadMoved),
            Outcome::KeysRecorded(keys) => return Ok(WriteOutcome::KeysRecorded(with_partition(*partition, keys))),
        }
    }
    Ok(WriteOutcome::Written(next))
}

fn with_partition(partition: i16, keys: Vec<Key>) -> RecordedKeys {
    keys.into_iter().map(|key| ((partition, key.id.clone()), key)).collect()
}
