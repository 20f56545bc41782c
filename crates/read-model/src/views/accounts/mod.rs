//! The view of accounts: one row per account, in its current state.

pub(crate) mod batch_loader;
mod check;
mod list;
pub(crate) mod projection;
mod queries;
mod row;
mod view;

pub use list::{Filter, PageKey};
pub use row::AccountRow;
pub use view::{AccountView, LimitView, LimitsView, ReadAccount, read_live};
