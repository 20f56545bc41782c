//! The bank from outside: real servers on real databases, one behaviour area a file.
//!
//! Every test has a database of its own, cloned from a migrated template; the cluster behind them is shared by the run.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod account_view;
mod as_of;
mod auth;
mod auth_open;
mod auth_ownership;
mod auth_provider;
mod auth_tokens;
mod bad_input;
mod bad_rows;
mod chain;
mod citus;
mod commands;
mod conditions;
mod copying;
mod daily_balances;
mod dry_run;
mod events;
mod feed;
mod idempotency;
mod later_views;
mod limits;
mod load;
mod malformed;
mod newer_release;
mod outage;
mod overview;
mod partitions;
mod positions;
mod previous_release;
mod projecting;
mod races;
mod rebuilding;
mod refusals;
mod service;
mod snapshots;
mod statement;
mod statement_stream;
mod support;
mod tampering;
mod transaction_view;
mod transfers;
mod two_servers;
