//! Caches the state of accounts between the batches of a projection, so that a batch reads only accounts that are not cached.

use std::num::NonZeroUsize;

use lru::LruCache;
use uuid::Uuid;

use crate::decoded_event::{BATCH_EVENTS_MAX, DecodedEvent};
use passbook_domain::Event;

/// The least recently used cache of one projection. `S::default()` is the state of an account before its first event.
pub(crate) struct AccountCache<S> {
    states: LruCache<Uuid, S>,
}

impl<S: Default> AccountCache<S> {
    /// A cache of at most `accounts_max` accounts, which must be more than a batch can have. A batch folds its events into the
    /// cached states, so none of its accounts may be evicted before its rows are written.
    pub(crate) fn new(accounts_max: NonZeroUsize) -> Self {
        assert!(accounts_max.get() as i64 > BATCH_EVENTS_MAX, "the cache is smaller than a batch");
        Self { states: LruCache::new(accounts_max) }
    }

    /// The accounts of a batch whose state must be read before the batch is folded, in ascending order. Events for which
    /// `needs_state` is false do not depend on the state. An account that is opened by the batch has nothing to read.
    pub(crate) fn missing(&mut self, events: &[DecodedEvent], needs_state: impl Fn(&Event) -> bool) -> Vec<Uuid> {
        let mut missing = Vec::new();
        for DecodedEvent { recorded, event } in events {
            // `get` also marks the account as used, so that the accounts read next do not evict it.
            if self.states.get(&recorded.stream_id).is_some() {
                continue;
            }
            if recorded.version == 1 {
                self.states.put(recorded.stream_id, S::default());
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
            self.states.put(account_id, state);
        }
    }

    /// The state of an account, to fold an event into.
    pub(crate) fn state_mut(&mut self, account_id: Uuid) -> &mut S {
        self.states.get_or_insert_mut(account_id, S::default)
    }

    /// The state of an account, if it is cached.
    pub(crate) fn peek(&self, account_id: &Uuid) -> Option<&S> {
        self.states.peek(account_id)
    }

    /// Drops all states.
    pub(crate) fn clear(&mut self) {
        self.states.clear();
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
        let mut cache = AccountCache::<i64>::new(NonZeroUsize::new(50_000).expect("is not zero"));
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
}
