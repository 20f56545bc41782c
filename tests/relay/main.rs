//! The log in other services' hands: the real binary, a real NATS server, and both killed at random. Whatever happens, the
//! stream is the log: the message at n is the event at n, byte for byte, and there is no other.
//!
//! `PASSBOOK_RELAY_ROUNDS` makes the killing longer, `PASSBOOK_RELAY_SEED` repeats one.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../cli/client.rs"]
#[allow(dead_code, reason = "shared with the tests of the command line")]
mod client;
#[path = "../chaos/rng.rs"]
#[allow(dead_code, reason = "shared with the chaos")]
mod rng;
#[path = "../cli/folder.rs"]
#[allow(dead_code, reason = "shared with the tests of the command line")]
mod folder;
mod crash;
mod nats;
mod nats_operator;
#[path = "../cli/passbook.rs"]
#[allow(dead_code, reason = "shared with the tests of the command line")]
mod passbook;
mod publishing;
mod tls_auth;
#[path = "../cli/postgres_server.rs"]
#[allow(dead_code, reason = "shared with the tests of the command line")]
mod postgres_server;
mod testbed;
mod fatal_errors;
#[path = "../cli/tls.rs"]
#[allow(dead_code, reason = "shared with the tests of the command line")]
mod tls;
mod outages;
