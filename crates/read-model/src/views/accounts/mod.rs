//! The view of accounts: one row per account, in its current state.

pub(crate) mod batch_loader;
mod check;
pub(crate) mod filter;
mod list;
pub(crate) mod projection;
mod queries;
mod row;
mod sorted;
mod view;

pub use filter::{Filter, SearchText};
pub use list::PageKey;
pub use row::AccountRow;
pub use sorted::{SORTED_ACCOUNTS_MAX, Sort, SortBy, SortKey};
pub use view::{AccountView, LimitView, LimitsView, ReadAccount, read_live};
