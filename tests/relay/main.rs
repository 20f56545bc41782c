//! The relay to NATS JetStream, with the real binary and a real NATS server. After every fault the stream equals the log:
//! the message at sequence n is the event at position n, byte for byte, and there is no other message.
//!
//! `PASSBOOK_RELAY_ROUNDS` sets the number of crash rounds, `PASSBOOK_RELAY_SEED` repeats a run.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../cli/client.rs"]
#[allow(dead_code, reason = "shared with the command-line tests")]
mod client;
mod crash;
mod fatal_errors;
#[path = "../cli/folder.rs"]
#[allow(dead_code, reason = "shared with the command-line tests")]
mod folder;
mod nats;
mod nats_operator;
mod outages;
#[path = "../cli/passbook.rs"]
#[allow(dead_code, reason = "shared with the command-line tests")]
mod passbook;
#[path = "../cli/postgres_server.rs"]
#[allow(dead_code, reason = "shared with the command-line tests")]
mod postgres_server;
mod publishing;
#[path = "../chaos/rng.rs"]
#[allow(dead_code, reason = "shared with the chaos tests")]
mod rng;
mod testbed;
#[path = "../cli/tls.rs"]
#[allow(dead_code, reason = "shared with the command-line tests")]
mod tls;
mod tls_auth;
