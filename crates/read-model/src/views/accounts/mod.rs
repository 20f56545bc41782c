//! The view of accounts: one row per account, in its current state.

pub(crate) mod batch_loader;
mod check;
mod list;
pub(crate) mod projection;
mod queries;
mod view;

pub use list::{Filter, PageKey};
pub use view::{AccountView, read_live};
