//! API tests: each runs a real service on a database of its own and uses it over HTTP. One file for each behaviour.
//!
//! The databases are cloned from a migrated template in a Postgres cluster that all tests of a run share.
#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

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
mod currencies;
mod daily_balances;
mod dry_run;
mod event_feed;
mod event_feed_lifecycle;
mod event_log;
mod hash_chain;
mod health;
mod http_errors;
mod http_framing;
mod http_responses;
mod idempotency;
mod if_match;
mod invalid_input;
mod invalid_queries;
mod keep_alive;
mod mixed_load;
mod new_views;
mod newer_release;
mod oidc_provider;
mod outage;
mod overload;
mod overview;
mod partition_reads;
mod partitions;
mod previous_release;
mod projector;
mod races;
mod random_history;
mod rate_limit;
mod read_your_writes;
mod rebuild;
mod refusals;
mod repartition;
mod request_metadata;
mod snapshots;
mod statement;
mod statement_consistency;
mod statement_stream;
mod tampering;
mod transaction_view;
mod transfers;
mod two_instances;
