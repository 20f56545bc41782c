//! The auditor of the API's tests, at the database of a site.

#[path = "../api/support/audit.rs"]
pub mod audit;
#[path = "../api/support/log.rs"]
pub mod log;

pub use crate::{eventually, site::Site as App};
