//! The bank from outside: real servers on real databases, one behaviour area a file.
//!
//! Every test has a database of its own, cloned from a migrated template; the cluster behind them is shared by the run.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod account_view;
mod as_of;
mod auth_ownership;
mod auth_provider;
mod auth_scopes;
mod auth_tokens;
mod batch_failures;
mod citus;
mod commands;
mod cross_site_requests;
mod daily_balances;
mod dry_run;
mod event_feed;
mod event_log;
mod hash_chain;
mod idempotency;
mod if_match;
mod invalid_input;
mod malformed_http;
mod mixed_load;
mod new_views;
mod newer_release;
mod outage;
mod overview;
mod partitions;
mod previous_release;
mod projector;
mod races;
mod rate_limit;
mod read_your_writes;
mod rebuild;
mod refusals;
mod repartition;
mod service;
mod snapshots;
mod statement;
mod statement_stream;
mod support;
mod tampering;
mod transaction_view;
mod transfers;
mod two_instances;
