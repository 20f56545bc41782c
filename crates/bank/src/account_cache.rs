//! Caches the accounts of an executor's partitions at the heads of the log, so that a command needs no read. It folds missing accounts from
//! the event store before any lock is taken, and applies the events of other instances to cached accounts.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    num::NonZeroUsize,
    pin::pin,
};

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use lru::LruCache;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    pending::Pending,
    storage_error::{STATEMENT_TIMEOUT, StorageError},
    unsupported_event::UnsupportedEventGate,
};
use passbook_domain::{Account, DecodeError, Event, account::STATE_VERSION};
use passbook_event_store::{
    Partitions, StreamVersion,
    log::ConcurrentEvent,
    stream::{self, StreamEvent, StreamItem},
    with_timeout,
};
use passbook_telemetry::metrics::{METRICS, phase};

/// If other instances have appended more events than this, the cache is cleared instead of updated.
pub(super) const CATCH_UP_EVENTS_MAX: i64 = 10_000;
/// How many events of other instances are read while the log head is locked.
pub(super) const LOCKED_CATCH_UP_EVENTS_MAX: i64 = 2_000;
/// How many events of each account the first statement of a load reads. Usually all events since the snapshot.
const FIRST_EVENTS_MAX: i64 = 250;
/// How many more events one statement reads of an account that has more.
const SLICE_EVENTS_MAX: i64 = 2_000;
/// How many more events the accounts of one batch may have together. The accounts beyond are [`NotLoaded::TooLong`], so that they
/// delay the other commands by little. The first statement is limited for each account alone.
const FOLD_EVENTS_MAX: i64 = 10_000;

/// The state of an account at one version.
#[derive(Clone, Debug, Default)]
pub(super) struct CachedAccount {
    /// The version of the last event in the fold; 0 for an account that does not exist.
    pub version: i64,
    /// The fold of the events up to `version`.
    pub account: Account,
}

/// The accounts that a batch is decided on. An error concerns the commands of that account only.
pub(super) type LoadedAccounts = HashMap<Uuid, Result<CachedAccount, NotLoaded>>;

/// Why an account has no state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotLoaded {
    /// An event of the stream cannot be decoded or does not follow the event before it.
    Undecodable,
    /// The stream is one of another aggregate: there is no account with this id, and none can be opened.
    OtherAggregate,
    /// The stream has too many events after its snapshot. A separate task folds it first.
    TooLong,
}

/// A least-recently-used cache of accounts. Every state in it is the fold of committed events.
pub(super) struct AccountCache {
    partitions: Partitions,
    gate: UnsupportedEventGate,
    /// `None` for commands that span servers: their accounts also change through the executors of single servers.
    accounts: Option<LruCache<Uuid, CachedAccount>>,
}

impl AccountCache {
    /// A cache of at most `accounts_max` accounts.
    pub(super) fn new(gate: UnsupportedEventGate, partitions: Partitions, accounts_max: usize) -> Self {
        let accounts = LruCache::new(NonZeroUsize::new(accounts_max).unwrap_or(NonZeroUsize::MIN));
        Self { partitions, gate, accounts: Some(accounts) }
    }

    /// A cache that stores nothing.
    pub(super) fn disabled(gate: UnsupportedEventGate, partitions: Partitions) -> Self {
        Self { partitions, gate, accounts: None }
    }

    /// Removes all accounts.
    pub(super) fn clear(&mut self) {
        if let Some(accounts) = &mut self.accounts {
            accounts.clear();
        }
    }

    /// Stores the accounts that a committed batch changed, and those that it loaded and left as they were.
    pub(super) fn store(&mut self, loaded: LoadedAccounts, changed: HashMap<Uuid, CachedAccount>) {
        let Some(accounts) = &mut self.accounts else { return };
        for (stream_id, loaded) in loaded {
            if let Ok(account) = loaded
                && account.version > 0
                && !changed.contains_key(&stream_id)
                && !accounts.contains(&stream_id)
            {
                accounts.put(stream_id, account);
            }
        }
        for (stream_id, account) in changed {
            accounts.put(stream_id, account);
        }
    }

    /// Updates the cache and the prepared accounts to the locked head: applies the events that other instances appended.
    ///
    /// # Errors
    /// An event is of a newer release.
    pub(super) fn catch_up(
        &mut self,
        prepared: &mut LoadedAccounts,
        concurrent: Vec<ConcurrentEvent>,
    ) -> Result<(), StorageError> {
        let applied = self.apply_concurrent_events(prepared, concurrent);
        applied.inspect_err(|_| self.clear())
    }

    fn apply_concurrent_events(
        &mut self,
        prepared: &mut LoadedAccounts,
        events: Vec<ConcurrentEvent>,
    ) -> Result<(), StorageError> {
        let Some(accounts) = &mut self.accounts else { return Ok(()) };
        for ConcurrentEvent { stream_id, version, event_type, schema_version, data, recorded_at } in events {
            let decode = || self.gate.check(stream_id, version, Event::decode(&event_type, schema_version, &data));
            // A prepared account may already include this event.
            if let Some(cached) = accounts.peek_mut(&stream_id).filter(|cached| cached.version < version) {
                match evolve(std::mem::take(cached), version, decode()?, recorded_at) {
                    Ok(after) => *cached = after,
                    // The next command of this account loads the stream, and fails with the reason in the log.
                    Err(_) => drop(accounts.pop(&stream_id)),
                }
            }
            if let Some(loaded) = prepared.get_mut(&stream_id)
                && let Ok(before) = loaded
                && before.version < version
            {
                *loaded =
                    evolve(std::mem::take(before), version, decode()?, recorded_at).map_err(|error| error.reason());
            }
        }
        Ok(())
    }

    /// Updates the prepared accounts to the locked heads of several partitions, by reading what was appended to them meanwhile. No
    /// statement returns more than fits into the buffers of a socket.
    ///
    /// # Errors
    /// The database fails, or an event is of a newer release.
    pub(super) async fn catch_up_prepared(
        &self,
        connection: &mut PgConnection,
        prepared: &mut LoadedAccounts,
    ) -> Result<(), StorageError> {
        let mut by_partition: BTreeMap<i16, Vec<StreamVersion>> = BTreeMap::new();
        for (stream_id, loaded) in prepared.iter() {
            if let Ok(CachedAccount { version, .. }) = *loaded {
                let known = StreamVersion { stream_id: *stream_id, version };
                by_partition.entry(self.partitions.partition_of(*stream_id)).or_default().push(known);
            }
        }
        for (partition, mut known) in by_partition {
            let mut budget = FOLD_EVENTS_MAX;
            loop {
                let reading = stream::locked_events_after(connection, partition, &known);
                let events = with_timeout(STATEMENT_TIMEOUT, reading).await?;
                budget -= events.len() as i64;
                if events.is_empty() {
                    break;
                }
                if budget < 0 {
                    return Err(StorageError::too_far_behind());
                }
                for event in events {
                    if let Some(known) = known.iter_mut().find(|known| known.stream_id == event.stream_id) {
                        known.version = event.version;
                    }
                    self.apply(prepared, event)?;
                }
            }
        }
        Ok(())
    }

    /// Loads the accounts of a batch that are not cached, before any lock is taken. An account with too many events is
    /// [`NotLoaded::TooLong`].
    ///
    /// # Errors
    /// The database fails, or an event is of a newer release.
    pub(super) async fn prepare(
        &self,
        connection: &mut PgConnection,
        batch: &[Pending],
    ) -> Result<LoadedAccounts, StorageError> {
        let needed = batch.iter().flat_map(Pending::accounts);
        let missing = needed.filter(|stream_id| !self.contains(stream_id)).collect();
        self.fetch(connection, missing).await
    }

    /// Whether the state of an account is cached.
    pub(super) fn contains(&self, stream_id: &Uuid) -> bool {
        self.accounts.as_ref().is_some_and(|accounts| accounts.contains(stream_id))
    }

    /// The accounts of a batch, from the cache or else from the prepared accounts. It reads nothing, because a lock may be held.
    pub(super) fn load(&mut self, mut prepared: LoadedAccounts, batch: &[Pending]) -> LoadedAccounts {
        let (mut hits, mut misses) = (0, 0);
        let mut loaded = LoadedAccounts::new();
        for stream_id in batch.iter().flat_map(Pending::accounts) {
            if loaded.contains_key(&stream_id) {
                continue;
            }
            if let Some(account) = prepared.remove(&stream_id) {
                misses += 1;
                loaded.insert(stream_id, account);
            } else if let Some(cached) = self.accounts.as_mut().and_then(|accounts| accounts.get(&stream_id)) {
                hits += 1;
                loaded.insert(stream_id, Ok(cached.clone()));
            }
        }
        METRICS.cache_lookups.with_label_values(&["hit"]).inc_by(hits);
        METRICS.cache_lookups.with_label_values(&["miss"]).inc_by(misses);
        loaded
    }

    /// Folds accounts from the event store, with one statement for each partition. Those with more events take further statements.
    async fn fetch(&self, connection: &mut PgConnection, ids: BTreeSet<Uuid>) -> Result<LoadedAccounts, StorageError> {
        let _timer = (!ids.is_empty()).then(|| phase("load"));
        let mut loaded: LoadedAccounts = ids.iter().map(|id| (*id, Ok(CachedAccount::default()))).collect();
        let mut by_partition: BTreeMap<i16, Vec<Uuid>> = BTreeMap::new();
        for stream_id in ids {
            by_partition.entry(self.partitions.partition_of(stream_id)).or_default().push(stream_id);
        }
        let mut budget = FOLD_EVENTS_MAX;
        for (partition, ids) in by_partition {
            let mut folded = self.fold(connection, partition, &ids, Some(STATE_VERSION)).await?;
            if !folded.without_snapshot.is_empty() {
                let without = self.fold(connection, partition, &folded.without_snapshot, None).await?;
                folded.accounts.extend(without.accounts);
                folded.unfinished.extend(without.unfinished);
            }
            loaded.extend(folded.accounts);
            for stream_id in folded.unfinished {
                self.fold_rest(connection, &mut loaded, StreamInPartition { partition, stream_id }, &mut budget)
                    .await?;
            }
        }
        Ok(loaded)
    }

    /// Folds the further events of one account, as long as `budget` has events left.
    async fn fold_rest(
        &self,
        connection: &mut PgConnection,
        loaded: &mut LoadedAccounts,
        stream: StreamInPartition,
        budget: &mut i64,
    ) -> Result<(), StorageError> {
        let StreamInPartition { partition, stream_id } = stream;
        loop {
            let Some(Ok(CachedAccount { version, .. })) = loaded.get(&stream_id) else { return Ok(()) };
            if *budget <= 0 {
                loaded.insert(stream_id, Err(NotLoaded::TooLong));
                return Ok(());
            }
            let after = StreamVersion { stream_id, version: *version };
            let reading = stream::events_after(connection, partition, after, SLICE_EVENTS_MAX);
            let events = with_timeout(STATEMENT_TIMEOUT, reading).await?;
            let is_last = (events.len() as i64) < SLICE_EVENTS_MAX;
            *budget -= events.len() as i64;
            for event in events {
                self.apply(loaded, event)?;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// Folds one more event into a loaded account.
    fn apply(&self, loaded: &mut LoadedAccounts, event: StreamEvent) -> Result<(), StorageError> {
        let StreamEvent { stream_id, version, event_type, schema_version, data, recorded_at } = event;
        let decoded = self.gate.check(stream_id, version, Event::decode(&event_type, schema_version, &data))?;
        fold_event(loaded, (stream_id, version), decoded, recorded_at);
        Ok(())
    }

    /// Folds the first events of streams of one partition. With `None` for `state_version` it ignores the snapshots.
    async fn fold(
        &self,
        connection: &mut PgConnection,
        partition: i16,
        ids: &[Uuid],
        state_version: Option<i16>,
    ) -> Result<FoldedStreams, StorageError> {
        let mut folded = FoldedStreams::default();
        let mut pieces = pin!(stream::load(connection, partition, ids, state_version, FIRST_EVENTS_MAX));
        let mut events = (Uuid::nil(), 0);
        // The time limit is for each row, not for the whole read.
        while let Some((stream_id, piece)) = with_timeout(STATEMENT_TIMEOUT, pieces.try_next()).await? {
            if folded.without_snapshot.last() == Some(&stream_id) {
                continue;
            }
            match piece {
                StreamItem::Snapshot { version, state } => folded.start_from_snapshot(stream_id, version, &state),
                StreamItem::Event { version, event_type, schema_version, data, recorded_at } => {
                    events = if events.0 == stream_id { (stream_id, events.1 + 1) } else { (stream_id, 1) };
                    let event = Event::decode(&event_type, schema_version, &data);
                    let event = self.gate.check(stream_id, version, event)?;
                    fold_event(&mut folded.accounts, (stream_id, version), event, recorded_at);
                    if events.1 == FIRST_EVENTS_MAX {
                        folded.unfinished.push(stream_id);
                    }
                }
            }
        }
        Ok(folded)
    }
}

/// A stream, and the partition that contains it.
#[derive(Clone, Copy)]
struct StreamInPartition {
    partition: i16,
    stream_id: Uuid,
}

/// The result of folding several streams.
#[derive(Default)]
struct FoldedStreams {
    accounts: LoadedAccounts,
    /// Streams whose snapshot cannot be parsed. They are folded again from their first event.
    without_snapshot: Vec<Uuid>,
    /// Streams that may have more events.
    unfinished: Vec<Uuid>,
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
}

/// Folds one more event into an account.
fn fold_event(
    loaded: &mut LoadedAccounts,
    (stream_id, version): (Uuid, i64),
    event: Result<Event, DecodeError>,
    recorded_at: DateTime<Utc>,
) {
    let before = loaded.remove(&stream_id).unwrap_or_else(|| Ok(CachedAccount::default()));
    let after = before.and_then(|before| {
        evolve(before, version, event, recorded_at).map_err(|error| {
            if let FoldError::Damaged(reason) = &error {
                tracing::error!(%stream_id, reason, "account cannot be folded; its commands fail");
            }
            error.reason()
        })
    });
    loaded.insert(stream_id, after);
}

/// Why an event cannot be folded into an account.
pub(super) enum FoldError {
    /// It is one of another aggregate.
    OtherAggregate,
    /// It cannot be decoded, or does not follow the event before it.
    Damaged(String),
}

impl FoldError {
    fn reason(&self) -> NotLoaded {
        match self {
            Self::OtherAggregate => NotLoaded::OtherAggregate,
            Self::Damaged(_) => NotLoaded::Undecodable,
        }
    }
}

/// The account after the event at `version` of its stream, or the reason why it cannot be folded.
pub(super) fn evolve(
    before: CachedAccount,
    version: i64,
    event: Result<Event, DecodeError>,
    recorded_at: DateTime<Utc>,
) -> Result<CachedAccount, FoldError> {
    match event {
        Ok(event) if version == before.version + 1 => {
            Ok(CachedAccount { version, account: before.account.evolve(&event, recorded_at) })
        }
        Ok(_) => Err(FoldError::Damaged(format!("version {version} follows version {}", before.version))),
        Err(error) if error.is_of_other_aggregate() => Err(FoldError::OtherAggregate),
        Err(error) => Err(FoldError::Damaged(error.to_string())),
    }
}
