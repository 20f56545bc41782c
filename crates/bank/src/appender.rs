//! Decides a batch and appends it to the log, either optimistically in one round trip, or in a transaction that holds the
//! log-head lock.
//!
//! No result is returned before the state that it depends on is confirmed. The commit confirms it or, for a batch with neither
//! events nor keys, a check of the head. The account cache changes only after that.
//!
//! An appender writes to one partition. One more appender executes the commands that span partitions: it always locks the heads
//! of all their partitions, in ascending order, and caches nothing.

use std::{
    collections::{BTreeSet, HashMap, btree_map::Entry},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection, Postgres, Transaction};
use uuid::Uuid;

use super::{
    account_cache::{AccountCache, CATCH_UP_EVENTS_MAX, LOCKED_CATCH_UP_EVENTS_MAX, LoadedAccounts, NotLoaded},
    append_outcome::{AppendOutcome, CommittedBatch, UnknownAppend},
    clock::{LogInterval, Measurement},
    command::PendingCommand,
    decide_batch::{self, Basis, Decided, HeadsByPartition, RecordedKeys},
    history::History,
    storage_error::{Kind, STATEMENT_TIMEOUT, StorageError},
    unsupported_event::UnsupportedEventGate,
};
use passbook_event_store::{
    Partitions,
    log::{self, Key, Outcome, ReadSize},
    unknown_outcome, with_timeout,
};
use passbook_telemetry::metrics::{METRICS, phase};

/// After a conflict, the optimistic path is tried again after this many locked batches without a concurrent event.
const LOCKED_BATCHES_AFTER_CONFLICT: u32 = 16;
/// A head that was seen longer ago is read again before the lock, so that few events are read behind it.
const HEAD_AGE_MAX: Duration = Duration::from_millis(100);
/// A head that is further ahead of the database's clock is logged, once a minute.
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

/// How a batch reaches the log, with the accounts that were loaded for it.
pub(super) enum AppendPath<'c> {
    /// One autocommit call, which writes nothing if the head has moved. Chosen while no other instance writes.
    Optimistic(&'c mut PgConnection, LoadedAccounts),
    /// A transaction that holds the log-head locks; no other instance can write until it ends.
    Locked(Transaction<'c, Postgres>, HeadsByPartition, LoadedAccounts),
}

impl AppendPath<'_> {
    fn connection(&mut self) -> &mut PgConnection {
        match self {
            Self::Optimistic(connection, _) => connection,
            Self::Locked(transaction, ..) => transaction,
        }
    }

    fn prepared(&mut self) -> &mut LoadedAccounts {
        match self {
            Self::Optimistic(_, prepared) | Self::Locked(_, _, prepared) => prepared,
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
    /// When the heads were read.
    heads_seen_at: Option<Instant>,
    /// How many more batches take the locked path.
    locked_batches: u32,
    /// Whether a commit on the locked path has succeeded since the start or the last failure. After a restart of Postgres the log
    /// may show a commit that no standby has. Before a result may rest on the log, one commit must have waited for the standbys;
    /// that of the locked path does, whatever the batch contains.
    is_confirmed: bool,
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
            heads_seen_at: None,
            locked_batches: 0,
            is_confirmed: false,
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

    /// Makes the next batches take the locked path after a failure. There a database that cannot write fails before anything is
    /// sent, and the commit waits for the standbys.
    pub(super) fn force_locked_path(&mut self) {
        self.locked_batches = LOCKED_BATCHES_AFTER_CONFLICT;
        self.is_confirmed = false;
    }

    fn takes_locked_path(&self) -> bool {
        self.partition.is_none() || !self.is_confirmed || self.locked_batches > 0
    }

    /// Loads the accounts of a batch that are not cached. No lock is held meanwhile.
    ///
    /// # Errors
    /// The database fails, or the log contains an event of a newer release.
    pub(super) async fn prepare(
        &mut self,
        connection: &mut PgConnection,
        batch: &[PendingCommand],
    ) -> Result<LoadedAccounts, StorageError> {
        self.gate.recheck(connection).await?;
        if self.takes_locked_path() {
            self.refresh_head(connection).await?;
        }
        self.cache.prepare(connection, batch).await
    }

    /// Chooses the path of a batch. On the locked path it waits for the log-head locks.
    ///
    /// # Errors
    /// The database fails, or the log contains an event of a newer release.
    pub(super) async fn begin<'c>(
        &mut self,
        connection: &'c mut PgConnection,
        batch: &[PendingCommand],
        prepared: LoadedAccounts,
    ) -> Result<AppendPath<'c>, StorageError> {
        match self.takes_locked_path() {
            true => self.lock(connection, batch, prepared).await,
            false => Ok(AppendPath::Optimistic(connection, prepared)),
        }
    }

    /// Whether commands may join the batch after [`Self::begin`]: they may if the lock of the only partition is held. The
    /// partitions that a spanning batch has locked are those of its commands, so no other command may join.
    pub(super) fn accepts_more_commands(&self, path: &AppendPath<'_>) -> bool {
        self.partition.is_some() && matches!(path, AppendPath::Locked(..))
    }

    /// Whether a command can join the batch: its accounts need not be loaded, which would keep the lock meanwhile.
    pub(super) fn can_join(&self, path: &mut AppendPath<'_>, pending: &PendingCommand) -> bool {
        let prepared = path.prepared();
        let is_prepared = |account_id: &Uuid| {
            prepared.get(account_id).is_some_and(|loaded| !matches!(loaded, Err(NotLoaded::TooLong)))
        };
        pending.command.accounts().all(|account_id| self.cache.contains(&account_id) || is_prepared(&account_id))
    }

    /// Decides `batch` at the time of `clock` and writes it. It decides again if keys of the batch turn out to be recorded, and continues on the
    /// locked path if another instance has appended.
    ///
    /// # Errors
    /// The database fails, and nothing was written.
    pub(super) async fn append(
        &mut self,
        mut path: AppendPath<'_>,
        batch: &[PendingCommand],
        clock: Measurement,
    ) -> Result<AppendOutcome, StorageError> {
        let mut basis = self.load_basis(&mut path, batch).await?;
        // Each attempt finds further recorded keys, and those that it knows are not asked for again.
        loop {
            let decided = self.decide(batch, &basis, clock.now());
            match write(path.connection(), &basis.heads, &decided).await {
                Ok(WriteOutcome::Written(heads)) => return Ok(self.commit(path, basis, decided, heads).await),
                Ok(WriteOutcome::KeysRecorded(keys)) => basis.recorded_keys.extend(keys),
                Ok(WriteOutcome::HeadMoved) => {
                    path = self.lock_after_conflict(path, batch).await?;
                    basis = self.load_basis(&mut path, batch).await?;
                }
                Err(error) => {
                    return match path {
                        AppendPath::Optimistic(..) => Ok(AppendOutcome::of_failed_commit(error, decided, &basis.heads)),
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

    /// Catches up with the log without its lock, if the head is unknown or was seen long ago. Behind the lock only what is appended
    /// meanwhile is read. If there are too many new events, or the log has another history, the cache is cleared.
    async fn refresh_head(&mut self, connection: &mut PgConnection) -> Result<(), StorageError> {
        let Some(partition) = self.partition else { return Ok(()) };
        let known = self.heads.get(&partition);
        if known.is_some() && self.heads_seen_at.is_some_and(|at| at.elapsed() < HEAD_AGE_MAX) {
            return Ok(());
        }
        let head = with_timeout(STATEMENT_TIMEOUT, log::head(connection, partition)).await?;
        let events = match known {
            Some(known) if (0..=CATCH_UP_EVENTS_MAX).contains(&(head.position - known.position)) => {
                let reading = log::read_since(connection, partition, (known, &head), ReadSize::UNLOCKED);
                with_timeout(STATEMENT_TIMEOUT, reading).await?
            }
            Some(_) | None => None,
        };
        self.heads = HeadsByPartition::from([(partition, head)]);
        self.heads_seen_at = Some(Instant::now());
        match events {
            Some(events) => self.cache.catch_up(&mut LoadedAccounts::new(), events),
            None => {
                self.cache.clear();
                Ok(())
            }
        }
    }

    /// Locks the heads in a transaction, and updates the cache and the prepared accounts to them.
    async fn lock<'c>(
        &mut self,
        connection: &'c mut PgConnection,
        batch: &[PendingCommand],
        mut prepared: LoadedAccounts,
    ) -> Result<AppendPath<'c>, StorageError> {
        let mut transaction = with_timeout(STATEMENT_TIMEOUT, connection.begin()).await?;
        let mut heads = HeadsByPartition::new();
        let timer = phase("lock");
        match self.partition {
            Some(partition) => {
                let known = self.heads.get(&partition);
                let locking =
                    log::lock_head_and_read_since(&mut transaction, partition, known, LOCKED_CATCH_UP_EVENTS_MAX);
                let (head, concurrent) = with_timeout(STATEMENT_TIMEOUT, locking).await?;
                let Some(concurrent) = concurrent else {
                    // Too many events, or another history. The next attempt finds out before the lock.
                    self.heads_seen_at = None;
                    return Err(StorageError::too_far_behind());
                };
                self.locked_batches = match concurrent.is_empty() {
                    true => self.locked_batches.saturating_sub(1),
                    false => LOCKED_BATCHES_AFTER_CONFLICT,
                };
                self.cache.catch_up(&mut prepared, concurrent)?;
                heads.insert(partition, head);
                self.heads.clone_from(&heads);
                self.heads_seen_at = Some(Instant::now());
            }
            // All instances lock several heads in ascending order, each with its own statement. This prevents deadlocks.
            None => {
                for partition in self.partitions_of_batch(batch) {
                    let locking = log::lock_head(&mut transaction, partition);
                    heads.insert(partition, with_timeout(STATEMENT_TIMEOUT, locking).await?);
                }
                self.cache.catch_up_prepared(&mut transaction, &mut prepared).await?;
            }
        }
        timer.observe_duration();
        Ok(AppendPath::Locked(transaction, heads, prepared))
    }

    /// The locked path, after the optimistic path has found that another instance has appended.
    async fn lock_after_conflict<'c>(
        &mut self,
        path: AppendPath<'c>,
        batch: &[PendingCommand],
    ) -> Result<AppendPath<'c>, StorageError> {
        match path {
            AppendPath::Optimistic(connection, _) => {
                self.locked_batches = LOCKED_BATCHES_AFTER_CONFLICT;
                self.heads_seen_at = None;
                self.refresh_head(connection).await?;
                let prepared = self.cache.prepare(connection, batch).await?;
                self.lock(connection, batch, prepared).await
            }
            AppendPath::Locked(..) => Err(StorageError::head_moved_under_lock()),
        }
    }

    /// Collects what the batch is decided on. On the optimistic path the heads are the last known ones.
    async fn load_basis(&mut self, path: &mut AppendPath<'_>, batch: &[PendingCommand]) -> Result<Basis, StorageError> {
        let heads = match path {
            AppendPath::Locked(_, heads, _) => heads.clone(),
            AppendPath::Optimistic(connection, _) => {
                for partition in self.partitions_of_batch(batch) {
                    if let Entry::Vacant(unknown) = self.heads.entry(partition) {
                        unknown.insert(with_timeout(STATEMENT_TIMEOUT, log::head(connection, partition)).await?);
                    }
                }
                self.heads.clone()
            }
        };
        let accounts = self.cache.load(std::mem::take(path.prepared()), batch);
        // The executor has put aside the commands of such accounts, unless the cache was cleared after that.
        if accounts.values().any(|loaded| matches!(loaded, Err(NotLoaded::TooLong))) {
            return Err(StorageError::too_far_behind());
        }
        let history = History::load(path.connection(), self.partitions, batch, &accounts).await?;
        Ok(Basis { heads, accounts, recorded_keys: RecordedKeys::new(), history })
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

    fn decide(&self, batch: &[PendingCommand], basis: &Basis, clock: DateTime<Utc>) -> Decided {
        let latest = basis.heads.values().map(|head| head.recorded_at).max().unwrap_or_default();
        let earliest = latest + chrono::Duration::microseconds(1);
        let ahead_ms = (earliest - clock).num_milliseconds();
        if ahead_ms > CLOCK_BEHIND_MS_MAX && self.clock_warnings.is_due() {
            tracing::warn!(ahead_ms, "log head is ahead of the database's clock");
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
            AppendPath::Optimistic(..) => "optimistic",
            AppendPath::Locked(transaction, ..) => {
                let timer = phase("commit");
                let committed = with_timeout(STATEMENT_TIMEOUT, transaction.commit()).await;
                timer.observe_duration();
                if let Err(error) = committed {
                    return AppendOutcome::of_failed_commit(error.into(), decided, &basis.heads);
                }
                self.is_confirmed = true;
                "locked"
            }
        };
        METRICS.batches.with_label_values(&[label]).inc();
        let events = count_by_type(&decided);
        self.cache.store(basis.accounts, decided.changed);
        self.heads = heads;
        self.heads_seen_at = Some(Instant::now());
        AppendOutcome::Committed(CommittedBatch { results: decided.results, events })
    }
}

/// Counts the events of a committed batch in the metrics, and returns their number.
fn count_by_type(decided: &Decided) -> usize {
    let mut counts: HashMap<&str, u64> = HashMap::new();
    for event in decided.appends.values().flat_map(|append| &append.events) {
        *counts.entry(event.event_type).or_default() += 1;
    }
    for (event_type, count) in counts {
        METRICS.appended_events.with_label_values(&[event_type]).inc_by(count);
    }
    decided.appends.values().map(|append| append.events.len()).sum()
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
                let (decided_at, keys) = (append.recorded_at, &append.keys_to_check);
                let checking = log::check_head_and_keys(connection, *partition, head, decided_at, keys);
                with_timeout(STATEMENT_TIMEOUT, checking).await?
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
