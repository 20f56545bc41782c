//! The accounts that an executor holds as they were at the log's end, so that a command needs no look at the store. What it
//! lacks is folded from the store, and what others wrote is folded on top of what it holds.

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
    Pending, Settings,
    storage_error::{StorageError, STATEMENT_MAX, within},
    unsupported_event::UnsupportedEventGate,
};
use passbook_domain::{Account, Event, account::STATE_VERSION, event::DecodeError};
use passbook_event_store::{
    Partitions,
    log::Missed,
    stream::{self, Piece},
};
use passbook_telemetry::metrics::{METRICS, phase};

/// When others have written more than this since our last look, everything held is dropped.
pub(super) const CATCH_UP_EVENTS_MAX: i64 = 10_000;

/// An account as this process holds it.
#[derive(Clone, Debug, Default)]
pub(super) struct CachedAccount {
    /// The last version folded in; 0 before the opening.
    pub version: i64,
    /// The fold.
    pub account: Account,
}

/// The accounts that a batch starts from. An error is a stream that cannot be decoded: it fails its own commands only.
pub(super) type Loaded = HashMap<Uuid, Result<CachedAccount, Undecodable>>;

/// The stream's events are not ones that this release understands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Undecodable;

/// What is held of one partition, or nothing where a batch may be over several.
pub(super) struct AccountCache {
    partitions: Partitions,
    held: Option<LruCache<Uuid, CachedAccount>>,
    /// How many accounts were prepared for the batch whose turn it is.
    prepared: usize,
}

impl AccountCache {
    /// Of one partition.
    pub(super) fn of_one(settings: &Settings) -> Self {
        let share = settings.cache_accounts.div_ceil(usize::from(settings.partitions.count().unsigned_abs()));
        let held = LruCache::new(NonZeroUsize::new(share).unwrap_or(NonZeroUsize::MIN));
        Self { partitions: settings.partitions, held: Some(held), prepared: 0 }
    }

    /// Without any memory.
    pub(super) fn none(settings: &Settings) -> Self {
        Self { partitions: settings.partitions, held: None, prepared: 0 }
    }

    /// Nothing held can be trusted.
    pub(super) fn clear(&mut self) {
        if let Some(held) = &mut self.held {
            held.clear();
        }
    }

    /// Holds what a batch that stands read and changed.
    pub(super) fn keep(&mut self, loaded: Loaded, changed: HashMap<Uuid, CachedAccount>) {
        let Some(all) = &mut self.held else { return };
        let read = loaded.into_iter().filter_map(|(stream_id, held)| Some((stream_id, held.ok()?)));
        for (stream_id, held) in read.filter(|(_, held)| held.version > 0).chain(changed) {
            all.put(stream_id, held);
        }
    }

    /// Brings what is held up to the head, behind the lock: by what was `prepared` and what others wrote. `None`: that is too
    /// much, or of a history that does not contain what we saw.
    pub(super) fn catch_up(
        &mut self,
        prepared: Loaded,
        written: Option<Vec<Missed>>,
        newer: &UnsupportedEventGate,
    ) -> Result<(), StorageError> {
        let Some(written) = written else {
            self.clear();
            return Ok(());
        };
        let kept = prepared.values().flatten().filter(|held| held.version > 0).count();
        self.keep(prepared, HashMap::new());
        self.apply_concurrent_events(written, newer).inspect_err(|_| self.clear())?;
        self.prepared = kept;
        Ok(())
    }

    fn apply_concurrent_events(&mut self, written: Vec<Missed>, newer: &UnsupportedEventGate) -> Result<(), StorageError> {
        let Some(held) = &mut self.held else { return Ok(()) };
        for Missed { stream_id, version, event_type, schema_version, data } in written {
            // What was prepared may be newer.
            if let Some(account) = held.peek_mut(&stream_id).filter(|account| account.version < version) {
                let event = newer.read(stream_id, version, Event::decode(&event_type, schema_version, &data))?;
                match evolve(std::mem::take(account), version, event) {
                    Ok(after) => *account = after,
                    // Whoever asks for the account next loads it, and is told.
                    Err(_) => drop(held.pop(&stream_id)),
                }
            }
        }
        Ok(())
    }

    /// Loads what a batch will need before its turn comes: behind the lock everybody waits. It is held only behind the lock,
    /// where it is known to be of the same history.
    pub(super) async fn prepare(
        &self,
        connection: &mut PgConnection,
        batch: &[Pending],
        newer: &UnsupportedEventGate,
    ) -> Result<Loaded, StorageError> {
        let Some(held) = &self.held else { return Ok(Loaded::new()) };
        let lacking = batch.iter().flat_map(|pending| pending.command.accounts());
        let lacking = lacking.filter(|stream_id| !held.contains(stream_id)).collect();
        self.fetch(connection, lacking, newer).await
    }

    /// The accounts of the batch: those held, and the others from the store.
    pub(super) async fn load(
        &mut self,
        connection: &mut PgConnection,
        batch: &[Pending],
        newer: &UnsupportedEventGate,
    ) -> Result<Loaded, StorageError> {
        let mut loaded = Loaded::new();
        let mut lacking = BTreeSet::new();
        for stream_id in batch.iter().flat_map(|pending| pending.command.accounts()) {
            match self.held.as_mut().and_then(|held| held.get(&stream_id)) {
                Some(held) => drop(loaded.insert(stream_id, Ok(held.clone()))),
                None => drop(lacking.insert(stream_id)),
            }
        }
        let prepared = std::mem::take(&mut self.prepared).min(loaded.len());
        METRICS.cache_lookups.with_label_values(&["hit"]).inc_by((loaded.len() - prepared) as u64);
        METRICS.cache_lookups.with_label_values(&["miss"]).inc_by((lacking.len() + prepared) as u64);
        loaded.extend(self.fetch(connection, lacking, newer).await?);
        Ok(loaded)
    }

    /// Accounts folded from the store, in one statement a partition.
    async fn fetch(
        &self,
        connection: &mut PgConnection,
        ids: BTreeSet<Uuid>,
        newer: &UnsupportedEventGate,
    ) -> Result<Loaded, StorageError> {
        let _load = (!ids.is_empty()).then(|| phase("load"));
        let mut loaded: Loaded = ids.iter().map(|stream_id| (*stream_id, Ok(CachedAccount::default()))).collect();
        let mut by_partition: BTreeMap<i16, Vec<Uuid>> = BTreeMap::new();
        for stream_id in ids {
            by_partition.entry(self.partitions.of(stream_id)).or_default().push(stream_id);
        }
        for (partition, ids) in by_partition {
            let unreadable = fold(connection, partition, &ids, Some(STATE_VERSION), newer, &mut loaded).await?;
            if !unreadable.is_empty() {
                fold(connection, partition, &unreadable, None, newer, &mut loaded).await?;
            }
        }
        Ok(loaded)
    }
}

/// Folds streams from the store into `loaded`, and returns those whose snapshot cannot be read: it is a shortcut,
/// and the events are the truth.
async fn fold(
    connection: &mut PgConnection,
    partition: i16,
    ids: &[Uuid],
    state_version: Option<i16>,
    newer: &UnsupportedEventGate,
    loaded: &mut Loaded,
) -> Result<Vec<Uuid>, StorageError> {
    let mut unreadable = Vec::new();
    let mut pieces = pin!(stream::load(connection, partition, ids, state_version));
    // Each piece is bounded in time, and not the whole: a long stream takes as long as it takes.
    while let Some((stream_id, piece)) = within(STATEMENT_MAX, pieces.try_next()).await? {
        if unreadable.last() == Some(&stream_id) {
            continue;
        }
        let before = loaded.remove(&stream_id).unwrap_or_else(|| Ok(CachedAccount::default()));
        let after = match piece {
            Piece::Snapshot { version, state } => match serde_json::from_str(&state) {
                Ok(account) => {
                    METRICS.snapshots_used.inc();
                    Ok(CachedAccount { version, account })
                }
                Err(error) => {
                    tracing::warn!(%stream_id, version, %error, "a snapshot cannot be read");
                    unreadable.push(stream_id);
                    before
                }
            },
            Piece::Event { version, event_type, schema_version, data } => {
                let event = Event::decode(&event_type, schema_version, &data);
                let event = newer.read(stream_id, version, event)?;
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

/// The account after the event at `version` of its stream, or why it cannot be folded.
fn evolve(held: CachedAccount, version: i64, event: Result<Event, DecodeError>) -> Result<CachedAccount, String> {
    match event {
        Ok(event) if version == held.version + 1 => Ok(CachedAccount { version, account: held.account.evolve(&event) }),
        Ok(_) => Err(format!("version {version} follows version {}", held.version)),
        Err(error) => Err(error.to_string()),
    }
}
