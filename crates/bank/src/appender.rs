//! Decides a batch and appends it to the log, either optimistically in one round trip, or in a transaction that holds the
//! log-head lock.
//!
//! No result is returned before the state that it depends on is confirmed. The commit confirms it or, for a batch with neither
//! events nor keys, a check of the head. The account cache changes only after that.
//!
//! An appender writes to the partitions of one server. If the partitions lie on several servers, one more appender executes the
//! commands that span servers: it always locks the heads of all their partitions, in ascending order, and caches nothing.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection, Postgres, Transaction};
use uuid::Uuid;

use super::{
    account_cache::{AccountCache, CATCH_UP_EVENTS_MAX, LOCKED_CATCH_UP_EVENTS_MAX, LoadedAccounts, NotLoaded},
    append_outcome::{AppendOutcome, CommittedBatch, UnknownAppend},
    clock::{LogInterval, Measurement},
    decide_batch::{self, Basis, Decided, HeadsByPartition, RecordedKeys},
    history::History,
    pending::Pending,
    storage_error::{Kind, STATEMENT_TIMEOUT, StorageError},
    unsupported_event::UnsupportedEventGate,
    write_batch::{WriteError, WriteOutcome, with_partition, write},
};
use passbook_event_store::{
    Partitions,
    log::{self, ReadSize},
    reader, unknown_outcome, with_timeout,
};
use passbook_telemetry::metrics::{METRICS, phase};

/// After a conflict, the optimistic path is tried again after this many locked batches without a concurrent event.
const LOCKED_BATCHES_AFTER_CONFLICT: u32 = 16;
/// A head that was seen longer ago is read again before the lock, so that few events are read behind it.
const HEAD_AGE_MAX: Duration = Duration::from_millis(100);
/// A head that is further ahead of the database's clock is logged, once a minute.
const CLOCK_BEHIND_MS_MAX: i64 = 1_000;

/// How a batch reaches the log, with the accounts that were loaded for it.
pub(super) enum AppendPath<'c> {
    /// One autocommit call, or for several partitions one transaction, which writes nothing if a head has moved. Chosen while no
    /// other instance writes.
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

/// The partitions whose commands an executor executes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scope {
    /// All partitions: they lie on one server.
    All,
    /// The only partition of a server.
    One(i16),
    /// Commands that span the partitions of several servers. Other executors write to these partitions, too.
    Spanning,
}

impl Scope {
    pub(super) fn is_spanning(self) -> bool {
        matches!(self, Self::Spanning)
    }

    /// The partition that an empty batch checks.
    fn probed_partition(self) -> i16 {
        match self {
            Self::All | Self::Spanning => 0,
            Self::One(partition) => partition,
        }
    }
}

/// Appends the batches of one executor.
pub(super) struct Appender {
    partitions: Partitions,
    scope: Scope,
    snapshot_every: i64,
    cache: AccountCache,
    gate: UnsupportedEventGate,
    /// The last known heads. The cached accounts are the folds up to them.
    heads: HeadsByPartition,
    /// The heads that responses of this process rest on. A log without one of them has lost an acknowledged event.
    acknowledged: HeadsByPartition,
    /// When the heads were read.
    heads_seen_at: HashMap<i16, Instant>,
    /// The recorded keys of the batches of clients that were prepared last.
    batch_keys: RecordedKeys,
    /// How many more batches take the locked path.
    locked_batches: u32,
    /// The partitions in which a commit on the locked path has succeeded since the start or the last failure. After a restart of
    /// Postgres the log may show a commit that no standby has. Before a result may rest on the log, one commit must have waited for the
    /// standbys; that of the locked path does, whatever the batch contains.
    confirmed: BTreeSet<i16>,
    clock_warnings: LogInterval,
}

impl Appender {
    /// An appender that may cache the accounts of its partitions if no other task of this process writes to them.
    pub(super) fn new(
        partitions: Partitions,
        scope: Scope,
        snapshot_every: i64,
        cache: AccountCache,
        gate: UnsupportedEventGate,
    ) -> Self {
        Self {
            partitions,
            scope,
            snapshot_every,
            cache,
            gate,
            heads: HeadsByPartition::new(),
            acknowledged: HeadsByPartition::new(),
            heads_seen_at: HashMap::new(),
            batch_keys: RecordedKeys::new(),
            locked_batches: 0,
            confirmed: BTreeSet::new(),
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
        self.confirmed.clear();
    }

    /// Checks on a new connection that the log contains the events that this process has acknowledged. After a restore, or a failover
    /// to a standby that did not have them, it does not: that is logged, and the cached accounts are discarded.
    ///
    /// # Errors
    /// The database fails.
    pub(super) async fn check_history(&mut self, connection: &mut PgConnection) -> Result<(), StorageError> {
        let mut lost = Vec::new();
        for (partition, acknowledged) in self.acknowledged.iter().filter(|(_, head)| head.position > 0) {
            let reading = reader::hash_at(connection, *partition, acknowledged.position);
            let found = with_timeout(STATEMENT_TIMEOUT, reading).await?;
            if found.as_deref() != Some(&acknowledged.hash[..]) {
                let head = with_timeout(STATEMENT_TIMEOUT, log::head(connection, *partition)).await?;
                lost.push((*partition, acknowledged.position, head.position));
            }
        }
        for (partition, position, head) in lost {
            METRICS.lost_heads.inc();
            tracing::error!(partition, position, head, "log has another history; acknowledged events are missing");
            self.acknowledged.remove(&partition);
            self.heads.remove(&partition);
            self.cache.clear();
        }
        Ok(())
    }

    fn takes_locked_path(&self, batch: &[Pending]) -> bool {
        self.scope.is_spanning()
            || self.locked_batches > 0
            || !self.partitions_of_batch(batch).is_subset(&self.confirmed)
    }

    /// Loads the accounts of a batch that are not cached. No lock is held meanwhile. The heads are known before: an event of another
    /// instance that is appended after an account was loaded then moves its head.
    ///
    /// # Errors
    /// The database fails, or the log contains an event of a newer release.
    pub(super) async fn prepare(
        &mut self,
        connection: &mut PgConnection,
        batch: &[Pending],
    ) -> Result<LoadedAccounts, StorageError> {
        self.gate.recheck(connection).await?;
        self.refresh_heads(connection, batch).await?;
        self.read_batch_keys(connection, batch).await?;
        self.cache.prepare(connection, batch).await
    }

    /// Reads the recorded outcomes of batches of clients before any lock is taken: they may be too large for a response under a lock.
    async fn read_batch_keys(&mut self, connection: &mut PgConnection, batch: &[Pending]) -> Result<(), StorageError> {
        self.batch_keys.clear();
        for (partition, ids) in decide_batch::keys_of_batches(batch, self.partitions) {
            let reading = log::recorded_keys(connection, partition, &ids);
            self.batch_keys.extend(with_partition(partition, with_timeout(STATEMENT_TIMEOUT, reading).await?));
        }
        Ok(())
    }

    /// Chooses the path of a batch. On the locked path it waits for the log-head locks.
    ///
    /// # Errors
    /// The database fails, or the log contains an event of a newer release.
    pub(super) async fn begin<'c>(
        &mut self,
        connection: &'c mut PgConnection,
        batch: &[Pending],
        prepared: LoadedAccounts,
    ) -> Result<AppendPath<'c>, StorageError> {
        match self.takes_locked_path(batch) {
            true => self.lock(connection, batch, prepared).await,
            false => Ok(AppendPath::Optimistic(connection, prepared)),
        }
    }

    /// Whether commands may join the batch after [`Self::begin`]: they may if the locks are held.
    pub(super) fn accepts_more_commands(&self, path: &AppendPath<'_>) -> bool {
        !self.scope.is_spanning() && matches!(path, AppendPath::Locked(..))
    }

    /// Whether commands can join the batch: their partitions are locked, and neither their accounts nor their key need to be read, which
    /// would keep the locks meanwhile.
    pub(super) fn can_join(&self, path: &AppendPath<'_>, pending: &Pending) -> bool {
        let AppendPath::Locked(_, heads, prepared) = path else { return false };
        let is_locked = |account_id: &Uuid| heads.contains_key(&self.partitions.partition_of(*account_id));
        let is_prepared = |account_id: &Uuid| {
            prepared.get(account_id).is_some_and(|loaded| !matches!(loaded, Err(NotLoaded::TooLong)))
        };
        let is_loaded = |account_id: &Uuid| self.cache.contains(account_id) || is_prepared(account_id);
        !pending.is_keyed_batch()
            && pending.accounts().all(|account_id| is_locked(&account_id) && is_loaded(&account_id))
    }

    /// Decides `batch` at the time of `clock` and writes it. It decides again if keys of the batch turn out to be recorded, and
    /// continues on the locked path if another instance has appended.
    ///
    /// # Errors
    /// The database fails, and nothing was written.
    pub(super) async fn append(
        &mut self,
        mut path: AppendPath<'_>,
        batch: &[Pending],
        clock: Measurement,
    ) -> Result<AppendOutcome, StorageError> {
        let mut basis = self.load_basis(&mut path, batch).await?;
        // Each attempt finds further recorded keys, and those that it knows are not asked for again.
        loop {
            let decided = self.decide(batch, &basis, clock.now());
            match write(&mut path, &basis.heads, &decided).await {
                Ok(WriteOutcome::Written(heads)) => return Ok(self.commit(path, basis, decided, heads).await),
                Ok(WriteOutcome::KeysRecorded(keys)) => basis.recorded_keys.extend(keys),
                Ok(WriteOutcome::HeadMoved) => {
                    path = self.lock_after_conflict(path, batch).await?;
                    basis = self.load_basis(&mut path, batch).await?;
                }
                Err(WriteError::BeforeCommit(error)) => return Err(error),
                Err(WriteError::Commit(error)) => {
                    return Ok(AppendOutcome::of_failed_commit(error, decided, &basis.heads));
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

    /// Catches up with the partitions of a batch without their locks, if a head is unknown or, on the locked path, was seen long ago.
    /// Behind the locks only what is appended meanwhile is read. If there are too many new events, or the log has another history, the
    /// cache is cleared.
    async fn refresh_heads(&mut self, connection: &mut PgConnection, batch: &[Pending]) -> Result<(), StorageError> {
        if self.scope.is_spanning() {
            return Ok(());
        }
        let takes_locked_path = self.takes_locked_path(batch);
        for partition in self.partitions_of_batch(batch) {
            let is_known = match takes_locked_path {
                true => self.heads_seen_at.get(&partition).is_some_and(|at| at.elapsed() < HEAD_AGE_MAX),
                false => self.heads.contains_key(&partition),
            };
            if is_known {
                continue;
            }
            let head = with_timeout(STATEMENT_TIMEOUT, log::head(connection, partition)).await?;
            let events = match self.heads.get(&partition) {
                // No account of this partition is cached.
                None => Some(Vec::new()),
                Some(known) if (0..=CATCH_UP_EVENTS_MAX).contains(&(head.position - known.position)) => {
                    let reading = log::read_since(connection, partition, (known, &head), ReadSize::UNLOCKED);
                    with_timeout(STATEMENT_TIMEOUT, reading).await?
                }
                Some(_) => None,
            };
            self.heads.insert(partition, head);
            self.heads_seen_at.insert(partition, Instant::now());
            match events {
                Some(events) => self.cache.catch_up(&mut LoadedAccounts::new(), events)?,
                None => self.cache.clear(),
            }
        }
        Ok(())
    }

    /// Locks the heads in a transaction, and updates the cache and the prepared accounts to them. All instances lock several heads in
    /// ascending order, each with its own statement. This prevents deadlocks.
    async fn lock<'c>(
        &mut self,
        connection: &'c mut PgConnection,
        batch: &[Pending],
        mut prepared: LoadedAccounts,
    ) -> Result<AppendPath<'c>, StorageError> {
        let mut transaction = with_timeout(STATEMENT_TIMEOUT, connection.begin()).await?;
        let mut heads = HeadsByPartition::new();
        let timer = phase("lock");
        let mut is_alone = true;
        for partition in self.partitions_of_batch(batch) {
            if self.scope.is_spanning() {
                // Not `lock_head`: the node of the partition must take all locks, in their order.
                let locking = log::lock_head_and_read_since(&mut transaction, partition, None, 0);
                heads.insert(partition, with_timeout(STATEMENT_TIMEOUT, locking).await?.0);
                continue;
            }
            let known = self.heads.get(&partition);
            let locking = log::lock_head_and_read_since(&mut transaction, partition, known, LOCKED_CATCH_UP_EVENTS_MAX);
            let (head, concurrent) = with_timeout(STATEMENT_TIMEOUT, locking).await?;
            let Some(concurrent) = concurrent else {
                // Too many events, or another history. The next attempt finds out before the lock.
                self.heads_seen_at.clear();
                return Err(StorageError::too_far_behind());
            };
            is_alone &= concurrent.is_empty();
            self.cache.catch_up(&mut prepared, concurrent)?;
            self.heads.insert(partition, head.clone());
            self.heads_seen_at.insert(partition, Instant::now());
            heads.insert(partition, head);
        }
        match self.scope.is_spanning() {
            true => self.cache.catch_up_prepared(&mut transaction, &mut prepared).await?,
            false if is_alone => self.locked_batches = self.locked_batches.saturating_sub(1),
            false => self.locked_batches = LOCKED_BATCHES_AFTER_CONFLICT,
        }
        timer.observe_duration();
        Ok(AppendPath::Locked(transaction, heads, prepared))
    }

    /// The locked path, after the optimistic path has found that another instance has appended.
    async fn lock_after_conflict<'c>(
        &mut self,
        path: AppendPath<'c>,
        batch: &[Pending],
    ) -> Result<AppendPath<'c>, StorageError> {
        match path {
            AppendPath::Optimistic(connection, _) => {
                self.locked_batches = LOCKED_BATCHES_AFTER_CONFLICT;
                self.heads_seen_at.clear();
                let prepared = self.prepare(connection, batch).await?;
                self.lock(connection, batch, prepared).await
            }
            AppendPath::Locked(..) => Err(StorageError::head_moved_under_lock()),
        }
    }

    /// Collects what the batch is decided on. On the optimistic path the heads are the last known ones.
    async fn load_basis(&mut self, path: &mut AppendPath<'_>, batch: &[Pending]) -> Result<Basis, StorageError> {
        let heads = match path {
            AppendPath::Locked(_, heads, _) => heads.clone(),
            AppendPath::Optimistic(..) => {
                let known = |partition| Some((partition, self.heads.get(&partition)?.clone()));
                let heads: Option<HeadsByPartition> = self.partitions_of_batch(batch).into_iter().map(known).collect();
                heads.ok_or_else(StorageError::too_far_behind)?
            }
        };
        let accounts = self.cache.load(std::mem::take(path.prepared()), batch);
        // The executor has put aside the commands of such accounts, unless the cache was cleared after that.
        if accounts.values().any(|loaded| matches!(loaded, Err(NotLoaded::TooLong))) {
            return Err(StorageError::too_far_behind());
        }
        let history = History::load(path.connection(), self.partitions, batch, &accounts).await?;
        Ok(Basis { heads, accounts, recorded_keys: self.batch_keys.clone(), history })
    }

    /// The partitions of the accounts in a batch. An empty batch checks one partition.
    fn partitions_of_batch(&self, batch: &[Pending]) -> BTreeSet<i16> {
        if !self.partitions.is_partitioned() {
            return BTreeSet::from([0]);
        }
        if batch.is_empty() {
            return BTreeSet::from([self.scope.probed_partition()]);
        }
        batch.iter().flat_map(Pending::accounts).map(|stream_id| self.partitions.partition_of(stream_id)).collect()
    }

    fn decide(&self, batch: &[Pending], basis: &Basis, clock: DateTime<Utc>) -> Decided {
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
                self.confirmed.extend(basis.heads.keys());
                "locked"
            }
        };
        METRICS.batches.with_label_values(&[label]).inc();
        let events = count_by_type(&decided);
        self.cache.store(basis.accounts, decided.changed);
        if self.scope.is_spanning() {
            // The other appenders write to these partitions, too.
            self.heads.clear();
        }
        self.heads_seen_at.extend(heads.keys().map(|partition| (*partition, Instant::now())));
        self.acknowledged.extend(heads.iter().map(|(partition, head)| (*partition, head.clone())));
        self.heads.extend(heads);
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
