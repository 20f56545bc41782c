//! Commands: parsed requests for a change. The state of the account decides whether a command becomes an event.

use std::sync::Arc;

use uuid::Uuid;

use serde::{Deserialize, Serialize};

use crate::{
    limits::Limits,
    metadata::Metadata,
    money::{Amount, Currency},
    reversal::RecordedMovement,
};

/// A well-formed command that has not been checked against any state yet.
#[derive(Clone, Debug)]
pub enum Command {
    /// A command to one account.
    Account {
        /// The account, which is also its event stream.
        account_id: Uuid,
        /// The command.
        command: AccountCommand,
    },
    /// A transfer between two accounts, in one transaction.
    Transfer(Transfer),
    /// A capture of a hold in favour of another account, in one transaction.
    CaptureTo(CaptureTo),
    /// The reversal of a transfer on both accounts, in one transaction.
    ReverseTransfer(ReverseTransfer),
}

impl Command {
    /// The accounts that the command reads and changes. The first one is the account that the request names; the idempotency key
    /// is stored in its partition.
    pub fn accounts(&self) -> impl Iterator<Item = Uuid> + use<> {
        let accounts = match self {
            Self::Account { account_id, .. } => [Some(*account_id), None],
            Self::Transfer(transfer) => [Some(transfer.from), Some(transfer.to)],
            Self::CaptureTo(capture) => [Some(capture.from), Some(capture.to)],
            Self::ReverseTransfer(reverse) => [Some(reverse.account_id), Some(reverse.counterparty())],
        };
        accounts.into_iter().flatten()
    }
}

/// A command to one account.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the field names are self-explanatory")]
pub enum AccountCommand {
    /// Opens the account for `owner`. `initial_deposit` is in minor units; only here 0 is allowed.
    Open { owner: Arc<str>, currency: Currency, initial_deposit: i64, metadata: Metadata },
    /// Deposits money, through a channel if the client names one.
    Deposit(Movement, Option<Channel>),
    /// Withdraws money, through a channel if the client names one.
    Withdraw(Movement, Option<Channel>),
    /// Sets money aside for a payment.
    PlaceHold(PlaceHold),
    /// Withdraws money of a hold.
    CaptureHold(CaptureHold),
    /// Ends a hold and makes its money available again. `was_placed` is as in [`CaptureHold`].
    VoidHold { hold_id: Uuid, was_placed: bool, reason: Option<String> },
    /// Records the expiry of holds that are over, at most `holds_max`. Causes no event if there are none.
    ReleaseExpired { holds_max: usize },
    /// Pays back a movement of this account alone.
    Reverse(Reverse),
    /// Replaces the overdraft and all limits.
    SetLimits(Limits),
    /// Stops all movements until the account is unfrozen.
    Freeze { reason: Option<String> },
    /// Allows movements again.
    Unfreeze { reason: Option<String> },
    /// Closes the account for good. Its balance must be zero, and it must have no active hold.
    Close { reason: Option<String> },
}

/// Where money was deposited or withdrawn. A further channel needs a new schema version of the events that store it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// In a branch.
    Branch,
    /// At a cash machine.
    Atm,
    /// By the customer, online.
    Online,
}

impl Channel {
    /// The name in JSON and in the read tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Branch => "branch",
            Self::Atm => "atm",
            Self::Online => "online",
        }
    }
}

/// The money that a deposit, withdrawal or transfer moves, or that a hold sets aside.
#[derive(Clone, Debug)]
pub struct Movement {
    /// The amount in minor units.
    pub amount: Amount,
    /// The currency that the client expects the account to have; `None`: no expectation.
    pub currency: Option<Currency>,
    /// The client's text for this movement.
    pub reference: Option<String>,
    /// The client's pairs of texts for this movement.
    pub metadata: Metadata,
}

/// A transfer between two accounts.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// The id that both events of the transfer carry.
    pub transfer_id: Uuid,
    /// The account that is debited.
    pub from: Uuid,
    /// The account that is credited; always another one than `from`.
    pub to: Uuid,
    /// The money that moves.
    pub movement: Movement,
}

/// Sets money aside for a payment.
#[derive(Clone, Debug)]
pub struct PlaceHold {
    /// Makes the id of the hold unique: a random or time-ordered UUID.
    pub unique: Uuid,
    /// The money that is set aside.
    pub movement: Movement,
    /// The seconds until the hold is over, from 1 to [`HOLD_SECONDS_MAX`](crate::holds::HOLD_SECONDS_MAX).
    pub expires_in_seconds: u32,
}

/// Withdraws money of a hold.
#[derive(Clone, Debug)]
pub struct CaptureHold {
    /// The hold.
    pub hold_id: Uuid,
    /// Whether the log has the placement of this hold on the account. The state contains only holds whose end is not recorded.
    pub was_placed: bool,
    /// The amount; `None`: all that the hold has left.
    pub amount: Option<Amount>,
    /// Whether the hold ends, which releases what it has left.
    pub is_final: bool,
    /// The client's text for this capture.
    pub reference: Option<String>,
}

/// Transfers money of a hold to another account.
#[derive(Clone, Debug)]
pub struct CaptureTo {
    /// The id that both events of the transfer carry.
    pub transfer_id: Uuid,
    /// The account of the hold, which is debited.
    pub from: Uuid,
    /// The account that is credited; always another one than `from`.
    pub to: Uuid,
    /// The capture.
    pub capture: CaptureHold,
}

/// Pays back a movement of one account. A transfer is reversed by [`ReverseTransfer`].
#[derive(Clone, Debug)]
pub struct Reverse {
    /// The version that the client names.
    pub version: i64,
    /// The id of the event at this version, read from the log; `None`: the account has no such version.
    pub event_id: Option<Uuid>,
    /// The movement that this event records; `None`: it moves no money, or there is no event.
    pub original: Option<RecordedMovement>,
    /// What was reversed of it so far, in minor units.
    pub reversed: i64,
    /// The amount to reverse; `None`: all that is left.
    pub amount: Option<Amount>,
    /// The client's text for this reversal.
    pub reason: Option<String>,
}

/// One side of a transfer that is reversed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReversedSide {
    /// The account.
    pub account_id: Uuid,
    /// The version of the side's event in the account's stream.
    pub version: i64,
    /// The id of the side's event.
    pub event_id: Uuid,
}

/// Pays back a transfer: from the account that received it to the account that sent it.
#[derive(Clone, Debug)]
pub struct ReverseTransfer {
    /// The account that the request names: that of one of the sides.
    pub account_id: Uuid,
    /// The transfer, read from the log.
    pub transfer_id: Uuid,
    /// The sender's side. It is credited.
    pub sent: ReversedSide,
    /// The receiver's side. It pays back.
    pub received: ReversedSide,
    /// The amount of the transfer.
    pub original: Amount,
    /// What was reversed of the transfer so far, in minor units.
    pub reversed: i64,
    /// The amount to reverse; `None`: all that is left.
    pub amount: Option<Amount>,
    /// The client's text for this reversal.
    pub reason: Option<String>,
}

impl ReverseTransfer {
    /// The side that the request does not name.
    fn counterparty(&self) -> Uuid {
        if self.account_id == self.sent.account_id { self.received.account_id } else { self.sent.account_id }
    }
}
