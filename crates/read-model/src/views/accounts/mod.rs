//! The view of accounts: one row per account, in its current state.

pub(crate) mod batch_loader;
mod check;
pub(crate) mod projection;
mod queries;
mod view;

pub use queries::{Filter, PageKey};
pub use view::{AccountView, read_live};
