//! The hash chain: each event's hash covers the hash before it, so that a row changed, removed or cut off later
//! breaks the chain or disagrees with the head.

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::Hash;

/// What an event's hash covers beside the hash before it.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the columns of the event table")]
pub struct Link<'a> {
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

/// SHA-256 over the previous hash and the fields in the order of [`Link`], integers big-endian (the time in
/// microseconds since 1970), each field prefixed with its length in bytes as four bytes big-endian.
pub fn hash(previous: &Hash, link: Link<'_>) -> Hash {
    let mut digest = Sha256::new();
    digest.update(previous);
    for field in [
        &link.partition.to_be_bytes()[..],
        &link.position.to_be_bytes(),
        link.id.as_bytes(),
        link.stream_id.as_bytes(),
        &link.version.to_be_bytes(),
        link.event_type.as_bytes(),
        &link.schema_version.to_be_bytes(),
        link.data.as_bytes(),
        link.metadata.as_bytes(),
        &link.recorded_at.timestamp_micros().to_be_bytes(),
    ] {
        // A field is bounded by the body limit, far below 4 GiB.
        digest.update((field.len() as u32).to_be_bytes());
        digest.update(field);
    }
    digest.finalize().into()
}
