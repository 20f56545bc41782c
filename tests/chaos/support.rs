//! The log audit of the API tests, applied to the database of a testbed.

#[path = "../api/support/audit.rs"]
pub mod audit;
#[path = "../api/support/log.rs"]
pub mod log;

pub use crate::{eventually, testbed::Testbed as App};
