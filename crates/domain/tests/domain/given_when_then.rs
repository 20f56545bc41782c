//! Helpers for tests in the form given (past events), when (a command), then (new events or a rejection).

use std::fmt::Debug;

use passbook_domain::{
    Account, AccountCommand, Event, Rejection, Transfer,
    transfer::{self, Side, TransferRejection},
};

use crate::fixtures::{FROM, TO};

/// Begins a test with an account that has these events.
pub fn given(events: impl IntoIterator<Item = Event>) -> Given {
    Given(fold(events))
}

/// Folds events into an account.
pub fn fold(events: impl IntoIterator<Item = Event>) -> Account {
    events.into_iter().fold(Account::default(), |account, event| account.evolve(&event))
}

pub struct Given(Account);

impl Given {
    pub fn when(self, command: AccountCommand) -> Outcome<Event, Rejection> {
        Outcome(self.0.decide(&command))
    }

    /// Adds the receiving account of a transfer.
    pub fn and(self, other: impl IntoIterator<Item = Event>) -> Both {
        Both { from: self.0, to: fold(other) }
    }
}

pub struct Both {
    from: Account,
    to: Account,
}

impl Both {
    pub fn when(self, transfer: Transfer) -> Outcome<(Event, Event), TransferRejection> {
        assert_eq!((transfer.from, transfer.to), (FROM, TO), "the first account must be the sender");
        Outcome(transfer::decide(&self.from, &self.to, &transfer))
    }
}

#[must_use]
pub struct Outcome<E, R>(Result<E, R>);

impl<E: Debug + PartialEq, R: Debug + PartialEq> Outcome<E, R> {
    #[track_caller]
    pub fn then(self, expected: E) {
        assert_eq!(self.0, Ok(expected));
    }
}

impl Outcome<Event, Rejection> {
    #[track_caller]
    pub fn then_rejected(self, expected: Rejection) {
        assert_eq!(self.0, Err(expected));
    }
}

impl Outcome<(Event, Event), TransferRejection> {
    #[track_caller]
    pub fn then_rejected(self, side: Side, rejection: Rejection) {
        assert_eq!(self.0, Err(TransferRejection { rejection, side }));
    }
}
