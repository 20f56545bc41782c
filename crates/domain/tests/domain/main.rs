//! The rules of the bank: given what has happened, when something is asked, then this follows. No database: the domain
//! needs none.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod amounts;
mod decoding;
mod given;
mod laws;
mod life;
mod movements;
mod opening;
mod samples;
mod snapshots;
mod transfers;
mod words;
