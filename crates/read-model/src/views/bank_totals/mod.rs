//! The view of the bank's totals: accounts by status and the sum of balances, one row per currency.

mod check;
pub(crate) mod projection;
mod view;

pub(super) use projection::read_currencies;
pub use view::{AccountsByStatus, Totals};
