//! The relay to NATS JetStream, with the real binary and a real NATS server. After every fault the stream equals the log. The
//! message at sequence n is the event at position n, byte for byte. There is no other message.
//!
//! `PASSBOOK_RELAY_ROUNDS` sets the number of crash rounds, `PASSBOOK_RELAY_SEED` repeats a run.
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod checkpoints;
mod crash;
mod fatal_errors;
mod nats_operator;
mod outages;
mod publishing;
mod testbed;
mod tls_auth;

use passbook_testkit::nats;
