//! The account aggregate: `decide` checks a command against the state, `evolve` applies an event to it.
//!
//! `evolve` never fails and checks nothing; `decide` checks and changes nothing. Both take the time of the log: `decide` that of the
//! batch, `evolve` that of the event. The state holds only the fields that a decision needs. Everything else belongs to a view.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    command::{AccountCommand, Movement},
    event::{AccountOpened, Event, HoldCaptured, MoneyMoved, StatusChanged},
    holds::{Hold, Holds},
    limits::{Limits, Usage},
    money::{Amount, Currency, MINOR_UNITS_MAX},
    rejection::Rejection,
};

/// The version of [`Account`] in snapshots. Raise it with every change of the serialized form: snapshots of another version
/// are ignored, and the state is folded from the events.
pub const STATE_VERSION: i16 = 2;

/// The state of an account, folded from its events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Account {
    /// No event yet.
    #[default]
    Unopened,
    /// Open, frozen or closed.
    Opened(OpenedAccount),
}

/// The state of an account after its opening.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OpenedAccount {
    /// The customer that owns the account, as an opaque id.
    pub owner: Arc<str>,
    /// Never changes.
    pub currency: Currency,
    /// Open, frozen or closed.
    pub status: Status,
    /// The number of events so far. The id of a hold contains it.
    pub version: i64,
    /// Minor units. Together with the overdraft at most [`MINOR_UNITS_MAX`]; below zero only if an overdraft is or was set.
    pub balance: i64,
    /// The overdraft, and the limits on money that leaves the account.
    pub limits: Limits,
    /// What left the account in the current day and month.
    pub usage: Usage,
    /// The holds whose end is not recorded.
    #[serde(default, skip_serializing_if = "Holds::is_empty")]
    pub holds: Holds,
}

/// The status of an opened account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = AccountStatus)]
pub enum Status {
    /// Money can move.
    Open,
    /// No money moves until the account is unfrozen.
    Frozen,
    /// Final: a closed account is never reopened.
    Closed,
}

impl Status {
    /// The name of the status in JSON and in the read tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Open => "open",
            Status::Frozen => "frozen",
            Status::Closed => "closed",
        }
    }

    /// The status with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Status::Open, Status::Frozen, Status::Closed].into_iter().find(|status| status.as_str() == name)
    }
}

impl Account {
    /// The state after one more event, which was recorded at `recorded_at`.
    #[must_use]
    pub fn evolve(self, event: &Event, recorded_at: DateTime<Utc>) -> Self {
        match (self, event) {
            (Account::Unopened, Event::AccountOpened(opened)) => Account::Opened(OpenedAccount {
                owner: opened.owner.clone(),
                currency: opened.currency,
                status: Status::Open,
                version: 1,
                balance: opened.initial_deposit,
                limits: Limits::default(),
                usage: Usage::default(),
                holds: Holds::default(),
            }),
            // A verified log has no event before the opening.
            (Account::Unopened, _) => Account::Unopened,
            (Account::Opened(opened), event) => Account::Opened(opened.evolve(event, recorded_at)),
        }
    }

    /// The events that the command causes at `now`, the time of the batch. Each line checks in the order of rank.
    ///
    /// # Errors
    /// Why the state refuses the command.
    pub fn decide(&self, command: &AccountCommand, now: DateTime<Utc>) -> Result<Vec<Event>, Rejection> {
        use AccountCommand as Command;
        let account = match (self, command) {
            (Account::Unopened, Command::Open { owner, currency, initial_deposit, metadata }) => {
                let (owner, currency, initial_deposit) = (owner.clone(), *currency, *initial_deposit);
                let opened = AccountOpened { owner, currency, initial_deposit, metadata: metadata.clone() };
                return Ok(vec![Event::AccountOpened(opened)]);
            }
            (Account::Opened(_), Command::Open { .. }) => return Err(Rejection::AccountExists),
            (account, _) => account.opened()?,
        };
        let event = match command {
            Command::Open { .. } => return Err(Rejection::AccountExists),
            Command::Deposit(movement, channel) => {
                account.open_for(movement)?.credit(movement.amount)?;
                Event::MoneyDeposited(MoneyMoved::new(movement, *channel))
            }
            Command::Withdraw(movement, channel) => {
                account.open_for(movement)?.pay_out(movement.amount, now)?;
                Event::MoneyWithdrawn(MoneyMoved::new(movement, *channel))
            }
            Command::PlaceHold(place) => return account.open_for(&place.movement)?.place_hold(place, now),
            Command::CaptureHold(capture) => {
                let (amount, is_final) = account.capture_hold(capture, now)?;
                let (hold_id, reference) = (capture.hold_id, capture.reference.clone());
                Event::HoldCaptured(HoldCaptured { hold_id, amount, is_final, reference })
            }
            Command::VoidHold { hold_id, was_placed, reason } => {
                account.void_hold((*hold_id, *was_placed), reason.as_deref(), now)?
            }
            Command::ReleaseExpired { holds_max } => return Ok(account.holds.expiries(now, *holds_max)),
            Command::Reverse(reverse) => account.reverse(reverse, now)?,
            Command::SetLimits(limits) => {
                account.accept_limits(limits)?;
                Event::LimitsSet(*limits)
            }
            Command::Freeze { reason } => {
                account.must_be_open()?;
                Event::AccountFrozen(StatusChanged { reason: reason.clone() })
            }
            Command::Unfreeze { reason } => {
                account.must_be_frozen()?;
                Event::AccountUnfrozen(StatusChanged { reason: reason.clone() })
            }
            Command::Close { reason } => {
                account.must_be_open()?;
                account.no_active_hold(now)?;
                account.must_be_empty()?;
                let mut events = account.holds.expiries(now, usize::MAX);
                events.push(Event::AccountClosed(StatusChanged { reason: reason.clone() }));
                return Ok(events);
            }
        };
        Ok(vec![event])
    }

    /// The state after the opening.
    ///
    /// # Errors
    /// [`Rejection::AccountNotFound`] before the opening.
    pub fn opened(&self) -> Result<&OpenedAccount, Rejection> {
        match self {
            Account::Unopened => Err(Rejection::AccountNotFound),
            Account::Opened(opened) => Ok(opened),
        }
    }

    /// Whether the account was opened for this owner.
    pub fn belongs_to(&self, owner: &str) -> bool {
        matches!(self, Account::Opened(opened) if *opened.owner == *owner)
    }
}

impl OpenedAccount {
    /// The state after one more event, which was recorded at `recorded_at`.
    #[must_use]
    pub fn evolve(mut self, event: &Event, recorded_at: DateTime<Utc>) -> Self {
        match event {
            // A verified log has no second opening.
            Event::AccountOpened(_) => return self,
            Event::MoneyDeposited(_) | Event::TransferReceived(_) | Event::MovementReversed(_) => {}
            Event::MoneyWithdrawn(withdrawn) => self.usage.add(withdrawn.amount, recorded_at),
            Event::TransferSent(sent) => match sent.hold_id {
                None => self.usage.add(sent.amount, recorded_at),
                Some(hold_id) => self.evolve_hold(hold_id, event, recorded_at),
            },
            Event::HoldPlaced(placed) => {
                self.holds.place(Hold::placed(placed, recorded_at));
                self.usage.add(placed.amount, recorded_at);
            }
            Event::HoldCaptured(captured) => self.evolve_hold(captured.hold_id, event, recorded_at),
            Event::HoldReleased(released) => self.evolve_hold(released.hold_id, event, recorded_at),
            Event::LimitsSet(limits) => self.limits = *limits,
            Event::AccountFrozen(_) => self.status = Status::Frozen,
            Event::AccountUnfrozen(_) => self.status = Status::Open,
            Event::AccountClosed(_) => self.status = Status::Closed,
        }
        self.balance += event.balance_change();
        self.version += 1;
        self
    }

    /// Applies an event to its hold. Limits get back what it releases.
    fn evolve_hold(&mut self, hold_id: uuid::Uuid, event: &Event, recorded_at: DateTime<Utc>) {
        if let Some((hold, released)) = self.holds.apply(hold_id, event) {
            self.usage.give_back(released, hold.placed_at, recorded_at);
        }
    }

    /// The account, if it accepts movements in the currency of `movement`.
    pub(crate) fn open_for(&self, movement: &Movement) -> Result<&Self, Rejection> {
        self.must_be_open()?;
        match movement.currency {
            Some(currency) if currency != self.currency => Err(Rejection::CurrencyMismatch),
            Some(_) | None => Ok(self),
        }
    }

    pub(crate) fn must_be_open(&self) -> Result<(), Rejection> {
        match self.status {
            Status::Open => Ok(()),
            Status::Frozen => Err(Rejection::AccountFrozen),
            Status::Closed => Err(Rejection::AccountClosed),
        }
    }

    pub(crate) fn not_closed(&self) -> Result<(), Rejection> {
        match self.status {
            Status::Open | Status::Frozen => Ok(()),
            Status::Closed => Err(Rejection::AccountClosed),
        }
    }

    fn must_be_frozen(&self) -> Result<(), Rejection> {
        match self.status {
            Status::Open => Err(Rejection::AccountNotFrozen),
            Status::Frozen => Ok(()),
            Status::Closed => Err(Rejection::AccountClosed),
        }
    }

    fn must_be_empty(&self) -> Result<(), Rejection> {
        match self.balance {
            0 => Ok(()),
            balance => Err(Rejection::BalanceNotZero { balance, currency: self.currency }),
        }
    }

    /// Checks that the balance can grow by `amount`: together with the overdraft it stays within the maximum.
    pub(crate) fn credit(&self, amount: Amount) -> Result<(), Rejection> {
        if self.balance + self.limits.overdraft > MINOR_UNITS_MAX - amount.minor_units() {
            return Err(Rejection::BalanceLimitExceeded);
        }
        Ok(())
    }

    /// Checks that `amount` is available.
    pub(crate) fn debit(&self, amount: Amount, now: DateTime<Utc>) -> Result<(), Rejection> {
        let available = self.available(now);
        if available < amount.minor_units() {
            let (balance, currency) = (self.balance, self.currency);
            return Err(Rejection::InsufficientFunds { balance, available: Some(available), amount, currency });
        }
        Ok(())
    }

    /// Checks that `amount` is available and within the limits of the account.
    pub(crate) fn pay_out(&self, amount: Amount, now: DateTime<Utc>) -> Result<(), Rejection> {
        self.debit(amount, now)?;
        self.within_limits(amount, now)
    }
}
