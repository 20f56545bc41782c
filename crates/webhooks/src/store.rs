//! The rows of endpoints, as workers read and write them. All rows are in partition 0. A worker writes only while it owns its endpoint.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{PgConnection, Result, postgres::types::PgInterval, query, query_scalar};
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    queues::{Account, Failures, Parked},
    shared_log::LogCursor,
};

/// An endpoint that a process owns.
#[derive(Clone, Debug)]
pub(crate) struct Claimed {
    pub(crate) webhook_id: Uuid,
    pub(crate) generation: i64,
    pub(crate) url: String,
    pub(crate) types: Vec<String>,
    pub(crate) account_id: Option<Uuid>,
    pub(crate) owner: Option<String>,
    pub(crate) secret: Vec<u8>,
    /// The secret before the last rotation, while it still signs.
    pub(crate) former_secret: Option<Vec<u8>>,
    pub(crate) former_secret_until: Option<DateTime<Utc>>,
}

/// What a worker knows about the health of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    pub(crate) failing_since: Option<DateTime<Utc>>,
    pub(crate) last_status: Option<i16>,
    pub(crate) last_error: Option<String>,
    /// Whether an event was given up: the endpoint becomes `failing`.
    pub(crate) is_given_up: bool,
}

/// An attempt, as it is stored.
#[derive(Clone, Debug)]
pub(crate) struct DeliveryRow {
    pub(crate) event_id: Uuid,
    pub(crate) event_type: String,
    /// The position of the event; `None` for a test event.
    pub(crate) position: Option<String>,
    pub(crate) attempted_at: DateTime<Utc>,
    pub(crate) status: Option<i16>,
    pub(crate) duration_ms: i32,
    pub(crate) error: Option<String>,
}

/// Claims an active endpoint that no process owns, the one that waits longest.
pub(crate) async fn claim(connection: &mut PgConnection, process: Uuid, lease: Duration) -> Result<Option<Claimed>> {
    let found = query_scalar!(
        "SELECT webhook_id
         FROM webhook
         WHERE partition = 0 AND state = 'active' AND (claimed_until IS NULL OR claimed_until < clock_timestamp())
         ORDER BY claimed_until NULLS FIRST
         LIMIT 1
         FOR UPDATE SKIP LOCKED"
    );
    let Some(webhook_id) = found.fetch_optional(&mut *connection).await? else { return Ok(None) };
    let row = query!(
        "UPDATE webhook
         SET claimed_by = $2, claimed_until = clock_timestamp() + $3::interval
         WHERE partition = 0 AND webhook_id = $1
         RETURNING generation, url, types, account_id, owner, secret, former_secret, former_secret_until",
        webhook_id,
        process,
        interval(lease)
    );
    let row = row.fetch_one(connection).await?;
    Ok(Some(Claimed {
        webhook_id,
        generation: row.generation,
        url: row.url,
        types: row.types,
        account_id: row.account_id,
        owner: row.owner,
        secret: row.secret,
        former_secret: row.former_secret,
        former_secret_until: row.former_secret_until,
    }))
}

/// The endpoints that a process owns, with their generations.
pub(crate) async fn owned(connection: &mut PgConnection, process: Uuid) -> Result<Vec<(Uuid, i64)>> {
    let rows = query!(
        "SELECT webhook_id, generation FROM webhook WHERE partition = 0 AND claimed_by = $1 AND state = 'active'",
        process
    );
    Ok(rows.fetch_all(connection).await?.into_iter().map(|row| (row.webhook_id, row.generation)).collect())
}

/// Writes the health of an endpoint, and extends the ownership. `false`: the process owns the endpoint no more, and must not write.
///
/// The caller's transaction then holds the row, so no other process claims the endpoint before it ends.
pub(crate) async fn keep(
    connection: &mut PgConnection,
    process: Uuid,
    claimed: &Claimed,
    health: &Health,
    lease: Duration,
) -> Result<bool> {
    let updated = query!(
        "UPDATE webhook
         SET claimed_until = clock_timestamp() + $4::interval, failing_since = $5, last_status = $6, last_error = $7,
             state = CASE WHEN $8 THEN 'failing' ELSE state END
         WHERE partition = 0 AND webhook_id = $1 AND generation = $2 AND claimed_by = $3 AND state = 'active'",
        claimed.webhook_id,
        claimed.generation,
        process,
        interval(lease),
        health.failing_since,
        health.last_status,
        health.last_error,
        health.is_given_up
    );
    Ok(updated.execute(connection).await?.rows_affected() == 1)
}

/// Gives an endpoint back, so that another process claims it at once.
pub(crate) async fn release(connection: &mut PgConnection, process: Uuid, claimed: &Claimed) -> Result<()> {
    query!(
        "UPDATE webhook SET claimed_by = NULL, claimed_until = NULL
         WHERE partition = 0 AND webhook_id = $1 AND generation = $2 AND claimed_by = $3",
        claimed.webhook_id,
        claimed.generation,
        process
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The cursors of an endpoint, by partition of the log.
pub(crate) async fn cursors(connection: &mut PgConnection, webhook_id: Uuid) -> Result<Vec<LogCursor>> {
    let rows = query!(
        "SELECT log_partition, position, hash
         FROM webhook_cursor
         WHERE partition = 0 AND webhook_id = $1
         ORDER BY log_partition",
        webhook_id
    );
    let rows = rows.fetch_all(connection).await?.into_iter();
    Ok(rows.map(|row| LogCursor { partition: row.log_partition, position: row.position, hash: row.hash }).collect())
}

/// Sets the cursors of an endpoint. The caller's transaction holds its row.
pub(crate) async fn set_cursors(connection: &mut PgConnection, webhook_id: Uuid, cursors: &[LogCursor]) -> Result<()> {
    query!(
        "INSERT INTO webhook_cursor (partition, webhook_id, log_partition, position, hash)
         SELECT 0, $1, c.log_partition, c.position, c.hash
         FROM unnest($2::smallint[], $3::bigint[], $4::bytea[]) AS c(log_partition, position, hash)
         ON CONFLICT (partition, webhook_id, log_partition) DO UPDATE
         SET position = EXCLUDED.position, hash = EXCLUDED.hash",
        webhook_id,
        &cursors.iter().map(|cursor| cursor.partition).collect::<Vec<_>>(),
        &cursors.iter().map(|cursor| cursor.position).collect::<Vec<_>>(),
        &cursors.iter().map(|cursor| cursor.hash.as_slice()).collect::<Vec<_>>() as _
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The parked accounts of an endpoint. The next attempts are measured from now on.
pub(crate) async fn parked(connection: &mut PgConnection, webhook_id: Uuid) -> Result<Vec<Parked>> {
    let rows = query!(
        r#"SELECT log_partition, stream_id, version, events, failures, failing_since,
                  greatest(0, extract(epoch FROM next_attempt_at - clock_timestamp()))::float8 AS "pause_s!"
           FROM webhook_parked
           WHERE partition = 0 AND webhook_id = $1"#,
        webhook_id
    );
    let parked = rows.fetch_all(connection).await?.into_iter().map(|row| Parked {
        account: Account { partition: row.log_partition, stream_id: row.stream_id },
        version: row.version,
        events: row.events,
        failures: Failures {
            count: row.failures.unsigned_abs(),
            since: row.failing_since,
            next_attempt: Instant::now() + Duration::from_secs_f64(row.pause_s),
        },
    });
    Ok(parked.collect())
}

/// Replaces the parked accounts of an endpoint. The caller's transaction holds its row.
pub(crate) async fn set_parked(connection: &mut PgConnection, webhook_id: Uuid, parked: &[Parked]) -> Result<()> {
    query!("DELETE FROM webhook_parked WHERE partition = 0 AND webhook_id = $1", webhook_id)
        .execute(&mut *connection)
        .await?;
    if parked.is_empty() {
        return Ok(());
    }
    let pauses = parked.iter().map(|parked| parked.failures.next_attempt.saturating_duration_since(Instant::now()));
    query!(
        "INSERT INTO webhook_parked
             (partition, webhook_id, log_partition, stream_id, version, events, failures, failing_since, next_attempt_at)
         SELECT 0, $1, p.log_partition, p.stream_id, p.version, p.events, p.failures, p.failing_since,
                clock_timestamp() + p.pause_ms * interval '1 millisecond'
         FROM unnest($2::smallint[], $3::uuid[], $4::bigint[], $5::bigint[], $6::integer[], $7::timestamptz[], $8::bigint[])
              AS p(log_partition, stream_id, version, events, failures, failing_since, pause_ms)",
        webhook_id,
        &parked.iter().map(|parked| parked.account.partition).collect::<Vec<_>>(),
        &parked.iter().map(|parked| parked.account.stream_id).collect::<Vec<_>>(),
        &parked.iter().map(|parked| parked.version).collect::<Vec<_>>(),
        &parked.iter().map(|parked| parked.events).collect::<Vec<_>>(),
        &parked.iter().map(|parked| i32::try_from(parked.failures.count).unwrap_or(i32::MAX)).collect::<Vec<_>>(),
        &parked.iter().map(|parked| parked.failures.since).collect::<Vec<_>>(),
        &pauses.map(|pause| i64::try_from(pause.as_millis()).unwrap_or(i64::MAX)).collect::<Vec<_>>()
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Adds attempts.
pub(crate) async fn add_deliveries(
    connection: &mut PgConnection,
    webhook_id: Uuid,
    deliveries: &[DeliveryRow],
) -> Result<()> {
    query!(
        "INSERT INTO webhook_delivery
             (partition, delivery_id, webhook_id, event_id, event_type, position, attempted_at, status, duration_ms, error)
         SELECT 0, d.delivery_id, $1, d.event_id, d.event_type, d.position, d.attempted_at, d.status, d.duration_ms, d.error
         FROM unnest($2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::timestamptz[], $7::smallint[], $8::integer[], $9::text[])
              AS d(delivery_id, event_id, event_type, position, attempted_at, status, duration_ms, error)",
        webhook_id,
        &deliveries.iter().map(|_| Uuid::now_v7()).collect::<Vec<_>>(),
        &deliveries.iter().map(|delivery| delivery.event_id).collect::<Vec<_>>(),
        &deliveries.iter().map(|delivery| delivery.event_type.as_str()).collect::<Vec<_>>() as _,
        &deliveries.iter().map(|delivery| delivery.position.as_deref()).collect::<Vec<_>>() as _,
        &deliveries.iter().map(|delivery| delivery.attempted_at).collect::<Vec<_>>(),
        &deliveries.iter().map(|delivery| delivery.status).collect::<Vec<_>>() as _,
        &deliveries.iter().map(|delivery| delivery.duration_ms).collect::<Vec<_>>(),
        &deliveries.iter().map(|delivery| delivery.error.as_deref()).collect::<Vec<_>>() as _
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes up to `limit` attempts before a time. Returns their number.
pub(crate) async fn delete_deliveries(connection: &mut PgConnection, before: DateTime<Utc>, limit: i64) -> Result<u64> {
    // A UUID of version 7 begins with the milliseconds since 1970, in 48 bits.
    let first = Uuid::from_u128(u128::from(before.timestamp_millis().unsigned_abs()) << 80);
    let old = query_scalar!(
        "SELECT delivery_id
         FROM webhook_delivery
         WHERE partition = 0 AND delivery_id < $1
         ORDER BY delivery_id
         LIMIT $2",
        first,
        limit
    );
    let old = old.fetch_all(&mut *connection).await?;
    // Another instance may have deleted some of them meanwhile.
    query!("DELETE FROM webhook_delivery WHERE partition = 0 AND delivery_id = ANY($1)", &old)
        .execute(connection)
        .await?;
    Ok(old.len() as u64)
}

fn interval(duration: Duration) -> PgInterval {
    let duration = TimeDelta::from_std(duration).unwrap_or(TimeDelta::hours(1));
    PgInterval { months: 0, days: 0, microseconds: duration.num_microseconds().unwrap_or(i64::MAX) }
}
