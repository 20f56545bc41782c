//! The HTTP side of the service. [`serve`] accepts connections and serves the routes of `router.rs`.
//!
//! A request passes the layers in `middleware/`, the extractors in `extract/`, and the handler of its resource. Handlers return
//! a response of `response.rs` or a problem of `problem.rs`.

mod account_status;
mod accounts;
mod batches;
mod books;
mod checkpoints;
mod commands;
mod connection;
mod connection_timeouts;
mod console;
mod currencies;
mod daily_balances;
mod documents;
mod error_code;
mod error_mapping;
mod event_stream;
mod events;
mod extract;
mod header_names;
mod health;
mod holds;
mod limits;
mod metrics;
mod middleware;
mod movements;
mod openapi;
mod overview;
mod problem;
mod projections;
#[cfg(test)]
mod property_tests;
mod rate_limiter;
mod response;
mod reversals;
mod router;
mod server;
mod shares;
mod sign_in;
mod state;
mod statement;
mod static_content;
mod swagger_ui;
mod transactions;
mod transfers;
mod unread_body;
mod verification;
mod webhooks;

pub use error_code::{ErrorCode, ErrorSpec};
pub use extract::{client_ip::TrustedProxies, parameters::calendar_date};
pub use metrics::serve_metrics;
pub use rate_limiter::RateLimiter;
pub use router::{BODY_BYTES_MAX, openapi_json};
pub use server::serve;
pub use sign_in::SignIn;
pub use state::{AppState, Services};
