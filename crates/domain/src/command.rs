//! Commands: parsed requests for a change. The state of the account decides whether a command becomes an event.

use std::sync::Arc;

use uuid::Uuid;

use serde::{Deserialize, Serialize};

use crate::money::{Amount, Currency};

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
}

impl Command {
    /// The accounts that the command reads and changes.
    pub fn accounts(&self) -> impl Iterator<Item = Uuid> + use<> {
        let accounts = match self {
            Self::Account { account_id, .. } => [Some(*account_id), None],
            Self::Transfer(transfer) => [Some(transfer.from), Some(transfer.to)],
        };
        accounts.into_iter().flatten()
    }
}

/// A command to one account.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the field names are self-explanatory")]
pub enum AccountCommand {
    /// Opens the account for `owner`. `initial_deposit` is in minor units; only here 0 is allowed.
    Open { owner: Arc<str>, currency: Currency, initial_deposit: i64 },
    /// Deposits money, through a channel if the client names one.
    Deposit(Movement, Option<Channel>),
    /// Withdraws money, through a channel if the client names one.
    Withdraw(Movement, Option<Channel>),
    /// Stops all movements until the account is unfrozen.
    Freeze { reason: Option<String> },
    /// Allows movements again.
    Unfreeze { reason: Option<String> },
    /// Closes the account for good. Its balance must be zero.
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

/// The money that a deposit, withdrawal or transfer moves.
#[derive(Clone, Debug)]
pub struct Movement {
    /// The amount in minor units.
    pub amount: Amount,
    /// The currency that the client expects the account to have; `None`: no expectation.
    pub currency: Option<Currency>,
    /// The client's text for this movement.
    pub reference: Option<String>,
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
