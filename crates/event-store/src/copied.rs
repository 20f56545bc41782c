//! Events, keys and snapshots that come from another log. An event keeps its id, stream, version, time and bytes; its
//! position and its hash are those of the log that it comes to. How far the other log was copied stands beside them.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Result, query, query_as, query_file, query_file_as};
use uuid::Uuid;

use super::{
    Hash, Partitions, StreamVersion, chain,
    chain::Link,
    log::{Head, Key, KeyId, Snapshot},
    whole::{LinkedEvent, Row},
};

/// How far one partition of the other log was copied.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Which one.
    pub source_partition: i16,
    /// How many partitions the other log has.
    pub source_count: i16,
    /// The last position that was copied.
    pub position: i64,
    /// The hash of the event there, in the other log.
    pub hash: Vec<u8>,
    /// The last position that was read back and found equal.
    pub compared: i64,
    /// Keys that were recorded up to then are copied.
    pub keys_at: DateTime<Utc>,
    /// When everything was copied; until then the log is not served.
    pub finished_at: Option<DateTime<Utc>>,
}

/// Every partition's progress, in ascending order; nothing where this log is no copy.
pub async fn progress(connection: &mut PgConnection) -> Result<Vec<Progress>> {
    query_as!(
        Progress,
        "SELECT source_partition, source_count, position, hash, compared, keys_at, finished_at
         FROM copy_progress
         WHERE partition = 0
         ORDER BY source_partition"
    )
    .fetch_all(connection)
    .await
}

/// Whether this log is a copy of which not all is there yet: nobody serves, publishes or copies it.
pub async fn is_under_way(connection: &mut PgConnection) -> Result<bool> {
    Ok(progress(connection).await?.iter().any(|progress| progress.finished_at.is_none()))
}

/// Says that this log is to be a copy of one with so many partitions. In the transaction that creates it.
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

/// Moves the progress of one partition on from the position `from`, in the transaction of what it speaks of. False where it
/// is no longer there: somebody else copies, too.
pub async fn advance(connection: &mut PgConnection, from: i64, to: &Progress) -> Result<bool> {
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

/// Appends recorded events behind `head`, which this transaction has locked, and says where the partition ends then.
pub async fn append(
    connection: &mut PgConnection,
    partition: i16,
    head: &Head,
    events: &[&LinkedEvent],
) -> Result<Head> {
    let Some(last) = events.last() else { return Ok(head.clone()) };
    let hashes = links(partition, head, events);
    let column = |text: fn(&LinkedEvent) -> &str| events.iter().map(|linked| text(linked)).collect::<Vec<_>>();
    query_file!(
        "src/append_recorded.sql",
        partition,
        head.position,
        &events.iter().map(|linked| linked.event.id).collect::<Vec<_>>(),
        &events.iter().map(|linked| linked.event.stream_id).collect::<Vec<_>>(),
        &events.iter().map(|linked| linked.event.version).collect::<Vec<_>>(),
        &column(|linked| &linked.event.event_type) as _,
        &events.iter().map(|linked| linked.event.schema_version).collect::<Vec<_>>(),
        &column(|linked| &linked.event.data) as _,
        &column(|linked| &linked.metadata) as _,
        &events.iter().map(|linked| linked.event.recorded_at).collect::<Vec<_>>(),
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

fn links(partition: i16, head: &Head, events: &[&LinkedEvent]) -> Vec<Hash> {
    let mut previous = head.hash;
    (head.position + 1..)
        .zip(events)
        .map(|(position, linked)| {
            previous = chain::hash(&previous, Link { position, ..linked.link(partition) });
            previous
        })
        .collect()
}

/// The events at these versions of their streams, in no order.
pub async fn find(connection: &mut PgConnection, partition: i16, wanted: &[StreamVersion]) -> Result<Vec<LinkedEvent>> {
    let ids: Vec<Uuid> = wanted.iter().map(|wanted| wanted.stream_id).collect();
    let versions: Vec<i64> = wanted.iter().map(|wanted| wanted.version).collect();
    let rows = query_file_as!(Row, "src/find.sql", partition, &ids, &versions).fetch_all(connection).await?;
    Ok(rows.into_iter().map(LinkedEvent::from).collect())
}

/// Up to `limit` keys behind `after` that were recorded later than `since` and up to `until`, in the order of the key.
pub async fn keys(
    connection: &mut PgConnection,
    partition: i16,
    after: Option<&KeyId>,
    (since, until): (DateTime<Utc>, DateTime<Utc>),
    limit: i64,
) -> Result<Vec<(Key, DateTime<Utc>)>> {
    let (caller, key) = after.map_or(("", ""), |after| (&*after.caller, &*after.key));
    let rows = query!(
        r#"SELECT caller, key, fingerprint, receipt::text AS "receipt!", recorded_at
           FROM idempotency_key
           WHERE partition = $1 AND (caller, key) > ($2, $3) AND recorded_at > $4 AND recorded_at <= $5
           ORDER BY caller, key
           LIMIT $6"#,
        partition,
        caller,
        key,
        since,
        until,
        limit
    )
    .fetch_all(connection)
    .await?;
    let keyed = rows.into_iter().map(|row| {
        let id = KeyId { caller: row.caller.into(), key: row.key };
        (Key { id, fingerprint: row.fingerprint, receipt: row.receipt }, row.recorded_at)
    });
    Ok(keyed.collect())
}

/// Writes keys as they were recorded; those that are there already stay.
pub async fn write_keys(connection: &mut PgConnection, partition: i16, keys: &[(Key, DateTime<Utc>)]) -> Result<()> {
    query!(
        "INSERT INTO idempotency_key (partition, caller, key, fingerprint, receipt, recorded_at)
         SELECT $1, k.caller, k.key, k.fingerprint, k.receipt::json, k.recorded_at
         FROM unnest($2::text[], $3::text[], $4::bytea[], $5::text[], $6::timestamptz[])
             AS k(caller, key, fingerprint, receipt, recorded_at)
         ON CONFLICT (partition, caller, key) DO NOTHING",
        partition,
        &keys.iter().map(|(key, _)| &*key.id.caller).collect::<Vec<_>>() as _,
        &keys.iter().map(|(key, _)| &*key.id.key).collect::<Vec<_>>() as _,
        &keys.iter().map(|(key, _)| &key.fingerprint[..]).collect::<Vec<_>>() as _,
        &keys.iter().map(|(key, _)| &*key.receipt).collect::<Vec<_>>() as _,
        &keys.iter().map(|(_, recorded_at)| *recorded_at).collect::<Vec<_>>()
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Up to `limit` snapshots of this shape behind the stream `after`.
pub async fn snapshots(
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

/// Writes snapshots as they were kept.
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
