//! The bodies of the commands that place, capture and void holds.

use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::movements::movement;
use crate::http::{
    error_code::ErrorCode,
    extract::{
        metadata::MetadataBody,
        nested_path::PathHold,
        parameters::{CurrencyCode, MinorUnits, text, uuid},
    },
    problem::Problem,
};
use passbook_bank::Bank;
use passbook_domain::{
    AccountCommand, Command, Metadata,
    command::{CaptureHold, CaptureTo, PlaceHold},
    holds::{HOLD_SECONDS_DEFAULT, HOLD_SECONDS_MAX},
};

/// Sets money aside for a payment.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PlaceHold)]
pub struct PlaceHoldBody {
    /// The amount, in minor units.
    #[schema(value_type = i64, example = 500, minimum = 1, maximum = 9007199254740991i64)]
    amount: MinorUnits,
    /// The expected currency of the account; the command is rejected if the account has another one.
    #[schema(value_type = Option<String>, example = "EUR", pattern = "^[A-Z]{3}$")]
    currency: Option<CurrencyCode>,
    /// The seconds until the hold expires, at most 365 days; default: 604800 (7 days).
    #[schema(example = 604800, minimum = 1, maximum = 31536000)]
    expires_in_seconds: Option<i64>,
    /// A text of the caller, stored for ever; no personal data.
    #[schema(example = "order 2026-17", max_length = 500, pattern = r"^[^\u0000]*$")]
    reference: Option<String>,
    /// Pairs of texts of the caller, stored for ever; no personal data.
    #[schema(value_type = Option<Metadata>)]
    metadata: Option<MetadataBody>,
}

impl PlaceHoldBody {
    pub(super) fn into_account_command(self) -> Result<AccountCommand, Problem> {
        let movement = movement(self.amount, self.currency.as_ref(), self.reference, self.metadata)?;
        let expires_in_seconds = expiry_seconds(self.expires_in_seconds)?;
        Ok(AccountCommand::PlaceHold(PlaceHold { unique: Uuid::now_v7(), movement, expires_in_seconds }))
    }
}

/// The seconds until a hold expires.
fn expiry_seconds(sent: Option<i64>) -> Result<u32, Problem> {
    let Some(sent) = sent else { return Ok(HOLD_SECONDS_DEFAULT) };
    let seconds = u32::try_from(sent).ok().filter(|seconds| (1..=HOLD_SECONDS_MAX).contains(seconds));
    seconds.ok_or_else(|| {
        let detail = format!("expires_in_seconds must be from 1 to {HOLD_SECONDS_MAX}.");
        Problem::invalid_parameter("expires_in_seconds", detail)
    })
}

/// Takes money of a hold.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CaptureHold)]
pub struct CaptureHoldBody {
    /// The amount, in minor units, at most what the hold has left; default: all of it.
    #[schema(value_type = Option<i64>, example = 300, minimum = 1, maximum = 9007199254740991i64)]
    amount: Option<MinorUnits>,
    /// Whether the hold ends, which releases what it has left; default: `true`.
    #[serde(rename = "final")]
    is_final: Option<bool>,
    /// The account that is paid; default: the money is paid out.
    #[schema(format = Uuid)]
    to: Option<String>,
    /// A text of the caller, stored for ever; no personal data.
    #[schema(example = "parcel 1", max_length = 500, pattern = r"^[^\u0000]*$")]
    reference: Option<String>,
}

impl CaptureHoldBody {
    pub(super) fn into_command(
        self,
        PathHold { account_id, hold_id }: PathHold,
        bank: &Bank,
    ) -> Result<Command, Problem> {
        let amount = self.amount.map(MinorUnits::amount).transpose()?;
        let to = self.to.as_deref().map(|to| uuid("to", to)).transpose()?;
        if to == Some(account_id) {
            let detail =
                "`to` must be another account than the one that the hold is on. Leave it out to pay the money out.";
            return Err(Problem::field(ErrorCode::SameAccount, "to", detail));
        }
        let reference = text("reference", self.reference)?;
        let is_final = self.is_final.unwrap_or(true);
        // The write side reads from the log whether the hold was placed.
        let capture = CaptureHold { hold_id, was_placed: false, amount, is_final, reference };
        Ok(match to {
            None => Command::Account { account_id, command: AccountCommand::CaptureHold(capture) },
            Some(to) => {
                let transfer_id = bank.new_transfer_id(account_id);
                Command::CaptureTo(CaptureTo { transfer_id, from: account_id, to, capture })
            }
        })
    }
}

/// Ends a hold.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = VoidHold)]
pub struct VoidHoldBody {
    /// A text of the caller, stored for ever; no personal data.
    #[schema(example = "order cancelled", max_length = 500, pattern = r"^[^\u0000]*$")]
    reason: Option<String>,
}

impl VoidHoldBody {
    pub(super) fn into_account_command(self, hold_id: Uuid) -> Result<AccountCommand, Problem> {
        let reason = text("reason", self.reason)?;
        // The write side reads from the log whether the hold was placed.
        Ok(AccountCommand::VoidHold { hold_id, was_placed: false, reason })
    }
}
