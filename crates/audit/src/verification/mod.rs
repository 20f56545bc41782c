//! Verifies that the log and everything derived from it are consistent. [`verify`] checks the whole log in one snapshot of the
//! database, `account` checks one account while the service runs.

mod acceptance;
pub(crate) mod account;
mod checked_events;
mod claims;
mod foreign_receipts;
mod hold_arithmetic;
mod log_fold;
mod pinned_head;
mod receipts;
mod report;
mod reversals;
mod snapshot;
mod transfers;
pub(crate) mod unfinished;
mod verifier;
mod views;

pub use account::Verification;
pub use pinned_head::{InvalidPinnedHead, PinnedHead};
pub use report::{Error, Finding, Money, Report};
pub use verifier::verify;
