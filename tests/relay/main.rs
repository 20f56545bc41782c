//! The log in other services' hands: the real binary, a real NATS server, and both killed at random. Whatever happens, the
//! stream is the log: the message at n is the event at n, byte for byte, and there is no other.
//!
//! `PASSBOOK_RELAY_ROUNDS` makes the killing longer, `PASSBOOK_RELAY_SEED` repeats one.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../cli/client.rs"]
#[allow(dead_code, reason = "shared with the tests of the command line")]
mod client;
#[path = "../chaos/dice.rs"]
#[allow(dead_code, reason = "shared with the chaos")]
mod dice;
#[path = "../cli/folder.rs"]
#[allow(dead_code, reason = "shared with the tests of the command line")]
mod folder;
mod killing;
mod nats;
mod operator;
#[path = "../cli/passbook.rs"]
#[allow(dead_code, reason = "shared with the tests of the command line")]
mod passbook;
mod publishing;
mod secured;
#[path = "../cli/servers.rs"]
#[allow(dead_code, reason = "shared with the tests of the command line")]
mod servers;
mod site;
mod stopping;
#[path = "../cli/tls.rs"]
#[allow(dead_code, reason = "shared with the tests of the command line")]
mod tls;
mod waiting;
