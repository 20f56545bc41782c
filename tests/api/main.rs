//! The bank from outside: real servers on real databases, one behaviour area a file.
//!
//! Every test has a database of its own, cloned from a migrated template; the cluster behind them is shared by the run.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod account_view;
mod as_of;
mod auth_scopes;
mod cross_site_requests;
mod auth_ownership;
mod auth_provider;
mod auth_tokens;
mod invalid_input;
mod batch_failures;
mod hash_chain;
mod citus;
mod commands;
mod if_match;
mod repartition;
mod daily_balances;
mod dry_run;
mod event_log;
mod event_feed;
mod idempotency;
mod new_views;
mod rate_limit;
mod mixed_load;
mod malformed_http;
mod newer_release;
mod outage;
mod overview;
mod partitions;
mod read_your_writes;
mod previous_release;
mod projector;
mod races;
mod rebuild;
mod refusals;
mod service;
mod snapshots;
mod statement;
mod statement_stream;
mod support;
mod tampering;
mod transaction_view;
mod transfers;
mod two_instances;
