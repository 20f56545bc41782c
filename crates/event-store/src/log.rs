//! The log's head: the turnstile that every writer passes, and the one append behind it.
//!
//! The fast way is [`append`] as one autocommit call with the head that this process saw last. The slow way takes
//! [`take_turn`] or, over several partitions, [`lock_head`] first, inside a transaction, and is always right.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Result, query, query_file};
use uuid::Uuid;

use super::{Hash, NewEvent, chain};

/// Where a partition's log ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The last event's position; 0 in an empty log.
    pub position: i64,
    /// The last event's hash; zeros in an empty log.
    pub hash: Hash,
    /// When the last batch was recorded.
    pub recorded_at: DateTime<Utc>,
    /// Raised to make a lost append fail for ever.
    pub fence: i64,
}

/// Whose idempotency key it is, and the key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyId {
    /// The caller; another caller's same key is another key.
    pub caller: std::sync::Arc<str>,
    /// The key as the caller chose it.
    pub key: String,
}

/// An idempotency key with the answer that it stands for.
#[derive(Clone, Debug)]
pub struct Key {
    /// Which key.
    pub id: KeyId,
    /// What the request looked like, hashed.
    pub fingerprint: Vec<u8>,
    /// The receipt's JSON.
    pub receipt: String,
}

/// A stream's state, kept to shorten later loads.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The stream.
    pub stream_id: Uuid,
    /// The last version folded in.
    pub version: i64,
    /// The state's JSON.
    pub state: String,
}

/// What one append writes, all of it or nothing.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// When; later than the head's time.
    pub recorded_at: DateTime<Utc>,
    /// In the order of their positions.
    pub events: Vec<NewEvent>,
    /// Keys that must not be recorded yet: those to be written, and those of refused commands.
    pub asked: Vec<KeyId>,
    /// Keys to write.
    pub keys: Vec<Key>,
    /// Snapshots to write.
    pub snapshots: Vec<Snapshot>,
    /// The version of the shape of the snapshots' states.
    pub state_version: i16,
}

/// What became of an append or a confirmation.
#[derive(Debug)]
pub enum Outcome {
    /// Everything stands, and this is the head now.
    Done(Head),
    /// Nothing was written: somebody else has written since, or raised the fence.
    HeadMoved,
    /// Nothing was written: these keys are recorded.
    KeysRecorded(Vec<Key>),
}

/// The head as it is, without waiting for a writer.
pub async fn head(connection: &mut PgConnection, partition: i16) -> Result<Head> {
    let row = query!("SELECT position, hash, recorded_at, fence FROM log_head WHERE partition = $1", partition)
        .fetch_one(connection)
        .await?;
    head_of(row.position, row.hash, row.recorded_at, row.fence)
}

/// Passes the turnstile: waits for the writer before, and keeps others out until the transaction ends. A statement of
/// its own, because a read in the same statement would see rows as they were before the wait.
pub async fn lock_head(connection: &mut PgConnection, partition: i16) -> Result<Head> {
    let row =
        query!("SELECT position, hash, recorded_at, fence FROM log_head WHERE partition = $1 FOR UPDATE", partition)
            .fetch_one(connection)
            .await?;
    head_of(row.position, row.hash, row.recorded_at, row.fence)
}

/// An event that somebody else wrote since we looked.
#[derive(Debug)]
pub struct Missed {
    /// Its stream.
    pub stream_id: Uuid,
    /// Its place in the stream.
    pub version: i64,
    /// What kind of fact it is.
    pub event_type: String,
    /// The version of the shape of `data`.
    pub schema_version: i16,
    /// JSON as it was written.
    pub data: String,
}

/// Passes the turnstile of a partition as [`lock_head`] does, and learns what others wrote after `known`, in the log's order:
/// `None` where that is more than `events_max`, or where the log does not contain `known`, whose history is another one.
pub async fn take_turn(
    connection: &mut PgConnection,
    partition: i16,
    known: Option<&Head>,
    events_max: i64,
) -> Result<(Head, Option<Vec<Missed>>)> {
    let known_position = known.map(|known| known.position);
    let rows = query_file!("src/take_turn.sql", partition, known_position, events_max);
    let mut rows = rows.fetch_all(connection).await?.into_iter();
    let first = rows.next().ok_or(sqlx::Error::RowNotFound)?;
    let head = head_of(first.head_position, first.head_hash, first.head_recorded_at, first.head_fence)?;
    let is_known = |known: &Head| match known.position == head.position {
        true => known.hash == head.hash,
        false => first.event_hash.as_deref() == Some(&known.hash),
    };
    let written = rows.filter_map(|row| {
        Some(Missed {
            stream_id: row.stream_id?,
            version: row.version?,
            event_type: row.event_type?,
            schema_version: row.schema_version?,
            data: row.data?,
        })
    });
    let missed = known.is_some_and(is_known).then(|| written.collect());
    Ok((head, missed))
}

/// Appends `batch` if the head is still `expected` and no key that it asks for is recorded.
///
/// All rows are read to the end: in an autocommit call the commit comes after the last row.
pub async fn append(connection: &mut PgConnection, partition: i16, expected: &Head, batch: &Batch) -> Result<Outcome> {
    let hashes = links(partition, expected, batch);
    let last = hashes.last().copied().unwrap_or(expected.hash);
    let events = &batch.events;
    let rows = query_file!(
        "src/append.sql",
        partition,
        expected.position,
        &expected.hash[..],
        expected.fence,
        batch.recorded_at,
        &column(&batch.asked, |key| &*key.caller) as _,
        &column(&batch.asked, |key| key.key.as_str()) as _,
        &column(events, |event| event.id),
        &column(events, |event| event.stream_id),
        &column(events, |event| event.version),
        &column(events, |event| event.event_type) as _,
        &column(events, |event| event.schema_version),
        &column(events, |event| event.data.as_str()) as _,
        &column(events, |event| event.metadata.as_str()) as _,
        &column(&hashes, |hash| &hash[..]) as _,
        &column(&batch.keys, |key| &*key.id.caller) as _,
        &column(&batch.keys, |key| key.id.key.as_str()) as _,
        &column(&batch.keys, |key| key.fingerprint.as_slice()) as _,
        &column(&batch.keys, |key| key.receipt.as_str()) as _,
        &column(&batch.snapshots, |snapshot| snapshot.stream_id),
        &column(&batch.snapshots, |snapshot| snapshot.version),
        batch.state_version,
        &column(&batch.snapshots, |snapshot| snapshot.state.as_str()) as _,
    )
    .fetch_all(connection)
    .await?;

    let mut recorded = Vec::new();
    for row in rows {
        match row.outcome.as_str() {
            "appended" => {
                return Ok(Outcome::Done(Head {
                    position: expected.position + events.len() as i64,
                    hash: last,
                    recorded_at: batch.recorded_at,
                    fence: expected.fence,
                }));
            }
            "head_moved" => return Ok(Outcome::HeadMoved),
            _ => recorded.extend(key(row.caller, row.key, row.fingerprint, row.receipt)),
        }
    }
    Ok(Outcome::KeysRecorded(recorded))
}

/// Confirms that the head is still `expected` and that no key of `asked` is recorded: what refusals and dry runs rest
/// on. One statement, so that head and keys are read at the same moment.
pub async fn confirm(
    connection: &mut PgConnection,
    partition: i16,
    expected: &Head,
    asked: &[KeyId],
) -> Result<Outcome> {
    let rows = query_file!(
        "src/confirm.sql",
        partition,
        &column(asked, |key| &*key.caller) as _,
        &column(asked, |key| key.key.as_str()) as _,
    )
    .fetch_all(connection)
    .await?;

    let unmoved = rows
        .iter()
        .any(|row| row.position == expected.position && row.hash == expected.hash && row.fence == expected.fence);
    if !unmoved {
        return Ok(Outcome::HeadMoved);
    }
    let recorded: Vec<Key> =
        rows.into_iter().filter_map(|row| key(row.caller, row.key, row.fingerprint, row.receipt)).collect();
    match recorded.is_empty() {
        true => Ok(Outcome::Done(expected.clone())),
        false => Ok(Outcome::KeysRecorded(recorded)),
    }
}

fn links(partition: i16, expected: &Head, batch: &Batch) -> Vec<Hash> {
    let mut previous = expected.hash;
    (expected.position + 1..)
        .zip(&batch.events)
        .map(|(position, event)| {
            previous = chain::hash(
                &previous,
                chain::Link {
                    partition,
                    position,
                    id: event.id,
                    stream_id: event.stream_id,
                    version: event.version,
                    event_type: event.event_type,
                    schema_version: event.schema_version,
                    data: &event.data,
                    metadata: &event.metadata,
                    recorded_at: batch.recorded_at,
                },
            );
            previous
        })
        .collect()
}

fn column<'a, R, T>(rows: &'a [R], field: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(field).collect()
}

fn key(
    caller: Option<String>,
    key: Option<String>,
    fingerprint: Option<Vec<u8>>,
    receipt: Option<String>,
) -> Option<Key> {
    Some(Key { id: KeyId { caller: caller?.into(), key: key? }, fingerprint: fingerprint?, receipt: receipt? })
}

fn head_of(position: i64, hash: Vec<u8>, recorded_at: DateTime<Utc>, fence: i64) -> Result<Head> {
    let hash = hash.try_into().map_err(|_| sqlx::Error::Decode("the head's hash is not 32 bytes long".into()))?;
    Ok(Head { position, hash, recorded_at, fence })
}
