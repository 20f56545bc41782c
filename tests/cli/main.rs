//! The program as its operator meets it: the real binary, its own Postgres, its signals, its last words.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod access_control;
mod client;
mod otlp_collector;
mod openapi_conformance;
mod copy;
mod crash_recovery;
mod statement_memory;
mod graceful_shutdown;
mod folder;
mod help;
mod hostile;
mod logging;
mod metrics;
mod migrate;
mod overload;
mod passbook;
mod rebuild;
mod startup_errors;
mod roles;
mod postgres_server;
mod startup;
mod standby;
mod tls;
mod tls_trust;
mod verify;
