//! Given these events, when this is asked, then that follows.

use passbook_domain::{Account, Action, Event, Rejection, Transfer, transfer};

use crate::words::{FROM, TO};

/// An account with a history.
pub fn given(events: impl IntoIterator<Item = Event>) -> Given {
    Given(fold(events))
}

/// The account that these events leave behind.
pub fn fold(events: impl IntoIterator<Item = Event>) -> Account {
    events.into_iter().fold(Account::default(), |account, event| account.evolve(&event))
}

pub struct Given(Account);

impl Given {
    pub fn when(self, action: Action) -> Outcome<Event> {
        Outcome(self.0.decide(&action))
    }

    /// The account beside another one, for what is asked of both.
    pub fn and(self, other: impl IntoIterator<Item = Event>) -> Both {
        Both { from: self.0, to: fold(other) }
    }
}

pub struct Both {
    from: Account,
    to: Account,
}

impl Both {
    pub fn when(self, transfer: Transfer) -> Outcome<(Event, Event)> {
        assert_eq!((transfer.from, transfer.to), (FROM, TO), "the first account pays the second");
        Outcome(transfer::decide(&self.from, &self.to, &transfer))
    }
}

#[must_use]
pub struct Outcome<E>(Result<E, Rejection>);

impl<E: std::fmt::Debug + PartialEq> Outcome<E> {
    #[track_caller]
    pub fn then(self, expected: E) {
        assert_eq!(self.0, Ok(expected));
    }

    #[track_caller]
    pub fn then_refused(self, expected: Rejection) {
        assert_eq!(self.0, Err(expected));
    }
}
