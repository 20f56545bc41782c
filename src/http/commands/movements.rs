//! The bodies of the commands that move money: deposits, withdrawals, transfers and reversals.

use serde::Deserialize;
use utoipa::ToSchema;

use crate::http::{
    error_code::ErrorCode,
    extract::{
        metadata::MetadataBody,
        nested_path::PathTransaction,
        parameters::{CurrencyCode, MinorUnits, channel, text, uuid},
    },
    problem::Problem,
};
use passbook_bank::{Bank, Reversal};
use passbook_domain::{AccountCommand, Channel, Metadata, Transfer, command::Movement};

/// Moves money into or out of an account.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MoveMoney {
    /// The amount, in minor units (12550 is 125.50 EUR).
    #[schema(value_type = i64, example = 500, minimum = 1, maximum = 9007199254740991i64)]
    amount: MinorUnits,
    /// The expected currency of the account; the command is rejected if the account has another one.
    #[schema(value_type = Option<String>, example = "EUR", pattern = "^[A-Z]{3}$")]
    currency: Option<CurrencyCode>,
    /// A text of the caller, stored for ever; no personal data.
    #[schema(example = "invoice 2026-17", max_length = 500, pattern = r"^[^\u0000]*$")]
    reference: Option<String>,
    /// The channel through which the money is paid; default: unknown.
    #[schema(value_type = Option<Channel>, example = "branch")]
    channel: Option<String>,
    /// Pairs of texts of the caller, stored for ever; no personal data.
    #[schema(value_type = Option<Metadata>)]
    metadata: Option<MetadataBody>,
}

impl MoveMoney {
    /// The command that `make_command` makes of the movement and its channel.
    pub(super) fn into_account_command(
        self,
        make_command: impl FnOnce(Movement, Option<Channel>) -> AccountCommand,
    ) -> Result<AccountCommand, Problem> {
        let movement = movement(self.amount, self.currency.as_ref(), self.reference, self.metadata)?;
        Ok(make_command(movement, self.channel.as_deref().map(channel).transpose()?))
    }
}

/// Moves money from one account to another.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TransferMoney {
    /// The account that pays.
    #[schema(format = Uuid)]
    from: String,
    /// The account that is paid.
    #[schema(format = Uuid)]
    to: String,
    /// The amount, in minor units.
    #[schema(value_type = i64, example = 500, minimum = 1, maximum = 9007199254740991i64)]
    amount: MinorUnits,
    /// The expected currency of both accounts; the command is rejected if they have another one.
    #[schema(value_type = Option<String>, example = "EUR", pattern = "^[A-Z]{3}$")]
    currency: Option<CurrencyCode>,
    /// A text of the caller, stored for ever; no personal data.
    #[schema(example = "rent", max_length = 500, pattern = r"^[^\u0000]*$")]
    reference: Option<String>,
    /// Pairs of texts of the caller, stored for ever; no personal data.
    #[schema(value_type = Option<Metadata>)]
    metadata: Option<MetadataBody>,
}

impl TransferMoney {
    pub(super) fn into_transfer(self, bank: &Bank) -> Result<Transfer, Problem> {
        let (from, to) = (uuid("from", &self.from)?, uuid("to", &self.to)?);
        if from == to {
            return Err(Problem::from_code(ErrorCode::SameAccount));
        }
        let movement = movement(self.amount, self.currency.as_ref(), self.reference, self.metadata)?;
        Ok(Transfer { transfer_id: bank.new_transfer_id(from), from, to, movement })
    }
}

/// Pays a transaction back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReverseTransaction {
    /// The amount, in minor units, at most what is left of the transaction; default: all of it.
    #[schema(value_type = Option<i64>, example = 300, minimum = 1, maximum = 9007199254740991i64)]
    amount: Option<MinorUnits>,
    /// A text of the caller, stored for ever; no personal data.
    #[schema(example = "goods returned", max_length = 500, pattern = r"^[^\u0000]*$")]
    reason: Option<String>,
}

impl ReverseTransaction {
    pub(super) fn into_reversal(
        self,
        PathTransaction { account_id, version }: PathTransaction,
    ) -> Result<Reversal, Problem> {
        let amount = self.amount.map(MinorUnits::amount).transpose()?;
        Ok(Reversal { account_id, version, amount, reason: text("reason", self.reason)? })
    }
}

/// A movement from the fields of a body. The amount is validated first.
pub(super) fn movement(
    amount: MinorUnits,
    currency: Option<&CurrencyCode>,
    reference: Option<String>,
    metadata: Option<MetadataBody>,
) -> Result<Movement, Problem> {
    Ok(Movement {
        amount: amount.amount()?,
        currency: currency.map(CurrencyCode::currency).transpose()?,
        reference: text("reference", reference)?,
        metadata: MetadataBody::metadata(metadata)?,
    })
}
