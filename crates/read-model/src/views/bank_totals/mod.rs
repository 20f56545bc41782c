//! The view of the bank's totals: accounts by status and the sum of balances, one row per currency.

mod check;
pub(crate) mod projection;
mod view;

pub(crate) use projection::read_currencies;
pub(super) use view::opening_currency;
pub use view::{AccountsByStatus, Totals};
