//! Tests of the real binary as an operator uses it: commands, settings, signals, error messages, logs and metrics.
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod access_control;
mod balancer_without_server;
mod checkpoints;
mod copy;
mod crash_recovery;
mod doctor;
mod export;
mod former_primary;
mod freeze;
mod generated_clients;
mod graceful_shutdown;
mod help;
mod hostile;
mod import;
mod journal_memory;
mod key_file;
mod logging;
mod metrics;
mod migrate;
mod openapi_conformance;
mod otlp_collector;
mod overload;
mod package_upgrade;
mod pgbouncer;
mod rebuild;
mod role_errors;
mod roles;
mod standby;
mod startup;
mod startup_errors;
mod statement_memory;
mod supervision;
mod tls_trust;
mod verify;
mod webhooks;
