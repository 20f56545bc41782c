//! Webhooks: operators register endpoints, and the service sends them the events of the log by HTTP, signed, at least once and in order
//! for each account.
//!
//! The log is the outbox. An endpoint is a position in each partition of the log, so nothing is queued in the database, and any position
//! can be read again. [`Webhooks`] has the commands and the queries, [`Worker`] delivers: `worker` claims endpoints, `delivery` reads the
//! log through `shared_log` and keeps events in `queues`, `client` sends them signed by `secret` to a `target` that is allowed.

mod address;
mod client;
mod command_rows;
mod commands;
mod delivery;
mod lag;
mod queues;
mod secret;
mod service;
mod shared_log;
mod store;
mod target;
mod timing;
mod views;
mod worker;

pub use commands::NewWebhook;
pub use service::{Error, Settings, WEBHOOKS_MAX, Webhooks};
pub use target::{InvalidUrl, LookUp, SystemLookUp, Targets, URL_BYTES_MAX};
pub use timing::Timing;
pub use views::{Delivery, Webhook};
pub use worker::Worker;
