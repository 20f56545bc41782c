//! Streams, versions, positions and bytes: an append-only log in Postgres that knows nothing of banking.
//!
//! [`log`] writes at the head, [`settle`] finds out whether it did, [`stream`] reads one stream, [`feed`] reads in the order of
//! positions, [`chain`] links every event to the one before it, [`whole`] reads everything for whoever checks it, [`trail`] pages
//! of it as recorded. [`Partitions`] says which stream is where, and [`layout`] how many of them there are; [`Primary`] finds the
//! server that takes writes.

pub mod chain;
pub mod copied;
pub mod feed;
pub mod layout;
pub mod log;
mod partition;
mod position;
mod primary;
pub mod settle;
pub mod stream;
pub mod timestamp;
pub mod trail;
pub mod whole;

use chrono::{DateTime, Utc};
use uuid::Uuid;

pub use partition::{PARTITIONS_MAX, Partitions};
pub use position::{InvalidPosition, Position, partition_number};
pub use primary::{Moves, Primary, with_timeout};

/// A SHA-256 digest.
pub type Hash = [u8; 32];

/// An event on its way into the log; its position, hash and time are those of its batch.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// The event's own id, a version 7 UUID.
    pub id: Uuid,
    /// The stream that it belongs to.
    pub stream_id: Uuid,
    /// Its place in the stream, from 1.
    pub version: i64,
    /// What kind of fact it is.
    pub event_type: &'static str,
    /// The version of the shape of `data`.
    pub schema_version: i16,
    /// JSON, stored byte for byte.
    pub data: String,
    /// JSON, stored byte for byte.
    pub metadata: String,
}

/// One event by its stream and its place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamVersion {
    /// The stream.
    pub stream_id: Uuid,
    /// The place in it, from 1.
    pub version: i64,
}

/// An event as the log holds it.
#[derive(Clone, Debug)]
pub struct RecordedEvent {
    /// Its place in the log, from 1.
    pub position: i64,
    /// The event's own id.
    pub id: Uuid,
    /// The stream that it belongs to.
    pub stream_id: Uuid,
    /// Its place in the stream, from 1.
    pub version: i64,
    /// What kind of fact it is.
    pub event_type: String,
    /// The version of the shape of `data`.
    pub schema_version: i16,
    /// JSON as it was written.
    pub data: String,
    /// When it was recorded; the same for all events of a batch, and later than every batch before.
    pub recorded_at: DateTime<Utc>,
}
