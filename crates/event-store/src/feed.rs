//! The log in the order of positions, for whoever follows it.

use sqlx::{PgConnection, Result, query_as};
use uuid::Uuid;

use super::RecordedEvent;

/// Up to `limit` events after `position`. Positions are dense and become visible in order, so a reader of everything
/// after its checkpoint can never skip one.
pub async fn read(
    connection: &mut PgConnection,
    partition: i16,
    position: i64,
    limit: i64,
) -> Result<Vec<RecordedEvent>> {
    query_as!(
        RecordedEvent,
        r#"SELECT position, id, stream_id, version, type AS event_type, schema_version, data::text AS "data!", recorded_at
           FROM event
           WHERE partition = $1 AND position > $2
           ORDER BY position
           LIMIT $3"#,
        partition,
        position,
        limit
    )
    .fetch_all(connection)
    .await
}

/// The first event of each of these streams.
pub async fn openings(connection: &mut PgConnection, partition: i16, streams: &[Uuid]) -> Result<Vec<RecordedEvent>> {
    query_as!(
        RecordedEvent,
        r#"SELECT
               first.position,
               first.id,
               first.stream_id,
               first.version,
               first.type AS event_type,
               first.schema_version,
               first.data::text AS "data!",
               first.recorded_at
           FROM unnest($2::uuid[]) AS wanted(stream_id)
           CROSS JOIN LATERAL (
               SELECT event.*
               FROM event
               WHERE event.partition = $1 AND event.stream_id = wanted.stream_id AND event.version = 1
               LIMIT 1
           ) AS first"#,
        partition,
        streams
    )
    .fetch_all(connection)
    .await
}

/// The first `limit` events of one stream, up to a position.
pub async fn of_stream(
    connection: &mut PgConnection,
    partition: i16,
    stream_id: Uuid,
    to: i64,
    limit: i64,
) -> Result<Vec<RecordedEvent>> {
    query_as!(
        RecordedEvent,
        r#"SELECT position, id, stream_id, version, type AS event_type, schema_version, data::text AS "data!", recorded_at
           FROM event
           WHERE partition = $1 AND stream_id = $2 AND position <= $3
           ORDER BY version
           LIMIT $4"#,
        partition,
        stream_id,
        to,
        limit
    )
    .fetch_all(connection)
    .await
}
