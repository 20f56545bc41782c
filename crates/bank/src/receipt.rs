//! Receipts: the state after a command and the facts recorded. They are response bodies as they stand, and are kept
//! with the idempotency key, so that a retry has the same answer.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use passbook_domain::{Amount, Currency, Status};
use passbook_event_store::Position;
use passbook_event_store::timestamp;

/// The answer to a command that succeeded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Receipt {
    /// Money moved between two accounts.
    Transfer(Box<TransferReceipt>),
    /// One account changed.
    Account(AccountReceipt),
}

/// One account after a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AccountReceipt {
    /// The account.
    pub account_id: Uuid,
    /// The account's version after the command, which is also its ETag.
    #[schema(example = 2, minimum = 1)]
    pub version: i64,
    /// The account's status after the command.
    pub status: Status,
    /// The balance after the command, in minor units.
    #[schema(example = 15000, minimum = 0, maximum = 9007199254740991i64)]
    pub balance: i64,
    /// The account's currency (ISO 4217).
    #[schema(value_type = String, example = "EUR")]
    pub currency: Currency,
    /// How far the log is with this command; pass it as `min_position` to read your own write.
    #[schema(value_type = String, example = "42")]
    pub position: Position,
    /// What was recorded.
    pub events: Vec<RecordedFact>,
}

/// One fact recorded by a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RecordedFact {
    /// The event's id; absent in a dry run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub id: Option<Uuid>,
    /// What happened.
    #[serde(rename = "type")]
    #[schema(example = "MoneyDeposited")]
    pub event_type: String,
    /// The event's place in the account's stream.
    #[schema(example = 2, minimum = 1)]
    pub version: i64,
    /// When; absent in a dry run.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "timestamp::option")]
    #[schema(nullable = false)]
    pub recorded_at: Option<DateTime<Utc>>,
}

/// Both accounts after a transfer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TransferReceipt {
    /// The transfer.
    pub transfer_id: Uuid,
    /// What moved, in minor units.
    #[schema(value_type = i64, example = 500, minimum = 1, maximum = 9007199254740991i64)]
    pub amount: Amount,
    /// The currency of both accounts (ISO 4217).
    #[schema(value_type = String, example = "EUR")]
    pub currency: Currency,
    /// How far the log is with this transfer; pass it as `min_position` to read your own write.
    #[schema(value_type = String, example = "44")]
    pub position: Position,
    /// The account that paid.
    pub from: AccountReceipt,
    /// The account that was paid; of an account that the caller may not see only its id.
    pub to: Counterparty,
}

/// The account that was paid by a transfer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Counterparty {
    /// As the caller may see it.
    Visible(AccountReceipt),
    /// As everybody else may.
    Hidden(HiddenAccount),
}

/// An account that the caller may not see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HiddenAccount {
    /// The account.
    pub account_id: Uuid,
}

impl Receipt {
    /// The account that changed, if it is one alone.
    pub fn account_id(&self) -> Option<Uuid> {
        match self {
            Receipt::Transfer(_) => None,
            Receipt::Account(account) => Some(account.account_id),
        }
    }

    /// The same for somebody who may not see the account that was paid.
    #[must_use]
    pub fn without_receiver(self) -> Self {
        match self {
            Receipt::Transfer(mut transfer) => {
                let account_id = transfer.to.account_id();
                transfer.to = Counterparty::Hidden(HiddenAccount { account_id });
                Receipt::Transfer(transfer)
            }
            Receipt::Account(account) => Receipt::Account(account),
        }
    }

    /// How far the log is with this command.
    pub fn position(&self) -> Position {
        match self {
            Receipt::Transfer(transfer) => transfer.position.clone(),
            Receipt::Account(account) => account.position.clone(),
        }
    }
}

impl Counterparty {
    fn account_id(&self) -> Uuid {
        match self {
            Counterparty::Visible(account) => account.account_id,
            Counterparty::Hidden(account) => account.account_id,
        }
    }
}
