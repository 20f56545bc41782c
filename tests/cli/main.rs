//! The program as its operator meets it: the real binary, its own Postgres, its signals, its last words.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod access;
mod client;
mod collector;
mod conforming;
mod copying;
mod crashing;
mod drawing;
mod ending;
mod folder;
mod helping;
mod hostile;
mod logging;
mod measuring;
mod migrating;
mod overload;
mod passbook;
mod rebuilding;
mod refusing;
mod roles;
mod servers;
mod serving;
mod standby;
mod tls;
mod trusting;
mod verifying;
