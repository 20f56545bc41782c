//! Caches the accounts of one partition at the head of the log, so that a command needs no read. It folds missing accounts from
//! the event store, and applies the events of other instances to cached accounts.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    num::NonZeroUsize,
    pin::pin,
};

use futures_util::TryStreamExt;
use lru::LruCache;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    command::PendingCommand,
    storage_error::{STATEMENT_TIMEOUT, StorageError},
    unsupported_event::UnsupportedEventGate,
};
use passbook_domain::{Account, DecodeError, Event, account::STATE_VERSION};
use passbook_event_store::{
    Partitions,
    log::ConcurrentEvent,
    stream::{self, StreamItem},
    with_timeout,
};
use passbook_telemetry::metrics::{METRICS, phase};

/// If other instances have appended more events than this, the cache is cleared instead of updated.
pub(super) const CATCH_UP_EVENTS_MAX: i64 = 10_000;

/// The state of an account at one version.
#[derive(Clone, Debug, Default)]
pub(super) struct CachedAccount {
    /// The version of the last event in the fold; 0 for an account that does not exist.
    pub version: i64,
    /// The fold of the events up to `version`.
    pub account: Account,
}

/// The accounts that a batch is decided on. An error fails the commands of that account only.
pub(super) type LoadedAccounts = HashMap<Uuid, Result<CachedAccount, Undecodable>>;

/// An event of the stream cannot be decoded or does not follow the event before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Undecodable;

/// A least-recently-used cache of accounts. Every state in it is the fold of committed events.
pub(super) struct AccountCache {
    partitions: Partitions,
    gate: UnsupportedEventGate,
    /// `None` for commands that span partitions: their accounts also change through the executors of single partitions.
    accounts: Option<LruCache<Uuid, CachedAccount>>,
    /// How many accounts were prefetched for the current batch. They count as cache misses.
    prefetched: usize,
}

impl AccountCache {
    /// A cache for one partition, with its share of `accounts_max`.
    pub(super) fn of_partition(gate: UnsupportedEventGate, partitions: Partitions, accounts_max: usize) -> Self {
        let share = accounts_max.div_ceil(usize::from(partitions.count().unsigned_abs()));
        let accounts = LruCache::new(NonZeroUsize::new(share).unwrap_or(NonZeroUsize::MIN));
        Self { partitions, gate, accounts: Some(accounts), prefetched: 0 }
    }

    /// A cache that stores nothing.
    pub(super) fn disabled(gate: UnsupportedEventGate, partitions: Partitions) -> Self {
        Self { partitions, gate, accounts: None, prefetched: 0 }
    }

    /// Removes all accounts.
    pub(super) fn clear(&mut self) {
        if let Some(accounts) = &mut self.accounts {
            accounts.clear();
        }
    }

    /// Stores the accounts that a committed batch loaded, and then those that it changed.
    pub(super) fn store(&mut self, loaded: LoadedAccounts, changed: HashMap<Uuid, CachedAccount>) {
        let Some(accounts) = &mut self.accounts else { return };
        let loaded = loaded.into_iter().filter_map(|(stream_id, loaded)| Some((stream_id, loaded.ok()?)));
        for (stream_id, account) in loaded.filter(|(_, loaded)| loaded.version > 0).chain(changed) {
            accounts.put(stream_id, account);
        }
    }

    /// Updates the cache to the locked head: stores the `prefetched` accounts and applies the events of other instances.
    /// `None` for `concurrent` means that there are too many of them, or that the log no longer contains the head that this
    /// instance saw last.
    ///
    /// # Errors
    /// An event is of a newer release.
    pub(super) fn catch_up(
        &mut self,
        prefetched: LoadedAccounts,
        concurrent: Option<Vec<ConcurrentEvent>>,
    ) -> Result<(), StorageError> {
        let Some(concurrent) = concurrent else {
            self.clear();
            return Ok(());
        };
        let stored = prefetched.values().flatten().filter(|loaded| loaded.version > 0).count();
        self.store(prefetched, HashMap::new());
        self.apply_concurrent_events(concurrent).inspect_err(|_| self.clear())?;
        self.prefetched = stored;
        Ok(())
    }

    fn apply_concurrent_events(&mut self, events: Vec<ConcurrentEvent>) -> Result<(), StorageError> {
        let Some(accounts) = &mut self.accounts else { return Ok(()) };
        for ConcurrentEvent { stream_id, version, event_type, schema_version, data } in events {
            // A prefetched account may already include this event.
            if let Some(cached) = accounts.peek_mut(&stream_id).filter(|cached| cached.version < version) {
                let event = self.gate.check(stream_id, version, Event::decode(&event_type, schema_version, &data))?;
                match evolve(std::mem::take(cached), version, event) {
                    Ok(after) => *cached = after,
                    // The next command of this account loads the stream, and fails with the reason in the log.
                    Err(_) => drop(accounts.pop(&stream_id)),
                }
            }
        }
        Ok(())
    }

    /// Loads the missing accounts of a batch before the head is locked, because all other instances wait while it is locked.
    /// They are stored only by [`Self::catch_up`], which knows that they belong to the same log.
    ///
    /// # Errors
    /// The database fails, or an event is of a newer release.
    pub(super) async fn prefetch(
        &self,
        connection: &mut PgConnection,
        batch: &[PendingCommand],
    ) -> Result<LoadedAccounts, StorageError> {
        let Some(accounts) = &self.accounts else { return Ok(LoadedAccounts::new()) };
        let needed = batch.iter().flat_map(|pending| pending.command.accounts());
        let missing = needed.filter(|stream_id| !accounts.contains(stream_id)).collect();
        self.fetch(connection, missing).await
    }

    /// The accounts of a batch, from the cache or else from the event store.
    ///
    /// # Errors
    /// The database fails, or an event is of a newer release.
    pub(super) async fn load(
        &mut self,
        connection: &mut PgConnection,
        batch: &[PendingCommand],
    ) -> Result<LoadedAccounts, StorageError> {
        let mut loaded = LoadedAccounts::new();
        let mut missing = BTreeSet::new();
        for stream_id in batch.iter().flat_map(|pending| pending.command.accounts()) {
            match self.accounts.as_mut().and_then(|accounts| accounts.get(&stream_id)) {
                Some(cached) => drop(loaded.insert(stream_id, Ok(cached.clone()))),
                None => drop(missing.insert(stream_id)),
            }
        }
        let prefetched = std::mem::take(&mut self.prefetched).min(loaded.len());
        METRICS.cache_lookups.with_label_values(&["hit"]).inc_by((loaded.len() - prefetched) as u64);
        METRICS.cache_lookups.with_label_values(&["miss"]).inc_by((missing.len() + prefetched) as u64);
        loaded.extend(self.fetch(connection, missing).await?);
        Ok(loaded)
    }

    /// Folds accounts from the event store, with one statement for each partition.
    async fn fetch(&self, connection: &mut PgConnection, ids: BTreeSet<Uuid>) -> Result<LoadedAccounts, StorageError> {
        let _timer = (!ids.is_empty()).then(|| phase("load"));
        let mut loaded: LoadedAccounts = ids.iter().map(|id| (*id, Ok(CachedAccount::default()))).collect();
        let mut by_partition: BTreeMap<i16, Vec<Uuid>> = BTreeMap::new();
        for stream_id in ids {
            by_partition.entry(self.partitions.partition_of(stream_id)).or_default().push(stream_id);
        }
        for (partition, ids) in by_partition {
            let folded = self.fold(connection, partition, &ids, Some(STATE_VERSION)).await?;
            loaded.extend(folded.accounts);
            if !folded.without_snapshot.is_empty() {
                loaded.extend(self.fold(connection, partition, &folded.without_snapshot, None).await?.accounts);
            }
        }
        Ok(loaded)
    }

    /// Folds streams of one partition. With `None` for `state_version` it ignores the snapshots.
    async fn fold(
        &self,
        connection: &mut PgConnection,
        partition: i16,
        ids: &[Uuid],
        state_version: Option<i16>,
    ) -> Result<FoldedStreams, StorageError> {
        let mut folded = FoldedStreams::default();
        let mut pieces = pin!(stream::load(connection, partition, ids, state_version));
        // The time limit is for each row, not for the whole read: a long stream may take longer.
        while let Some((stream_id, piece)) = with_timeout(STATEMENT_TIMEOUT, pieces.try_next()).await? {
            if folded.without_snapshot.last() == Some(&stream_id) {
                continue;
            }
            match piece {
                StreamItem::Snapshot { version, state } => folded.start_from_snapshot(stream_id, version, &state),
                StreamItem::Event { version, event_type, schema_version, data } => {
                    let event = Event::decode(&event_type, schema_version, &data);
                    folded.apply(stream_id, version, self.gate.check(stream_id, version, event)?);
                }
            }
        }
        Ok(folded)
    }
}

/// The result of folding several streams.
#[derive(Default)]
struct FoldedStreams {
    accounts: LoadedAccounts,
    /// Streams whose snapshot cannot be parsed. They are folded again from their first event.
    without_snapshot: Vec<Uuid>,
}

impl FoldedStreams {
    fn start_from_snapshot(&mut self, stream_id: Uuid, version: i64, state: &str) {
        match serde_json::from_str(state) {
            Ok(account) => {
                METRICS.snapshots_used.inc();
                self.accounts.insert(stream_id, Ok(CachedAccount { version, account }));
            }
            Err(error) => {
                tracing::warn!(%stream_id, version, %error, "snapshot cannot be parsed; folding all events of the stream");
                self.without_snapshot.push(stream_id);
            }
        }
    }

    fn apply(&mut self, stream_id: Uuid, version: i64, event: Result<Event, DecodeError>) {
        let before = self.accounts.remove(&stream_id).unwrap_or_else(|| Ok(CachedAccount::default()));
        let after = before.and_then(|before| {
            evolve(before, version, event).map_err(|reason| {
                tracing::error!(%stream_id, reason, "account cannot be folded; its commands fail");
                Undecodable
            })
        });
        self.accounts.insert(stream_id, after);
    }
}

/// The account after the event at `version` of its stream, or the reason why it cannot be folded.
fn evolve(before: CachedAccount, version: i64, event: Result<Event, DecodeError>) -> Result<CachedAccount, String> {
    match event {
        Ok(event) if version == before.version + 1 => {
            Ok(CachedAccount { version, account: before.account.evolve(&event) })
        }
        Ok(_) => Err(format!("version {version} follows version {}", before.version)),
        Err(error) => Err(error.to_string()),
    }
}
