//! Helpers for tests in the form given (past events), when (a command), then (new events or a rejection).

use std::fmt::Debug;

use chrono::{DateTime, Utc};
use passbook_domain::{
    Account, AccountCommand, Event, Rejection, Transfer,
    command::{CaptureTo, ReverseTransfer},
    reversal,
    transfer::{self, Side, TransferRejection},
};

use crate::fixtures::{FROM, TO, noon};

/// Begins a test with an account that has these events, recorded at noon.
pub fn given(events: impl IntoIterator<Item = Event>) -> Given {
    Given { account: fold(events), now: noon() }
}

/// Folds events that were recorded at noon into an account.
pub fn fold(events: impl IntoIterator<Item = Event>) -> Account {
    fold_at(events.into_iter().map(|event| (noon(), event)))
}

/// Folds events with their times into an account.
pub fn fold_at(events: impl IntoIterator<Item = (DateTime<Utc>, Event)>) -> Account {
    events.into_iter().fold(Account::default(), |account, (at, event)| account.evolve(&event, at))
}

pub struct Given {
    pub account: Account,
    now: DateTime<Utc>,
}

impl Given {
    /// Decides at this time.
    pub fn at(self, now: DateTime<Utc>) -> Self {
        Self { now, ..self }
    }

    pub fn when(self, command: AccountCommand) -> Outcome<Rejection> {
        Outcome(self.account.decide(&command, self.now))
    }

    /// Adds the receiving account of a transfer.
    pub fn and(self, other: impl IntoIterator<Item = Event>) -> Both {
        Both { from: self.account, to: fold(other), now: self.now }
    }
}

pub struct Both {
    from: Account,
    to: Account,
    now: DateTime<Utc>,
}

impl Both {
    pub fn when(self, transfer: Transfer) -> Outcome<TransferRejection> {
        assert_eq!((transfer.from, transfer.to), (FROM, TO), "the first account must be the sender");
        Outcome::of_both(transfer::decide(&self.from, &self.to, &transfer, self.now))
    }

    pub fn when_captured(self, capture: &CaptureTo) -> Outcome<Rejection> {
        let decided = transfer::decide_capture(&self.from, &self.to, capture, self.now);
        Outcome::of_both(decided.map_err(|refused| refused.rejection))
    }

    pub fn when_reversed(self, reverse: &ReverseTransfer) -> Outcome<Rejection> {
        let decided = reversal::decide_transfer(&self.from, &self.to, reverse, self.now);
        Outcome::of_both(decided.map_err(|refused| refused.rejection))
    }
}

/// The expected events: one, those of both accounts, or several of one account.
pub struct Expected(Vec<Event>);

impl From<Event> for Expected {
    fn from(event: Event) -> Self {
        Self(vec![event])
    }
}

impl From<(Event, Event)> for Expected {
    fn from((of_sender, of_receiver): (Event, Event)) -> Self {
        Self(vec![of_sender, of_receiver])
    }
}

impl<const N: usize> From<[Event; N]> for Expected {
    fn from(events: [Event; N]) -> Self {
        Self(events.into())
    }
}

#[must_use]
pub struct Outcome<R>(Result<Vec<Event>, R>);

impl<R: Debug + PartialEq> Outcome<R> {
    fn of_both(decided: Result<(Event, Event), R>) -> Self {
        Self(decided.map(|(of_sender, of_receiver)| vec![of_sender, of_receiver]))
    }

    #[track_caller]
    pub fn then(self, expected: impl Into<Expected>) {
        assert_eq!(self.0, Ok(expected.into().0));
    }
}

impl Outcome<Rejection> {
    #[track_caller]
    pub fn then_rejected(self, expected: Rejection) {
        assert_eq!(self.0, Err(expected));
    }
}

impl Outcome<TransferRejection> {
    #[track_caller]
    pub fn then_rejected(self, side: Side, rejection: Rejection) {
        assert_eq!(self.0, Err(TransferRejection { rejection, side }));
    }
}
