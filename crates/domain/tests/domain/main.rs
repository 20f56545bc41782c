//! Tests of the domain rules in the form given, when, then. They need no database.
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod account_snapshots;
mod amounts;
mod books;
mod event_decoding;
mod event_samples;
mod fixtures;
mod given_when_then;
mod hold_ids;
mod holds;
mod lifecycle;
mod limits;
mod metadata;
mod model;
mod movements;
mod opening;
mod properties;
mod reversals;
mod transfers;
