//! The view of daily balances: one row per account and day on which money moved.

mod check;
pub(crate) mod projection;
mod view;

pub use view::{DailyBalance, Period};
