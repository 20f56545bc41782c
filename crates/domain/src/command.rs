//! What a caller may ask of the bank. A command is a wish; only an event is a fact.

use std::sync::Arc;

use uuid::Uuid;

use super::{
    channel::Channel,
    money::{Amount, Currency},
};

/// A wish, parsed and well-formed, not yet judged against any state.
#[derive(Clone, Debug)]
pub enum Command {
    /// Something asked of one account.
    Account {
        /// The account, which is also its event stream.
        account_id: Uuid,
        /// What is asked of it.
        action: Action,
    },
    /// Money from one account to another, in one transaction.
    Transfer(Transfer),
}

impl Command {
    /// The accounts that it is about.
    pub fn accounts(&self) -> impl Iterator<Item = Uuid> + use<> {
        let accounts = match self {
            Self::Account { account_id, .. } => [Some(*account_id), None],
            Self::Transfer(transfer) => [Some(transfer.from), Some(transfer.to)],
        };
        accounts.into_iter().flatten()
    }
}

/// What may be asked of one account.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields say it by their names")]
pub enum Action {
    /// Open the account for `owner`, with `initial_deposit` in minor units (0 is allowed here alone).
    Open { owner: Arc<str>, currency: Currency, initial_deposit: i64 },
    /// Pay in, through this channel where the caller said one.
    Deposit(Movement, Option<Channel>),
    /// Pay out, likewise.
    Withdraw(Movement, Option<Channel>),
    /// Stop all movements until unfrozen.
    Freeze { reason: Option<String> },
    /// Let money move again.
    Unfreeze { reason: Option<String> },
    /// Close for ever; the balance must be zero.
    Close { reason: Option<String> },
}

/// Money in or out of one account.
#[derive(Clone, Debug)]
pub struct Movement {
    /// How much.
    pub amount: Amount,
    /// The currency that the caller believes the account has, where they said one.
    pub currency: Option<Currency>,
    /// The caller's own words, kept for ever.
    pub reference: Option<String>,
}

/// Money from one account to another.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// The transfer's own id, shared by its two events.
    pub transfer_id: Uuid,
    /// The account that pays.
    pub from: Uuid,
    /// The account that is paid; never the same as `from`.
    pub to: Uuid,
    /// What moves.
    pub movement: Movement,
}
