//! The service: its settings, its HTTP side, and the wiring of the workspace's crates into one process.
//!
//! `docs/ARCHITECTURE.md` names the crates in reading order and follows a deposit, a read and a rebuild through them.

pub mod config;
pub mod documents;
mod hledger;
pub mod http;
pub mod journal;
pub mod service;
