//! Receipts: the state after a command and the recorded events. A receipt is the body of the response, and is stored with the
//! idempotency key, so that a retry gets the same body. A refusal by the state is stored in the same way. Stored outcomes must stay
//! readable: never change the JSON.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::hold_receipt::HoldReceipt;
use passbook_domain::{Amount, Currency, EventType, Rejection, Status, transfer::Side};
use passbook_event_store::Position;
use passbook_event_store::timestamp;

/// The outcome that is recorded under an idempotency key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RecordedOutcome {
    /// The state refused the command. Nothing but the key was recorded.
    Refused(RecordedRefusal),
    /// The command succeeded.
    Succeeded(Receipt),
}

/// A refusal by the state, as it is recorded under an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedRefusal {
    /// The account whose partition stores the key: that of the command, the sender of a transfer, or that of a batch's first command.
    pub account_id: Uuid,
    /// Why the command was refused.
    pub refused: RefusedBecause,
    /// The index of the refused command, if the key is that of a batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
    /// `true` if the caller could see the receiver of the transfer, so that the reason may be a fact about that account.
    #[serde(default, skip_serializing_if = "is_false")]
    pub saw_receiver: bool,
    /// The account that the reason is about; the sender unless it is that of a transfer.
    #[serde(default, skip_serializing_if = "is_sender")]
    pub side: Side,
    /// The account that the reason is about, if the command does not name it: it reverses a transfer of the same batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<Uuid>,
}

/// Why the state refused a command, as it is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusedBecause {
    /// The state of an account did not allow the command, or the caller could not see the account.
    Rejected(Rejection),
    /// `If-Match` named another version than the account had.
    VersionMismatch {
        /// The account's version at that time.
        current: i64,
    },
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_sender(side: &Side) -> bool {
    *side == Side::Sender
}

/// The receipt of a command that succeeded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Receipt {
    /// Money moved between two accounts.
    Transfer(Box<TransferReceipt>),
    /// The commands of a batch were executed, in one transaction.
    Batch(BatchReceipt),
    /// One account changed.
    Account(AccountReceipt),
}

/// The receipt of a batch of which all or none is executed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BatchReceipt {
    /// The id of the batch, which the metadata of its events contain.
    pub batch_id: Uuid,
    /// The position of the batch in the log. Pass it as `min_position` to read your own writes.
    pub position: Position,
    /// The receipt of each command, in order.
    pub results: Vec<Receipt>,
}

/// One account after a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AccountReceipt {
    /// The id of the account.
    pub account_id: Uuid,
    /// The account's version after the command, which is also its ETag.
    #[schema(example = 2, minimum = 1)]
    pub version: i64,
    /// The account's status after the command.
    pub status: Status,
    /// The balance after the command, in minor units; negative if the overdraft is used.
    #[schema(example = 15000, minimum = -9007199254740991i64, maximum = 9007199254740991i64)]
    pub balance: i64,
    /// The balance less active holds plus the overdraft, in minor units. A receipt that was recorded before accounts had holds has
    /// no value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 14500)]
    pub available: Option<i64>,
    /// The account's currency (ISO 4217).
    #[schema(value_type = String, example = "EUR")]
    pub currency: Currency,
    /// The position of the command in the log. Pass it as `min_position` to read your own write.
    #[schema(value_type = String)]
    pub position: Position,
    /// The recorded events.
    pub events: Vec<RecordedFact>,
    /// The hold that the command placed, captured or voided; absent from receipts of other commands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub hold: Option<HoldReceipt>,
}

/// An event recorded by a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = RecordedEvent)]
pub struct RecordedFact {
    /// The event's id; absent in a dry run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub id: Option<Uuid>,
    /// The type of the event.
    #[serde(rename = "type")]
    #[schema(example = "MoneyDeposited")]
    pub event_type: String,
    /// The event's version in the account's stream.
    #[schema(example = 2, minimum = 1)]
    pub version: i64,
    /// When the event was recorded; absent in a dry run.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "timestamp::option")]
    #[schema(nullable = false)]
    pub recorded_at: Option<DateTime<Utc>>,
}

/// Both accounts after a transfer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TransferReceipt {
    /// The id of the transfer.
    pub transfer_id: Uuid,
    /// The transferred amount, in minor units.
    #[schema(value_type = i64, example = 500, minimum = 1, maximum = 9007199254740991i64)]
    pub amount: Amount,
    /// The currency of both accounts (ISO 4217).
    #[schema(value_type = String, example = "EUR")]
    pub currency: Currency,
    /// The position of the transfer in the log. Pass it as `min_position` to read your own write.
    #[schema(value_type = String)]
    pub position: Position,
    /// The sender's account.
    pub from: AccountReceipt,
    /// The receiver's account; only its id if the caller may not see the account.
    pub to: Counterparty,
    /// The hold that the transfer captured; absent from receipts of other transfers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub hold: Option<HoldReceipt>,
}

impl TransferReceipt {
    /// The account with this id; `None` if it has no part in the transfer, or the caller may not see it.
    pub fn account(&self, account_id: Uuid) -> Option<&AccountReceipt> {
        let to = match &self.to {
            Counterparty::Visible(account) => Some(account),
            Counterparty::Hidden(_) => None,
        };
        [Some(&self.from), to].into_iter().flatten().find(|account| account.account_id == account_id)
    }

    /// The account that is not this one.
    pub(super) fn other_than(&self, account_id: Uuid) -> Uuid {
        match self.from.account_id == account_id {
            true => self.to.account_id(),
            false => self.from.account_id,
        }
    }

    /// Whether this is the receipt of a reversal. `from` is then the account that pays back.
    pub fn is_reversal(&self) -> bool {
        let mut events = self.from.events.iter();
        events.any(|fact| fact.event_type == EventType::MovementReversed.name())
    }
}

/// The receiver's account of a transfer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Counterparty {
    /// The caller may see the account.
    Visible(AccountReceipt),
    /// The caller may not see the account.
    Hidden(HiddenAccount),
}

/// An account that the caller may not see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HiddenAccount {
    /// The id of the account.
    pub account_id: Uuid,
}

impl Receipt {
    /// The account that changed; `None` for a transfer or a batch, which changes several.
    pub fn account_id(&self) -> Option<Uuid> {
        match self {
            Receipt::Transfer(_) | Receipt::Batch(_) => None,
            Receipt::Account(account) => Some(account.account_id),
        }
    }

    /// The hold that the command placed, captured or voided.
    pub fn hold(&self) -> Option<&HoldReceipt> {
        match self {
            Receipt::Batch(_) => None,
            Receipt::Transfer(transfer) => transfer.hold.as_ref(),
            Receipt::Account(account) => account.hold.as_ref(),
        }
    }

    /// The receipt for a caller who may not see this account, if it is the receiver of the money.
    #[must_use]
    pub(super) fn without_receiver(mut self, account_id: Uuid) -> Self {
        if let Receipt::Transfer(transfer) = &mut self
            && transfer.to.account_id() == account_id
        {
            transfer.to = Counterparty::Hidden(HiddenAccount { account_id });
        }
        self
    }

    /// The number of events that the command recorded on the account that it names, or the sum of a batch.
    pub(super) fn event_count(&self) -> u64 {
        match self {
            Receipt::Transfer(transfer) => transfer.from.events.len() as u64,
            Receipt::Batch(batch) => batch.results.iter().map(Receipt::event_count).sum(),
            Receipt::Account(account) => account.events.len() as u64,
        }
    }

    /// The position of the command in the log.
    pub fn position(&self) -> Position {
        match self {
            Receipt::Transfer(transfer) => transfer.position.clone(),
            Receipt::Batch(batch) => batch.position.clone(),
            Receipt::Account(account) => account.position.clone(),
        }
    }
}

impl Counterparty {
    /// The id of the account.
    pub fn account_id(&self) -> Uuid {
        match self {
            Counterparty::Visible(account) => account.account_id,
            Counterparty::Hidden(account) => account.account_id,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_refusals_are_parsed_from_their_stored_json() {
        let account_id = Uuid::from_u128(1);
        let eur: Currency = serde_json::from_str("\"EUR\"").expect("a currency");
        let amount = Amount::try_from(5).expect("an amount");
        let stored = [
            (
                RefusedBecause::Rejected(Rejection::InsufficientFunds {
                    balance: 1,
                    available: None,
                    amount,
                    currency: eur,
                }),
                r#"{"rejected":{"code":"insufficient_funds","balance":1,"amount":5,"currency":"EUR"}}"#,
            ),
            (RefusedBecause::Rejected(Rejection::AccountNotFound), r#"{"rejected":{"code":"account_not_found"}}"#),
            (RefusedBecause::VersionMismatch { current: 7 }, r#"{"version_mismatch":{"current":7}}"#),
        ];
        for (refused, json) in stored {
            for (side, saw_receiver, members) in
                [(Side::Sender, false, ""), (Side::Receiver, true, r#","saw_receiver":true,"side":"receiver""#)]
            {
                let outcome = RecordedOutcome::Refused(RecordedRefusal {
                    account_id,
                    refused,
                    index: None,
                    saw_receiver,
                    side,
                    about: None,
                });
                let json = format!(r#"{{"account_id":"{account_id}","refused":{json}{members}}}"#);
                assert_eq!(serde_json::to_string(&outcome).expect("JSON"), json);
                assert_eq!(serde_json::from_str::<RecordedOutcome>(&json).expect("an outcome"), outcome);
            }
        }
    }
}
