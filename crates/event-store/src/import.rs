//! Copies events, keys and snapshots from another log, the source, into this one.
//!
//! A copied event keeps its id, stream, version, time and bytes. It gets a new position and a new hash, because it may come to
//! another partition. The table `copy_progress` stores how far each source partition is copied.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{PgConnection, Result, query, query_as, query_file, query_file_as, query_scalar};
use uuid::Uuid;

use super::{
    event::{EventRow, EventWithHash, StreamVersion},
    hash_chain::{HashedFields, hash_run},
    log::{Head, Key, KeyId, Snapshot},
    partition::Partitions,
};

/// The progress of the import of one source partition.
#[derive(Clone, Debug)]
pub struct ImportProgress {
    /// The source partition.
    pub source_partition: i16,
    /// The number of partitions of the source.
    pub source_count: i16,
    /// The position of the last copied event, in the source.
    pub position: i64,
    /// The hash of that event, in the source.
    pub hash: Vec<u8>,
    /// The position up to which copied events were read back and are equal.
    pub compared: i64,
    /// Keys recorded up to this time are copied.
    pub keys_at: DateTime<Utc>,
    /// When the import finished. The log must not be served before.
    pub finished_at: Option<DateTime<Utc>>,
}

/// Reads the progress of every source partition, in ascending order. Empty if this log was not imported.
///
/// # Errors
/// A database error.
pub async fn read_progress(connection: &mut PgConnection) -> Result<Vec<ImportProgress>> {
    query_as!(
        ImportProgress,
        "SELECT source_partition, source_count, position, hash, compared, keys_at, finished_at
         FROM copy_progress
         WHERE partition = 0
         ORDER BY source_partition"
    )
    .fetch_all(connection)
    .await
}

/// Whether an import into this log has begun and has not finished. Such a log must not be served, published or copied.
///
/// # Errors
/// A database error.
pub async fn is_in_progress(connection: &mut PgConnection) -> Result<bool> {
    Ok(read_progress(connection).await?.iter().any(|progress| progress.finished_at.is_none()))
}

/// Marks this log as an import of a source with these partitions. The caller does so in the transaction that creates the log.
///
/// # Errors
/// A database error.
pub async fn begin(connection: &mut PgConnection, source: Partitions) -> Result<()> {
    for source_partition in source.all() {
        query!(
            "INSERT INTO copy_progress (partition, source_partition, source_count, position, hash, compared, keys_at)
             VALUES (0, $1, $2, 0, decode(repeat('00', 32), 'hex'), 0, 'epoch')",
            source_partition,
            source.count()
        )
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Advances the progress of one source partition from the position `from`, in the transaction that writes the copied rows.
/// Returns `false` if the progress has another position, because another process imports as well.
///
/// # Errors
/// A database error.
pub async fn advance(connection: &mut PgConnection, from: i64, to: &ImportProgress) -> Result<bool> {
    let moved = query!(
        "UPDATE copy_progress
         SET position = $3, hash = $4, compared = $5, keys_at = $6, finished_at = $7
         WHERE partition = 0 AND source_partition = $1 AND position = $2 AND finished_at IS NULL",
        to.source_partition,
        from,
        to.position,
        to.hash,
        to.compared,
        to.keys_at,
        to.finished_at
    )
    .execute(connection)
    .await?;
    Ok(moved.rows_affected() == 1)
}

/// Appends events after `head` and returns the new head. The caller's transaction must hold the log-head lock.
///
/// # Errors
/// A database error.
pub async fn append(
    connection: &mut PgConnection,
    partition: i16,
    head: &Head,
    events: &[&EventWithHash],
) -> Result<Head> {
    let Some(last) = events.last() else { return Ok(head.clone()) };
    let positioned = (head.position + 1..).zip(events);
    let fields = positioned.map(|(position, event)| HashedFields { position, ..event.hashed_fields(partition) });
    let hashes = hash_run(head.hash, fields);
    let column = |text: fn(&EventWithHash) -> &str| events.iter().map(|copied| text(copied)).collect::<Vec<_>>();
    query_file!(
        "src/append_imported.sql",
        partition,
        head.position,
        &events.iter().map(|copied| copied.event.id).collect::<Vec<_>>(),
        &events.iter().map(|copied| copied.event.stream_id).collect::<Vec<_>>(),
        &events.iter().map(|copied| copied.event.version).collect::<Vec<_>>(),
        &column(|copied| &copied.event.event_type) as _,
        &events.iter().map(|copied| copied.event.schema_version).collect::<Vec<_>>(),
        &column(|copied| &copied.event.data) as _,
        &column(|copied| &copied.metadata) as _,
        &events.iter().map(|copied| copied.event.recorded_at).collect::<Vec<_>>(),
        &hashes.iter().map(|hash| &hash[..]).collect::<Vec<_>>() as _,
    )
    .execute(&mut *connection)
    .await?;
    let next = Head {
        position: head.position + events.len() as i64,
        hash: hashes.last().copied().unwrap_or(head.hash),
        recorded_at: last.event.recorded_at,
        fence: head.fence,
    };
    query!(
        "UPDATE log_head SET position = $2, hash = $3, recorded_at = $4 WHERE partition = $1",
        partition,
        next.position,
        &next.hash[..],
        next.recorded_at
    )
    .execute(connection)
    .await?;
    Ok(next)
}

/// Raises the time of the head to `time`, so that later events get a later one. Leaves a later time unchanged.
///
/// # Errors
/// A database error.
pub async fn raise_head_time(connection: &mut PgConnection, partition: i16, time: DateTime<Utc>) -> Result<()> {
    query!("UPDATE log_head SET recorded_at = $2 WHERE partition = $1 AND recorded_at < $2", partition, time)
        .execute(connection)
        .await?;
    Ok(())
}

/// Reads the events with these streams and versions, in no particular order. Missing events are left out.
///
/// # Errors
/// A database error.
pub async fn find_events(
    connection: &mut PgConnection,
    partition: i16,
    wanted: &[StreamVersion],
) -> Result<Vec<EventWithHash>> {
    let ids: Vec<Uuid> = wanted.iter().map(|wanted| wanted.stream_id).collect();
    let versions: Vec<i64> = wanted.iter().map(|wanted| wanted.version).collect();
    let rows =
        query_file_as!(EventRow, "src/find_events.sql", partition, &ids, &versions).fetch_all(connection).await?;
    Ok(rows.into_iter().map(EventWithHash::from).collect())
}

/// The size of the receipts of one page, as Postgres stores them.
const PAGE_RECEIPT_BYTES_MAX: i64 = 4 * 1024 * 1024;

/// Reads at least `limit` keys, if there are as many, in the order of their times. Only keys recorded later than `since` and not
/// later than `until` are returned, each with its time. The page ends with the last key of its time, so the next page begins
/// after that time. It ends earlier if the receipts are large; a page without keys is the last one.
///
/// # Errors
/// A database error.
pub async fn read_keys(
    connection: &mut PgConnection,
    partition: i16,
    (since, until): (DateTime<Utc>, DateTime<Utc>),
    limit: i64,
) -> Result<Vec<(Key, DateTime<Utc>)>> {
    let rows = query!(
        r#"SELECT caller, key, fingerprint, receipt::text AS "receipt!", recorded_at
           FROM (
               -- The bytes of the receipts with earlier times: a page contains all keys of a time or none.
               SELECT *, sum(bytes) OVER (ORDER BY recorded_at) - sum(bytes) OVER (PARTITION BY recorded_at) AS bytes_before
               FROM (
                   SELECT *, pg_column_size(receipt) AS bytes
                   FROM idempotency_key
                   WHERE partition = $1 AND recorded_at > $2 AND recorded_at <= $3
                   ORDER BY recorded_at
                   FETCH FIRST ($4::bigint) ROWS WITH TIES
               ) AS first
           ) AS page
           WHERE bytes_before < $5::bigint
           ORDER BY recorded_at"#,
        partition,
        since,
        until,
        limit,
        PAGE_RECEIPT_BYTES_MAX
    )
    .fetch_all(connection)
    .await?;
    let keyed = rows.into_iter().map(|row| {
        let id = KeyId { caller: row.caller.into(), key: row.key };
        (Key { id, fingerprint: row.fingerprint, receipt: row.receipt }, row.recorded_at)
    });
    Ok(keyed.collect())
}

/// Writes keys with their original times, so that they keep their age. The partition must contain the events up to these times.
/// Keys that exist already are left unchanged.
///
/// # Errors
/// A database error.
pub async fn write_keys(connection: &mut PgConnection, partition: i16, keys: &[(Key, DateTime<Utc>)]) -> Result<()> {
    // The position of a key is found once for each time: the keys of a batch share their time.
    let times: BTreeSet<DateTime<Utc>> = keys.iter().map(|(_, recorded_at)| *recorded_at).collect();
    let after: Vec<_> = times.iter().map(|time| *time + TimeDelta::microseconds(1)).collect();
    let positions = query_scalar!(r#"SELECT positions_at($1, $2) AS "positions!""#, partition, &after);
    let positions: BTreeMap<_, _> = times.into_iter().zip(positions.fetch_one(&mut *connection).await?).collect();
    query_file!(
        "src/write_imported_keys.sql",
        partition,
        &keys.iter().map(|(key, _)| &*key.id.caller).collect::<Vec<_>>() as _,
        &keys.iter().map(|(key, _)| &*key.id.key).collect::<Vec<_>>() as _,
        &keys.iter().map(|(key, _)| &key.fingerprint[..]).collect::<Vec<_>>() as _,
        &keys.iter().map(|(key, _)| &*key.receipt).collect::<Vec<_>>() as _,
        &keys.iter().map(|(_, recorded_at)| *recorded_at).collect::<Vec<_>>(),
        &keys.iter().filter_map(|(_, recorded_at)| positions.get(recorded_at).copied()).collect::<Vec<_>>()
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Reads up to `limit` snapshots whose state has the JSON schema `state_version`, after the stream `after`, by ascending stream.
///
/// # Errors
/// A database error.
pub async fn read_snapshots(
    connection: &mut PgConnection,
    partition: i16,
    state_version: i16,
    after: Uuid,
    limit: i64,
) -> Result<Vec<Snapshot>> {
    query_as!(
        Snapshot,
        r#"SELECT stream_id, version, state::text AS "state!"
           FROM snapshot
           WHERE partition = $1 AND stream_id > $2 AND state_version = $3
           ORDER BY stream_id
           LIMIT $4"#,
        partition,
        after,
        state_version,
        limit
    )
    .fetch_all(connection)
    .await
}

/// Writes snapshots, and replaces those that exist for the same streams.
///
/// # Errors
/// A database error.
pub async fn write_snapshots(
    connection: &mut PgConnection,
    partition: i16,
    state_version: i16,
    snapshots: &[Snapshot],
) -> Result<()> {
    query!(
        "INSERT INTO snapshot (partition, stream_id, version, state_version, state)
         SELECT $1, s.stream_id, s.version, $2, s.state::json
         FROM unnest($3::uuid[], $4::bigint[], $5::text[]) AS s(stream_id, version, state)
         ON CONFLICT (partition, stream_id) DO UPDATE
         SET version = EXCLUDED.version, state_version = EXCLUDED.state_version, state = EXCLUDED.state",
        partition,
        state_version,
        &snapshots.iter().map(|snapshot| snapshot.stream_id).collect::<Vec<_>>(),
        &snapshots.iter().map(|snapshot| snapshot.version).collect::<Vec<_>>(),
        &snapshots.iter().map(|snapshot| &*snapshot.state).collect::<Vec<_>>() as _
    )
    .execute(connection)
    .await?;
    Ok(())
}
