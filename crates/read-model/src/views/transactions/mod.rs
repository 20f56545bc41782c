//! The view of transactions: one row per event of an account, with the state of the account after it. The rows that moved money
//! are the account's transactions; all rows together are its history.

mod check;
mod found;
pub(crate) mod projection;
mod row;
mod search;
pub mod statement;
mod statement_check;
mod transfer;
pub(super) mod versions;
mod view;

pub use found::{AccountTransactionView, LogKey};
pub(crate) use row::{Details, kind};
pub use search::SearchFilter;
pub use statement_check::Totals;
pub use transfer::TransferView;
pub use view::{Filter, Kind, TransactionView};
