//! Pages of the log with everything that was recorded, for whoever shows it.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Result, query_as, query_scalar};
use uuid::Uuid;

use super::whole::{LinkedEvent, Row};

/// Up to `limit` events from `position` on. The first one tells whoever has read it before whether it is still the same.
pub async fn page(
    connection: &mut PgConnection,
    partition: i16,
    position: i64,
    limit: i64,
) -> Result<Vec<LinkedEvent>> {
    let rows = query_as!(
        Row,
        r#"SELECT position, id, stream_id, version, type AS event_type, schema_version, data::text AS "data!",
                  metadata::text AS "metadata!", recorded_at, hash, NULL::bytea AS previous_hash
           FROM event
           WHERE partition = $1 AND position >= $2
           ORDER BY position
           LIMIT $3"#,
        partition,
        position,
        limit
    );
    Ok(linked(rows.fetch_all(connection).await?))
}

/// Up to `limit` events of a type that moves no money after `position`, found without reading those between.
pub async fn of_rare_type(
    connection: &mut PgConnection,
    partition: i16,
    event_type: &str,
    position: i64,
    limit: i64,
) -> Result<Vec<LinkedEvent>> {
    // The condition of the index, so that it is used.
    let rows = query_as!(
        Row,
        r#"SELECT position, id, stream_id, version, type AS event_type, schema_version, data::text AS "data!",
                  metadata::text AS "metadata!", recorded_at, hash, NULL::bytea AS previous_hash
           FROM event
           WHERE partition = $1 AND type = $2 AND position > $3
             AND type NOT IN ('MoneyDeposited', 'MoneyWithdrawn', 'TransferSent', 'TransferReceived')
           ORDER BY position
           LIMIT $4"#,
        partition,
        event_type,
        position,
        limit
    );
    Ok(linked(rows.fetch_all(connection).await?))
}

/// Up to `limit` events of any type after `position` and up to `last`, all of which are read.
pub async fn of_common_type(
    connection: &mut PgConnection,
    partition: i16,
    event_type: &str,
    position: i64,
    last: i64,
    limit: i64,
) -> Result<Vec<LinkedEvent>> {
    let rows = query_as!(
        Row,
        r#"SELECT position, id, stream_id, version, type AS event_type, schema_version, data::text AS "data!",
                  metadata::text AS "metadata!", recorded_at, hash, NULL::bytea AS previous_hash
           FROM event
           WHERE partition = $1 AND type = $2 AND position > $3 AND position <= $4
           ORDER BY position
           LIMIT $5"#,
        partition,
        event_type,
        position,
        last,
        limit
    );
    Ok(linked(rows.fetch_all(connection).await?))
}

/// Up to `limit` events of a stream after `version`.
pub async fn of_stream(
    connection: &mut PgConnection,
    partition: i16,
    stream_id: Uuid,
    version: i64,
    limit: i64,
) -> Result<Vec<LinkedEvent>> {
    let rows = query_as!(
        Row,
        r#"SELECT position, id, stream_id, version, type AS event_type, schema_version, data::text AS "data!",
                  metadata::text AS "metadata!", recorded_at, hash, NULL::bytea AS previous_hash
           FROM event
           WHERE partition = $1 AND stream_id = $2 AND version > $3
           ORDER BY version
           LIMIT $4"#,
        partition,
        stream_id,
        version,
        limit
    );
    Ok(linked(rows.fetch_all(connection).await?))
}

/// The hash of the event at `position`, if there is one.
pub async fn hash_at(connection: &mut PgConnection, partition: i16, position: i64) -> Result<Option<Vec<u8>>> {
    query_scalar!("SELECT hash FROM event WHERE partition = $1 AND position = $2", partition, position)
        .fetch_optional(connection)
        .await
}

/// The position of the last event recorded before `time`; 0 where there is none.
pub async fn position_at(connection: &mut PgConnection, partition: i16, time: DateTime<Utc>) -> Result<i64> {
    query_scalar!(r#"SELECT position_at($1, $2) AS "position!""#, partition, time).fetch_one(connection).await
}

fn linked(rows: Vec<Row>) -> Vec<LinkedEvent> {
    rows.into_iter().map(LinkedEvent::from).collect()
}
