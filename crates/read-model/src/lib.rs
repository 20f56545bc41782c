//! The read side: projections fold the event log into views, and queries read the views.
//!
//! A [`Projector`] per partition brings the live views up to the head of the log. The [`Rebuilder`] builds further generations of
//! views beside the live ones. [`ReadModel`] answers queries. Each view has a folder in [`views`] with its projection, its check
//! and its queries.

mod account_table;
mod consistency;
mod decoded_event;
mod finality;
mod generation;
mod journal;
mod money_sum;
mod positioned;
mod prefetch;
pub mod projection;
mod projections;
mod projector;
mod query_router;
mod read_model;
pub mod rebuild_command;
mod rebuilder;
mod row_set_hash;
pub mod status;
mod status_queries;
mod view_builder;
pub mod views;

pub use account_table::AccountTable;
pub use decoded_event::DecodedEvent;
pub use finality::{Finality, Moment};
pub use generation::register;
pub use journal::{Journal, JournalEntries, JournalEntry, JournalPeriod, JournalPosting};
pub use money_sum::MoneySum;
pub use positioned::{Page, Positioned};
pub use projector::Projector;
pub use query_router::QueryRouter;
pub use read_model::{Error, PROJECTION_WAIT_MS_MAX, Progress, ReadModel};
pub use rebuilder::Rebuilder;
pub use views::{accounts, bank_totals, daily_balances, holds, ledger_totals, transactions};
