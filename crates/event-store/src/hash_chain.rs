//! The hash chain of a partition. Each event's hash covers the hash of the event before it, so a row that is changed or
//! removed later breaks the chain. A log that is cut off at its end disagrees with its head.

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// A SHA-256 digest.
pub type Hash = [u8; 32];

/// The fields of an event that its hash covers, besides the previous hash.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the columns of the event table")]
pub struct HashedFields<'a> {
    pub partition: i16,
    pub position: i64,
    pub id: Uuid,
    pub stream_id: Uuid,
    pub version: i64,
    pub event_type: &'a str,
    pub schema_version: i16,
    pub data: &'a str,
    pub metadata: &'a str,
    pub recorded_at: DateTime<Utc>,
}

/// Computes an event's hash: SHA-256 over the previous hash and the fields in the order of [`HashedFields`].
///
/// Each field is prefixed with its length in bytes (four bytes, big-endian). Integers are big-endian, and the time is in
/// microseconds since 1970.
pub fn hash(previous: &Hash, fields: HashedFields<'_>) -> Hash {
    let mut digest = Sha256::new();
    digest.update(previous);
    for field in [
        &fields.partition.to_be_bytes()[..],
        &fields.position.to_be_bytes(),
        fields.id.as_bytes(),
        fields.stream_id.as_bytes(),
        &fields.version.to_be_bytes(),
        fields.event_type.as_bytes(),
        &fields.schema_version.to_be_bytes(),
        fields.data.as_bytes(),
        fields.metadata.as_bytes(),
        &fields.recorded_at.timestamp_micros().to_be_bytes(),
    ] {
        // The HTTP body limit keeps a field far below 4 GiB.
        digest.update((field.len() as u32).to_be_bytes());
        digest.update(field);
    }
    digest.finalize().into()
}

/// Computes the hashes of consecutive events. `previous` is the hash of the event before the first one.
pub fn hash_run<'a>(previous: Hash, events: impl Iterator<Item = HashedFields<'a>>) -> Vec<Hash> {
    let next = |previous: &mut Hash, fields| {
        *previous = hash(previous, fields);
        Some(*previous)
    };
    events.scan(previous, next).collect()
}
