//! The kinds of commands: their names in batches, their scopes, and what their answers depend on.

use axum::http::StatusCode;
use uuid::Uuid;

use passbook_auth::Scope;
use passbook_bank::{AccountReceipt, Receipt};

/// What a command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandKind {
    Open,
    Deposit,
    Withdraw,
    Transfer,
    Freeze,
    Unfreeze,
    Close,
    PlaceHold,
    CaptureHold,
    VoidHold,
    Reverse,
    SetLimits,
}

impl CommandKind {
    /// Every kind.
    pub const ALL: [Self; 12] = [
        Self::Open,
        Self::Deposit,
        Self::Withdraw,
        Self::Transfer,
        Self::Freeze,
        Self::Unfreeze,
        Self::Close,
        Self::PlaceHold,
        Self::CaptureHold,
        Self::VoidHold,
        Self::Reverse,
        Self::SetLimits,
    ];

    /// The value of `command` in a batch.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Deposit => "deposit",
            Self::Withdraw => "withdraw",
            Self::Transfer => "transfer",
            Self::Freeze => "freeze",
            Self::Unfreeze => "unfreeze",
            Self::Close => "close",
            Self::PlaceHold => "place_hold",
            Self::CaptureHold => "capture_hold",
            Self::VoidHold => "void_hold",
            Self::Reverse => "reverse",
            Self::SetLimits => "set_limits",
        }
    }

    /// The kind of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The scope that the command needs.
    pub const fn scope(self) -> Scope {
        match self {
            Self::Open | Self::Deposit | Self::Withdraw | Self::Transfer | Self::Close => Scope::AccountsWrite,
            Self::Freeze | Self::Unfreeze => Scope::AccountsFreeze,
            Self::PlaceHold | Self::CaptureHold | Self::VoidHold => Scope::AccountsHolds,
            Self::Reverse => Scope::AccountsReverse,
            Self::SetLimits => Scope::AccountsLimits,
        }
    }

    /// Whether the command creates a resource, so that its status is 201.
    const fn creates(self) -> bool {
        match self {
            Self::Open
            | Self::Deposit
            | Self::Withdraw
            | Self::Transfer
            | Self::PlaceHold
            | Self::CaptureHold
            | Self::Reverse => true,
            Self::Freeze | Self::Unfreeze | Self::Close | Self::VoidHold | Self::SetLimits => false,
        }
    }
}

/// What the answer to a command depends on, besides its outcome.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// What the command does.
    pub kind: CommandKind,
    /// The account that the path of the single command names.
    pub account_id: Option<Uuid>,
    /// Nothing was recorded.
    pub dry_run: bool,
}

impl Target {
    /// The status of the command if it succeeds.
    pub fn status(self) -> StatusCode {
        if self.kind.creates() && !self.dry_run { StatusCode::CREATED } else { StatusCode::OK }
    }

    /// The account whose version is the ETag of the receipt: the one that changed. Of a command on one account that changed two, it
    /// is the one that the path names. `None` if the path names none, or the caller may not see it.
    pub fn tagged_account(self, receipt: &Receipt) -> Option<&AccountReceipt> {
        match receipt {
            Receipt::Account(account) => Some(account),
            Receipt::Transfer(transfer) => self.account_id.and_then(|account_id| transfer.account(account_id)),
            Receipt::Batch(_) => None,
        }
    }

    /// The path of the resource that the command created. A replayed receipt names the one that the first request created.
    pub fn location(self, receipt: &Receipt) -> Option<String> {
        if self.status() != StatusCode::CREATED {
            return None;
        }
        match (self.kind, receipt) {
            (CommandKind::Open, Receipt::Account(account)) => Some(format!("/v1/accounts/{}", account.account_id)),
            (CommandKind::Transfer, Receipt::Transfer(transfer)) => {
                Some(format!("/v1/transfers/{}", transfer.transfer_id))
            }
            (CommandKind::PlaceHold, Receipt::Account(account)) => {
                let hold = account.hold.as_ref()?;
                Some(format!("/v1/accounts/{}/holds/{}", account.account_id, hold.hold_id))
            }
            (_, Receipt::Account(_) | Receipt::Transfer(_) | Receipt::Batch(_)) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::CommandKind;

    #[test]
    fn every_kind_is_found_by_its_name() {
        for kind in CommandKind::ALL {
            assert_eq!(CommandKind::from_name(kind.name()), Some(kind));
        }
        for unknown in ["", "Open", "openAccount", "deposits", "place-hold"] {
            assert_eq!(CommandKind::from_name(unknown), None, "{unknown}");
        }
    }
}
