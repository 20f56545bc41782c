//! The view of ledger totals: what was debited and credited to each ledger account, one row per day, currency and ledger account.

mod check;
pub(crate) mod originals;
pub(crate) mod projection;
mod view;

pub use view::{LedgerBalance, TrialBalance};
