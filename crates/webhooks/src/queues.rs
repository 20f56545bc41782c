//! The events of one endpoint that were read from the log and are not delivered, in one queue for each account. An event is sent only
//! after the one before it in its account. An account whose event failed is *parked*: its events wait for the next attempt, and other
//! accounts go on.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use tokio::time::Instant;
use uuid::Uuid;

use crate::shared_log::LogEvent;

/// The events that wait at one endpoint. The log is not read on for it while it has so many.
const WAITING_EVENTS_MAX: usize = 1_000;
/// Their size, in bytes.
const WAITING_BYTES_MAX: usize = 4 * 1024 * 1024;

/// An account in a partition of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Account {
    pub(crate) partition: i16,
    pub(crate) stream_id: Uuid,
}

/// The failures of the first event of an account.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failures {
    pub(crate) count: u32,
    pub(crate) since: DateTime<Utc>,
    pub(crate) next_attempt: Instant,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Arc<LogEvent>>,
    failures: Option<Failures>,
    /// Whether an event failed since the queue was last empty. The stored cursor may have passed those behind it, so the account stays
    /// stored as parked until all of them are delivered.
    is_parked: bool,
    in_flight: bool,
}

/// An account with a failed event, or with events that waited for one, as it is stored.
#[derive(Clone, Debug)]
pub(crate) struct Parked {
    pub(crate) account: Account,
    /// The version of its first event that waits.
    pub(crate) version: i64,
    pub(crate) events: i64,
    pub(crate) failures: Failures,
}

/// The queues of one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    accounts: HashMap<Account, Queue>,
    /// The accounts that can be sent now, in the order in which they became so.
    ready: VecDeque<Account>,
    /// The parked accounts, by the time of their next attempt.
    waiting: BTreeSet<(Instant, Account)>,
    events: usize,
    bytes: usize,
}

impl Queues {
    /// Whether more events can be read.
    pub(crate) fn has_room(&self) -> bool {
        self.events < WAITING_EVENTS_MAX && self.bytes < WAITING_BYTES_MAX
    }

    /// Adds an event behind those of its account.
    pub(crate) fn push(&mut self, account: Account, event: Arc<LogEvent>) {
        (self.events, self.bytes) = (self.events + 1, self.bytes + event.bytes());
        let queue = self.accounts.entry(account).or_default();
        queue.events.push_back(event);
        if queue.events.len() == 1 && !queue.in_flight && queue.failures.is_none() {
            self.ready.push_back(account);
        }
    }

    /// Restores an account that was parked, with its events that wait.
    pub(crate) fn restore(&mut self, account: Account, failures: Failures, events: Vec<Arc<LogEvent>>) {
        if events.is_empty() {
            return;
        }
        self.waiting.insert((failures.next_attempt, account));
        let queue = self.accounts.entry(account).or_default();
        (queue.failures, queue.is_parked) = (Some(failures), true);
        for event in events {
            self.push(account, event);
        }
    }

    /// Takes the next event to send.
    pub(crate) fn next(&mut self, now: Instant) -> Option<(Account, Arc<LogEvent>)> {
        let account = match self.waiting.first().copied() {
            Some(due @ (at, account)) if at <= now => {
                self.waiting.remove(&due);
                account
            }
            Some(_) | None => self.ready.pop_front()?,
        };
        let queue = self.accounts.get_mut(&account)?;
        queue.in_flight = true;
        Some((account, Arc::clone(queue.events.front()?)))
    }

    /// The time of the next attempt of a parked account.
    pub(crate) fn next_attempt(&self) -> Option<Instant> {
        self.waiting.first().map(|(at, _)| *at)
    }

    /// The first event of an account is delivered: the next one can be sent.
    pub(crate) fn delivered(&mut self, account: Account) {
        let Some(queue) = self.accounts.get_mut(&account) else { return };
        (queue.in_flight, queue.failures) = (false, None);
        if let Some(event) = queue.events.pop_front() {
            (self.events, self.bytes) = (self.events - 1, self.bytes - event.bytes());
        }
        match queue.events.is_empty() {
            true => drop(self.accounts.remove(&account)),
            false => self.ready.push_back(account),
        }
    }

    /// The failures of an account so far.
    pub(crate) fn failures(&self, account: Account) -> Option<Failures> {
        self.accounts.get(&account)?.failures
    }

    /// Whether an account is stored as parked.
    pub(crate) fn is_parked(&self, account: Account) -> bool {
        self.accounts.get(&account).is_some_and(|queue| queue.is_parked)
    }

    /// The first event of an account failed: the account is parked.
    pub(crate) fn failed(&mut self, account: Account, failures: Failures) {
        let Some(queue) = self.accounts.get_mut(&account) else { return };
        (queue.in_flight, queue.failures, queue.is_parked) = (false, Some(failures), true);
        self.waiting.insert((failures.next_attempt, account));
    }

    /// Since when the oldest failed event fails.
    pub(crate) fn failing_since(&self) -> Option<DateTime<Utc>> {
        let failures = self.accounts.values().filter_map(|queue| queue.failures);
        failures.filter(|failures| failures.count > 0).map(|failures| failures.since).min()
    }

    /// The position up to which all events of a partition are delivered, but for those of parked accounts. `read` is the position up
    /// to which it was read.
    pub(crate) fn settled(&self, partition: i16, read: i64) -> i64 {
        let unparked =
            self.accounts.iter().filter(|(account, queue)| account.partition == partition && !queue.is_parked);
        let first = unparked.filter_map(|(_, queue)| queue.events.front()).map(|event| event.position - 1).min();
        first.unwrap_or(read)
    }

    /// The parked accounts. One whose first event is no failed one has no failures, and is due at once.
    pub(crate) fn parked(&self) -> Vec<Parked> {
        let due = || Failures { count: 0, since: Utc::now(), next_attempt: Instant::now() };
        let parked = self.accounts.iter().filter(|(_, queue)| queue.is_parked).filter_map(|(account, queue)| {
            let (failures, first) = (queue.failures.unwrap_or_else(due), queue.events.front()?);
            let (version, events) = (first.record.version, queue.events.len() as i64);
            Some(Parked { account: *account, version, events, failures })
        });
        parked.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn account(number: u128) -> Account {
        Account { partition: 0, stream_id: Uuid::from_u128(number) }
    }

    /// Queues with events at positions 1, 2, … of these accounts.
    fn queues(accounts: &[u128]) -> Queues {
        let mut queues = Queues::default();
        for (position, number) in (1..).zip(accounts) {
            queues.push(account(*number), LogEvent::for_test(position, Uuid::from_u128(*number)));
        }
        queues
    }

    fn taken(queues: &mut Queues, now: Instant) -> Vec<i64> {
        std::iter::from_fn(|| queues.next(now)).map(|(_, event)| event.position).collect()
    }

    fn failures(now: Instant) -> Failures {
        Failures { count: 1, since: DateTime::UNIX_EPOCH, next_attempt: now + Duration::from_secs(5) }
    }

    #[test]
    fn an_event_is_taken_only_after_the_one_before_it_in_its_account() {
        let now = Instant::now();
        let mut queues = queues(&[1, 2, 1, 2, 1]);
        assert_eq!(taken(&mut queues, now), [1, 2]);
        queues.delivered(account(1));
        assert_eq!(taken(&mut queues, now), [3]);
        queues.delivered(account(2));
        queues.delivered(account(1));
        assert_eq!(taken(&mut queues, now), [4, 5]);
        queues.delivered(account(2));
        queues.delivered(account(1));
        assert!(queues.events == 0 && queues.bytes == 0 && queues.accounts.is_empty());
    }

    #[test]
    fn a_parked_account_waits_and_others_go_on() {
        let now = Instant::now();
        let mut queues = queues(&[1, 2, 1, 2]);
        assert_eq!(taken(&mut queues, now), [1, 2]);
        queues.failed(account(1), failures(now));
        queues.delivered(account(2));
        assert_eq!(taken(&mut queues, now), [4]);
        // A later event of the parked account waits, too.
        queues.push(account(1), LogEvent::for_test(5, Uuid::from_u128(1)));
        assert_eq!(taken(&mut queues, now), [0; 0]);
        let later = now + Duration::from_secs(6);
        assert_eq!(taken(&mut queues, later), [1]);
        queues.delivered(account(1));
        assert_eq!(taken(&mut queues, later), [3]);
    }

    #[test]
    fn the_settled_position_stops_before_events_that_are_not_stored_as_parked() {
        let now = Instant::now();
        let mut queues = queues(&[1, 2, 1, 3]);
        assert_eq!(queues.settled(0, 4), 0);
        taken(&mut queues, now);
        queues.failed(account(1), failures(now));
        assert_eq!(queues.settled(0, 4), 1);
        queues.delivered(account(2));
        assert_eq!((queues.settled(0, 4), queues.settled(1, 9)), (3, 9));
        queues.delivered(account(3));
        assert_eq!(queues.settled(0, 4), 4);
        let parked = queues.parked();
        assert_eq!((parked.len(), parked[0].version, parked[0].events), (1, 1, 2));
        // Position 4 may be stored, so the next event of the account stays stored as parked until it is delivered.
        assert_eq!(taken(&mut queues, now + Duration::from_secs(6)), [1]);
        queues.delivered(account(1));
        let parked = queues.parked();
        assert_eq!((parked.len(), parked[0].events, parked[0].failures.count), (1, 1, 0));
        assert_eq!((queues.settled(0, 4), queues.failing_since()), (4, None));
        queues.delivered(account(1));
        assert!(queues.parked().is_empty() && !queues.is_parked(account(1)));
    }

    #[test]
    fn reading_stops_while_too_many_events_wait() {
        let accounts: Vec<u128> = (0..WAITING_EVENTS_MAX as u128).collect();
        let mut queues = queues(&accounts);
        assert!(!queues.has_room());
        taken(&mut queues, Instant::now());
        queues.delivered(account(0));
        assert!(queues.has_room());
    }
}
