//! The bodies of the commands that open an account, change its status, or set its limits.

use std::sync::Arc;

use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::{
    extract::{
        metadata::MetadataBody,
        parameters::{CurrencyCode, MinorUnits, owner, text, uuid},
    },
    problem::Problem,
};
use passbook_auth::{Caller, Scope};
use passbook_bank::{Bank, CommandContext};
use passbook_domain::{AccountCommand, Command, Limits, Metadata};

/// Opens an account.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenAccount {
    /// The account's currency for life (ISO 4217).
    #[schema(value_type = String, example = "EUR", pattern = "^[A-Z]{3}$")]
    currency: CurrencyCode,
    /// An opaque customer id without personal data; default: the caller.
    #[schema(example = "customer-17", min_length = 1, max_length = 255, pattern = r"^[^\u0000]*$")]
    owner: Option<String>,
    /// The first deposit, in minor units; default: 0.
    #[schema(value_type = Option<i64>, example = 10000, minimum = 0, maximum = 9007199254740991i64)]
    initial_deposit: Option<MinorUnits>,
    /// The account's id; default: a new id.
    #[schema(format = Uuid)]
    account_id: Option<String>,
    /// Pairs of texts of the caller, stored for ever; no personal data.
    #[schema(value_type = Option<Metadata>)]
    metadata: Option<MetadataBody>,
}

impl OpenAccount {
    /// The command. An id or another owner than the caller needs the scope for any account: a chosen id would reveal whether an
    /// account has it.
    pub(super) fn into_command(
        self,
        caller: &Caller,
        context: &CommandContext,
        bank: &Bank,
    ) -> Result<Command, Problem> {
        let has_other_owner = self.owner.as_deref().is_some_and(|owner| *owner != **caller.subject());
        if self.account_id.is_some() || has_other_owner {
            caller.require(Scope::AccountsWriteAny)?;
        }
        let chosen: Option<Uuid> = self.account_id.as_deref().map(|id| uuid("account_id", id)).transpose()?;
        let account_id = chosen.unwrap_or_else(|| bank.new_account_id(context));
        let owner = self.owner.map(owner).transpose()?.map_or_else(|| Arc::clone(caller.subject()), Into::into);
        let initial_deposit = self.initial_deposit.map_or(Ok(0), |deposit| deposit.zero_or_more("initial_deposit"))?;
        let currency = self.currency.currency_in_use()?;
        let metadata = MetadataBody::metadata(self.metadata)?;
        let command = AccountCommand::Open { owner, currency, initial_deposit, metadata };
        Ok(Command::Account { account_id, command })
    }
}

/// The reason for a change of the account's status.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ChangeAccountStatus)]
pub struct Reason {
    /// A text of the caller, stored for ever; no personal data.
    #[schema(example = "lost card", max_length = 500, pattern = r"^[^\u0000]*$")]
    reason: Option<String>,
}

impl Reason {
    pub(super) fn text(self) -> Result<Option<String>, Problem> {
        text("reason", self.reason)
    }
}

/// Replaces the overdraft and all limits of an account. A limit that is left out is removed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetLimits {
    /// How far the balance may go below zero, in minor units; default: 0.
    #[schema(value_type = Option<i64>, example = 20000, minimum = 0, maximum = 9007199254740991i64)]
    overdraft: Option<MinorUnits>,
    /// The largest single withdrawal, transfer out or hold, in minor units; default: no limit.
    #[schema(value_type = Option<i64>, example = 100000, minimum = 0, maximum = 9007199254740991i64)]
    per_movement: Option<MinorUnits>,
    /// What may leave the account in one UTC day, in minor units; default: no limit.
    #[schema(value_type = Option<i64>, example = 200000, minimum = 0, maximum = 9007199254740991i64)]
    out_per_day: Option<MinorUnits>,
    /// What may leave the account in one UTC month, in minor units; default: no limit.
    #[schema(value_type = Option<i64>, example = 1000000, minimum = 0, maximum = 9007199254740991i64)]
    out_per_month: Option<MinorUnits>,
}

impl SetLimits {
    pub(super) fn into_account_command(self) -> Result<AccountCommand, Problem> {
        let limit = |field, sent: Option<MinorUnits>| sent.map(|sent| sent.zero_or_more(field)).transpose();
        Ok(AccountCommand::SetLimits(Limits {
            overdraft: limit("overdraft", self.overdraft)?.unwrap_or(0),
            per_movement: limit("per_movement", self.per_movement)?,
            out_per_day: limit("out_per_day", self.out_per_day)?,
            out_per_month: limit("out_per_month", self.out_per_month)?,
        }))
    }
}
