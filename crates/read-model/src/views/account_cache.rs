//! Caches the state of accounts between the batches of a projection, so that a batch reads only accounts that are not cached.
//!
//! A rebuild caches many accounts, so an entry has no memory of its own: the states lie in one table, and the index has four bytes for
//! each of them.

use std::{hash::BuildHasher, num::NonZeroUsize};

use hashbrown::{DefaultHashBuilder, HashTable};
use uuid::Uuid;

use crate::decoded_event::{BATCH_EVENTS_MAX, DecodedEvent, REBUILD_EVENTS_MAX};
use passbook_domain::Event;

/// How many accounts one statement reads before the locks of a batch are taken.
pub(super) const PRELOADED_ACCOUNTS_MAX: usize = 5_000;

/// How many accounts the cache of a view has. Each number must be more than the accounts that a batch can have.
#[derive(Clone, Copy, Debug)]
pub(super) struct CachedAccounts {
    /// Beside the live views.
    pub(super) live: NonZeroUsize,
    /// During a rebuild.
    pub(super) rebuild: NonZeroUsize,
}

impl CachedAccounts {
    pub(super) const fn new(live: usize, rebuild: usize) -> Self {
        let (Some(live_max), Some(rebuild_max)) = (NonZeroUsize::new(live), NonZeroUsize::new(rebuild)) else {
            panic!("a cache has room for at least one account")
        };
        assert!(live as i64 > BATCH_EVENTS_MAX, "the cache is smaller than a batch");
        assert!(rebuild as i64 > REBUILD_EVENTS_MAX, "the cache is smaller than a batch of a rebuild");
        Self { live: live_max, rebuild: rebuild_max }
    }

    pub(super) fn of(self, purpose: Purpose) -> usize {
        match purpose {
            Purpose::Live => self.live.get(),
            Purpose::Rebuild { partitions } => (self.rebuild.get() / partitions.max(1)).max(self.live.get()),
        }
    }
}

/// What the projections of a partition are used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The live views, in every process that serves.
    Live,
    /// Generations that are being built, in as many partitions, which share the memory.
    Rebuild { partitions: usize },
}

/// The cache of one projection. `S::default()` is the state of an account before its first event. When it is full, a new account
/// replaces one that the current batch does not use.
pub(crate) struct AccountCache<S> {
    /// The places of the accounts in `entries`.
    index: HashTable<u32>,
    entries: Vec<Entry<S>>,
    accounts_max: usize,
    hasher: DefaultHashBuilder,
    /// The number of the current batch.
    batch: u32,
    /// The place at which the search for an entry to replace continues.
    next: usize,
}

struct Entry<S> {
    account_id: Uuid,
    /// The last batch that used the account.
    batch: u32,
    state: S,
}

impl<S: Default> AccountCache<S> {
    /// A cache of at most `accounts_max` accounts, which must be more than a batch can have. A batch folds its events into the
    /// cached states, so none of its accounts is replaced before its rows are written.
    pub(crate) fn new(accounts_max: usize) -> Self {
        Self {
            index: HashTable::new(),
            entries: Vec::new(),
            accounts_max: accounts_max.min(u32::MAX as usize),
            hasher: DefaultHashBuilder::default(),
            batch: 0,
            next: 0,
        }
    }

    /// Begins a batch. Returns its accounts whose state must be read before the batch is folded, in ascending order. Events for which
    /// `needs_state` is false do not depend on the state. An account that is opened by the batch has nothing to read.
    pub(crate) fn missing(&mut self, events: &[DecodedEvent], needs_state: impl Fn(&Event) -> bool) -> Vec<Uuid> {
        self.batch = self.batch.wrapping_add(1);
        let mut missing = Vec::new();
        for DecodedEvent { recorded, event, .. } in events {
            if let Some(place) = self.place(&recorded.stream_id) {
                self.entries[place].batch = self.batch;
            } else if recorded.version == 1 {
                self.put(recorded.stream_id, S::default());
            } else if needs_state(event) {
                missing.push(recorded.stream_id);
            }
        }
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    /// Adds the states that were read.
    pub(crate) fn extend(&mut self, states: impl IntoIterator<Item = (Uuid, S)>) {
        for (account_id, state) in states {
            match self.place(&account_id) {
                Some(place) => self.entries[place].state = state,
                None => drop(self.put(account_id, state)),
            }
        }
    }

    /// The state of an account, to fold an event into.
    pub(crate) fn state_mut(&mut self, account_id: Uuid) -> &mut S {
        let place = self.place(&account_id).unwrap_or_else(|| self.put(account_id, S::default()));
        let entry = &mut self.entries[place];
        entry.batch = self.batch;
        &mut entry.state
    }

    /// The state of an account, if it is cached.
    pub(crate) fn peek(&self, account_id: &Uuid) -> Option<&S> {
        Some(&self.entries[self.place(account_id)?].state)
    }

    /// Drops all states, and the memory of a cache that was large.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.accounts_max);
    }

    fn place(&self, account_id: &Uuid) -> Option<usize> {
        let hash = self.hasher.hash_one(account_id);
        let place = self.index.find(hash, |place| self.entries[*place as usize].account_id == *account_id)?;
        Some(*place as usize)
    }

    /// Adds an account that is not cached, and returns its place.
    fn put(&mut self, account_id: Uuid, state: S) -> usize {
        let entry = Entry { account_id, batch: self.batch, state };
        let place = match self.replaceable() {
            Some(place) => {
                let (old, hasher) = (self.entries[place].account_id, &self.hasher);
                if let Ok(entry) = self.index.find_entry(hasher.hash_one(old), |found| *found as usize == place) {
                    entry.remove();
                }
                self.entries[place] = entry;
                place
            }
            None => {
                self.entries.push(entry);
                self.entries.len() - 1
            }
        };
        let (entries, hasher) = (&self.entries, &self.hasher);
        let hash_of = |place: &u32| hasher.hash_one(entries[*place as usize].account_id);
        self.index.insert_unique(hasher.hash_one(account_id), place as u32, hash_of);
        place
    }

    /// The place of an entry that the current batch does not use; `None` while the cache is not full.
    fn replaceable(&mut self) -> Option<usize> {
        let count = self.entries.len();
        if count < self.accounts_max {
            return None;
        }
        let place =
            (0..count).map(|step| (self.next + step) % count).find(|at| self.entries[*at].batch != self.batch)?;
        self.next = (place + 1) % count;
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use passbook_event_store::{RecordedEvent, timestamp};

    use super::*;

    fn event(account: u128, version: i64, event_type: &str, data: &str) -> DecodedEvent {
        DecodedEvent::try_from(RecordedEvent {
            position: version,
            id: Uuid::nil(),
            stream_id: Uuid::from_u128(account),
            version,
            event_type: event_type.to_owned(),
            schema_version: 1,
            data: data.to_owned(),
            recorded_at: timestamp::now(),
        })
        .expect("the event can be decoded")
    }

    #[test]
    fn only_uncached_accounts_with_relevant_events_are_missing() {
        let mut cache = AccountCache::<i64>::new(50_000);
        cache.extend([(Uuid::from_u128(1), 100)]);
        let deposit = r#"{"amount":5}"#;
        let events = [
            event(4, 7, "MoneyDeposited", deposit),
            event(1, 2, "MoneyDeposited", deposit),
            event(2, 1, "AccountOpened", r#"{"owner":"ada","currency":"EUR","initial_deposit":0}"#),
            event(2, 2, "MoneyDeposited", deposit),
            event(3, 5, "AccountFrozen", "{}"),
            event(4, 8, "MoneyDeposited", deposit),
        ];
        let missing = cache.missing(&events, |event| event.balance_change() != 0);
        assert_eq!(missing, [Uuid::from_u128(4)]);
        assert_eq!(cache.peek(&Uuid::from_u128(1)), Some(&100));
        assert_eq!(cache.peek(&Uuid::from_u128(2)), Some(&0), "an account opened by the batch has the default state");
        assert_eq!(cache.peek(&Uuid::from_u128(3)), None);
    }

    #[test]
    fn full_cache_replaces_accounts_that_the_batch_does_not_use() {
        let account = Uuid::from_u128;
        let mut cache = AccountCache::<i64>::new(3);
        cache.extend((1..=3).map(|number| (account(number), number as i64)));
        let deposit = r#"{"amount":5}"#;
        let batch = [event(2, 2, "MoneyDeposited", deposit), event(4, 2, "MoneyDeposited", deposit)];
        assert_eq!(cache.missing(&batch, |_| true), [account(4)]);
        cache.extend([(account(4), 40)]);
        *cache.state_mut(account(5)) += 50;
        let cached = [1, 2, 3, 4, 5].map(|number| cache.peek(&account(number)).copied());
        assert_eq!(cached, [None, Some(2), None, Some(40), Some(50)]);
        // Only accounts of this batch are left, so the cache grows.
        *cache.state_mut(account(6)) += 60;
        assert_eq!((cache.peek(&account(2)), cache.peek(&account(6))), (Some(&2), Some(&60)));
        cache.clear();
        assert_eq!(cache.peek(&account(6)), None);
    }
}
