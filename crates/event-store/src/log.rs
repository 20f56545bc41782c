//! The head of a partition's log, and the append behind it.
//!
//! There are two ways to append. The optimistic one calls [`append`] as a single autocommit statement with the head that this
//! process saw last. The locked one runs in a transaction that first takes the log-head lock, so it cannot conflict with another
//! instance. [`lock_head_and_read_since`] takes the lock of one partition, [`lock_head`] each lock of several.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Result, query, query_file, query_scalar};
use uuid::Uuid;

use super::{
    event::{NewEvent, StreamVersion},
    hash_chain::{Hash, HashedFields, hash_run},
    locked_read::{EVENT_ROW_BYTES, LOCKED_READ_BYTES_MAX, LOCKED_READ_EVENTS_MAX},
};

/// How many events [`lock_head_and_read_since`] reads in the statement that takes the lock, if they fit into one response. Other
/// events take further statements.
const TURN_EVENTS_MAX: i64 = 16;
/// The bytes of one response under a lock, as a parameter of a statement.
const RESPONSE_BYTES_MAX: i64 = LOCKED_READ_BYTES_MAX as i64;

/// The SQLSTATE of an append to a log that was moved to another database.
pub const LOG_MOVED: &str = "PB001";

/// The end of a partition's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The position of the last event; 0 in an empty log.
    pub position: i64,
    /// The hash of the last event; zeros in an empty log.
    pub hash: Hash,
    /// The time of the last batch.
    pub recorded_at: DateTime<Utc>,
    /// A counter. Raising it prevents an append of unknown outcome from committing later.
    pub fence: i64,
}

/// An idempotency key and the caller that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyId {
    /// The caller. Two callers may use the same key independently.
    pub caller: std::sync::Arc<str>,
    /// The key as the caller chose it.
    pub key: String,
}

/// An idempotency key with its recorded receipt.
#[derive(Clone, Debug)]
pub struct Key {
    /// The caller and the key.
    pub id: KeyId,
    /// A hash of the request, which reveals that a key is reused for another request.
    pub fingerprint: Vec<u8>,
    /// The receipt's JSON.
    pub receipt: String,
}

/// The state of a stream at a version, which makes later loads faster.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The stream.
    pub stream_id: Uuid,
    /// The version of the last event that is part of the state.
    pub version: i64,
    /// The state's JSON.
    pub state: String,
}

/// The row that a reversal writes: the sum reversed of its movement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reversal {
    /// The movement: its account and its version.
    pub movement: StreamVersion,
    /// 1 for the first reversal of the movement.
    pub number: i32,
    /// The amount of this reversal, in minor units.
    pub amount: i64,
    /// The sum of all reversals of the movement up to this one, in minor units.
    pub reversed: i64,
    /// The version of the event of this reversal in the stream of the account.
    pub reversing_version: i64,
}

/// The rows that one append writes, atomically.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The time of the batch. It must be later than that of the head.
    pub recorded_at: DateTime<Utc>,
    /// The events in the order of their positions.
    pub events: Vec<NewEvent>,
    /// Keys that must not be recorded yet: those of `keys`.
    pub keys_to_check: Vec<KeyId>,
    /// Keys to write.
    pub keys: Vec<Key>,
    /// Snapshots to write.
    pub snapshots: Vec<Snapshot>,
    /// The version of the JSON schema of the snapshots' states.
    pub state_version: i16,
    /// Reversals to write.
    pub reversals: Vec<Reversal>,
}

/// The outcome of an append or of a check.
#[derive(Debug)]
pub enum Outcome {
    /// The batch was appended, or the check succeeded. This is the head now.
    Done(Head),
    /// Nothing was written, because another instance has appended, has raised the fence, or has raised the head's time.
    HeadMoved,
    /// Nothing was written, because these keys are recorded already. There may be more of them: the response is limited, and an
    /// append without these keys finds the next ones.
    KeysRecorded(Vec<Key>),
}

/// Reads the head without waiting for the log-head lock.
///
/// # Errors
/// A database error, also if the partition does not exist.
pub async fn head(connection: &mut PgConnection, partition: i16) -> Result<Head> {
    let row = query!("SELECT position, hash, recorded_at, fence FROM log_head WHERE partition = $1", partition)
        .fetch_one(connection)
        .await?;
    head_from_columns(row.position, row.hash, row.recorded_at, row.fence)
}

/// Takes the log-head lock, which is held until the transaction ends, and returns the head.
///
/// The lock needs a statement of its own: a read in the same statement would see rows as they were before the wait.
///
/// # Errors
/// A database error, also if the lock is not free within `lock_timeout` or if the partition does not exist.
pub async fn lock_head(connection: &mut PgConnection, partition: i16) -> Result<Head> {
    let row =
        query!("SELECT position, hash, recorded_at, fence FROM log_head WHERE partition = $1 FOR UPDATE", partition)
            .fetch_one(connection)
            .await?;
    head_from_columns(row.position, row.hash, row.recorded_at, row.fence)
}

/// Marks the log of a partition as moved to another database, and raises its fence. Every later append fails with SQLSTATE
/// [`LOG_MOVED`]. The caller's transaction must hold the log-head lock.
///
/// # Errors
/// A database error.
pub async fn mark_moved(connection: &mut PgConnection, partition: i16) -> Result<()> {
    query!("UPDATE log_head SET fence = fence + 1 WHERE partition = $1", partition).execute(&mut *connection).await?;
    query!("UPDATE log_head SET moved_at = statement_timestamp() WHERE partition = $1 AND moved_at IS NULL", partition)
        .execute(connection)
        .await?;
    Ok(())
}

/// When the log was moved to another database; `None` if it was not.
///
/// # Errors
/// A database error.
pub async fn moved_at(connection: &mut PgConnection) -> Result<Option<DateTime<Utc>>> {
    // All partitions are marked in one transaction.
    query_scalar!("SELECT moved_at FROM log_head WHERE partition = 0").fetch_one(connection).await
}

/// An event that another instance appended since this instance last saw the head.
#[derive(Debug)]
pub struct ConcurrentEvent {
    /// The stream that the event belongs to.
    pub stream_id: Uuid,
    /// The version of the stream after this event.
    pub version: i64,
    /// The name of the event type.
    pub event_type: String,
    /// The version of the JSON schema of `data`.
    pub schema_version: i16,
    /// JSON as it was written.
    pub data: String,
    /// The time of the append.
    pub recorded_at: DateTime<Utc>,
}

/// Takes the log-head lock as [`lock_head`] does, and reads the events after `known` in the order of their positions. No statement
/// returns more than [`LOCKED_READ_BYTES_MAX`].
///
/// The events are `None` if `known` is `None`, if there are more than `events_max` or too many bytes, or if the log does not
/// contain `known`. The last case is another history, for instance after a restore. On `None` the caller must discard its cached
/// state.
///
/// # Errors
/// As [`lock_head`].
pub async fn lock_head_and_read_since(
    connection: &mut PgConnection,
    partition: i16,
    known: Option<&Head>,
    events_max: i64,
) -> Result<(Head, Option<Vec<ConcurrentEvent>>)> {
    let known_position = known.map(|known| known.position);
    let rows = query_file!(
        "src/lock_head_and_read_since.sql",
        partition,
        known_position,
        TURN_EVENTS_MAX,
        RESPONSE_BYTES_MAX,
        EVENT_ROW_BYTES
    );
    let mut rows = rows.fetch_all(&mut *connection).await?.into_iter();
    let first = rows.next().ok_or(sqlx::Error::RowNotFound)?;
    let head = head_from_columns(first.head_position, first.head_hash, first.head_recorded_at, first.head_fence)?;
    let Some(known) = known else { return Ok((head, None)) };
    let missing = head.position - known.position;
    let events = match (missing, first.event_hash) {
        (0, _) => (known.hash == head.hash).then(Vec::new),
        // An empty log has no event at the known position.
        (1..=TURN_EVENTS_MAX, Some(known_hash)) if known.position > 0 => {
            let events = rows.filter_map(|row| {
                Some(ConcurrentEvent {
                    stream_id: row.stream_id?,
                    version: row.version?,
                    event_type: row.event_type?,
                    schema_version: row.schema_version?,
                    data: row.data?,
                    recorded_at: row.recorded_at?,
                })
            });
            (known_hash == known.hash).then(|| events.collect())
        }
        // The response has no events if they do not fit into it.
        (_, _) if (1..=events_max).contains(&missing) => {
            read_since(connection, partition, (known, &head), ReadSize::LOCKED).await?
        }
        (_, _) => None,
    };
    Ok((head, events))
}

/// How much [`read_since`] reads: with one statement, and with all of them.
#[derive(Clone, Copy, Debug)]
pub struct ReadSize {
    statement_events_max: i64,
    statement_bytes_max: i64,
    bytes_max: i64,
}

impl ReadSize {
    /// While a lock is held.
    pub const LOCKED: Self = Self {
        statement_events_max: LOCKED_READ_EVENTS_MAX,
        statement_bytes_max: RESPONSE_BYTES_MAX,
        bytes_max: 4 * 1024 * 1024,
    };
    /// While no lock is held.
    pub const UNLOCKED: Self =
        Self { statement_events_max: 5_000, statement_bytes_max: 4 * 1024 * 1024, bytes_max: 32 * 1024 * 1024 };
}

/// Reads the events between two heads, after `known` up to `head`. `None` if the log does not contain `known`, or if the events
/// have more bytes than `size` allows.
///
/// # Errors
/// A database error.
pub async fn read_since(
    connection: &mut PgConnection,
    partition: i16,
    (known, head): (&Head, &Head),
    size: ReadSize,
) -> Result<Option<Vec<ConcurrentEvent>>> {
    let ReadSize { statement_events_max, statement_bytes_max, bytes_max } = size;
    let mut events = Vec::new();
    let mut bytes = 0;
    // The event at `known` is read, too, to compare its hash. An empty log has none.
    let mut from = known.position.max(1);
    while from <= head.position {
        let rows = query_file!(
            "src/events_since.sql",
            partition,
            from,
            statement_events_max,
            statement_bytes_max,
            EVENT_ROW_BYTES
        );
        let rows = rows.fetch_all(&mut *connection).await?;
        let Some(read) = rows.last().map(|row| row.position) else { return Ok(None) };
        bytes += rows.iter().map(|row| row.data.len() as i64 + EVENT_ROW_BYTES).sum::<i64>();
        if bytes > bytes_max {
            return Ok(None);
        }
        for row in rows.into_iter().take_while(|row| row.position <= head.position) {
            if row.position > known.position {
                events.push(ConcurrentEvent {
                    stream_id: row.stream_id,
                    version: row.version,
                    event_type: row.event_type,
                    schema_version: row.schema_version,
                    data: row.data,
                    recorded_at: row.recorded_at,
                });
            } else if row.hash != known.hash {
                return Ok(None);
            }
        }
        from = read + 1;
    }
    Ok(Some(events))
}

/// Appends `batch` if the head is still `expected`, its time is later than that of the head, and none of its `keys_to_check` is
/// recorded. A batch of keys alone leaves position and hash of the head as they are, and raises its time.
///
/// # Errors
/// A database error. If it is not an error response of the database, the outcome of the append is unknown.
pub async fn append(connection: &mut PgConnection, partition: i16, expected: &Head, batch: &Batch) -> Result<Outcome> {
    let hashes = hash_run(expected.hash, hashed_fields(partition, expected.position, batch));
    let last = hashes.last().copied().unwrap_or(expected.hash);
    let events = &batch.events;
    // All rows are fetched: in autocommit mode the server commits after it has sent the last row.
    let rows = query_file!(
        "src/append.sql",
        partition,
        expected.position,
        &expected.hash[..],
        expected.fence,
        batch.recorded_at,
        &column(&batch.keys_to_check, |key| &*key.caller) as _,
        &column(&batch.keys_to_check, |key| key.key.as_str()) as _,
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
        &column(&batch.reversals, |reversal| reversal.movement.stream_id),
        &column(&batch.reversals, |reversal| reversal.movement.version),
        &column(&batch.reversals, |reversal| reversal.number),
        &column(&batch.reversals, |reversal| reversal.amount),
        &column(&batch.reversals, |reversal| reversal.reversed),
        &column(&batch.reversals, |reversal| reversal.reversing_version),
        RESPONSE_BYTES_MAX,
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
            _ => recorded.extend(key_from_columns(row.caller, row.key, row.fingerprint, row.receipt)),
        }
    }
    Ok(Outcome::KeysRecorded(recorded))
}

/// Checks that the head is still `expected`, that its time is before `decided_at`, and that none of `keys_to_check` is recorded.
/// Responses to refused commands without a key and to dry runs rely on this check, because they write nothing.
///
/// It is one statement, so that the head and the keys are read at the same moment.
///
/// # Errors
/// A database error.
pub async fn check_head_and_keys(
    connection: &mut PgConnection,
    partition: i16,
    expected: &Head,
    decided_at: DateTime<Utc>,
    keys_to_check: &[KeyId],
) -> Result<Outcome> {
    let rows = query_file!(
        "src/check_head_and_keys.sql",
        partition,
        &column(keys_to_check, |key| &*key.caller) as _,
        &column(keys_to_check, |key| key.key.as_str()) as _,
        RESPONSE_BYTES_MAX,
    )
    .fetch_all(connection)
    .await?;

    let unmoved = rows.iter().any(|row| {
        (row.position, row.fence) == (expected.position, expected.fence)
            && row.hash == expected.hash
            && row.recorded_at < decided_at
    });
    if !unmoved {
        return Ok(Outcome::HeadMoved);
    }
    let recorded: Vec<Key> = rows
        .into_iter()
        .filter_map(|row| key_from_columns(row.caller, row.key, row.fingerprint, row.receipt))
        .collect();
    match recorded.is_empty() {
        true => Ok(Outcome::Done(expected.clone())),
        false => Ok(Outcome::KeysRecorded(recorded)),
    }
}

/// Reads the recorded keys among `ids`, with their whole receipts. The caller holds no lock.
///
/// # Errors
/// A database error.
pub async fn recorded_keys(connection: &mut PgConnection, partition: i16, ids: &[KeyId]) -> Result<Vec<Key>> {
    let rows = query!(
        r#"SELECT found.caller AS "caller!", found.key AS "key!", found.fingerprint AS "fingerprint!", found.receipt AS "receipt!"
           FROM unnest($2::text[], $3::text[]) AS asked(caller, key)
           CROSS JOIN LATERAL (
               SELECT k.caller, k.key, k.fingerprint, k.receipt::text AS receipt
               FROM idempotency_key AS k
               WHERE k.partition = $1 AND k.caller = asked.caller AND k.key = asked.key
               LIMIT 1
           ) AS found"#,
        partition,
        &column(ids, |key| &*key.caller) as _,
        &column(ids, |key| key.key.as_str()) as _
    );
    let rows = rows.fetch_all(connection).await?.into_iter();
    Ok(rows
        .map(|row| {
            let id = KeyId { caller: row.caller.into(), key: row.key };
            Key { id, fingerprint: row.fingerprint, receipt: row.receipt }
        })
        .collect())
}

fn hashed_fields(partition: i16, head_position: i64, batch: &Batch) -> impl Iterator<Item = HashedFields<'_>> {
    (head_position + 1..).zip(&batch.events).map(move |(position, event)| HashedFields {
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
    })
}

fn column<'a, R, T>(rows: &'a [R], field: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(field).collect()
}

/// `None` if a column is null, as they all are in a row without a key.
fn key_from_columns(
    caller: Option<String>,
    key: Option<String>,
    fingerprint: Option<Vec<u8>>,
    receipt: Option<String>,
) -> Option<Key> {
    Some(Key { id: KeyId { caller: caller?.into(), key: key? }, fingerprint: fingerprint?, receipt: receipt? })
}

fn head_from_columns(position: i64, hash: Vec<u8>, recorded_at: DateTime<Utc>, fence: i64) -> Result<Head> {
    let hash =
        hash.try_into().map_err(|_| sqlx::Error::Decode("the hash in `log_head` is not 32 bytes long".into()))?;
    Ok(Head { position, hash, recorded_at, fence })
}
