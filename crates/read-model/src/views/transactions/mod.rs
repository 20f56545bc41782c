//! The view of transactions: one row per event of an account, with the state of the account after it. The rows that moved money
//! are the account's transactions; all rows together are its history.

mod check;
pub(crate) mod projection;
mod row;
mod search;
pub mod statement;
mod statement_check;
mod transfer;
pub(super) mod versions;
mod view;

pub(crate) use row::{Details, kind};
pub use search::{AccountTransactionView, LogKey, SearchFilter};
pub use statement_check::Totals;
pub use transfer::TransferView;
pub use view::{Filter, Kind, TransactionView};
