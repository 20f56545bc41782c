//! Loads streams for the write side: the snapshot if there is one, then the events after it. Every statement is limited, so that
//! one long stream holds up neither a batch nor a lock.

use chrono::{DateTime, Utc};
use futures_util::{Stream, TryStreamExt, stream::iter};
use sqlx::{PgConnection, Result, query, query_file};
use uuid::Uuid;

use super::{
    event::StreamVersion,
    locked_read::{EVENT_ROW_BYTES, LOCKED_READ_BYTES_MAX, LOCKED_READ_EVENTS_MAX},
    log::Snapshot,
};

/// How many events one statement looks up. Its response is small enough for a caller that holds the log-head lock.
const FOUND_MEMBERS_MAX: usize = 256;

/// A snapshot or an event of a stream. Items arrive in the order in which they are folded.
#[derive(Debug)]
pub enum StreamItem {
    /// The state after `version` events. If a stream has one, it is the stream's first item.
    Snapshot {
        /// The version of the last event that is part of the state.
        version: i64,
        /// The state's JSON.
        state: String,
    },
    /// One event.
    Event {
        /// The version of the stream after this event.
        version: i64,
        /// The name of the event type.
        event_type: String,
        /// The version of the JSON schema of `data`.
        schema_version: i16,
        /// JSON as it was written.
        data: String,
        /// The time of the append.
        recorded_at: DateTime<Utc>,
    },
}

/// Reads the streams `ids` of one partition in one statement, stream by stream, each in the order of its versions. Of each stream
/// it reads at most `events_max` events.
///
/// Snapshots of another `state_version` are ignored. A stream without a usable snapshot is read from its first event, and
/// `None` ignores all snapshots.
///
/// # Errors
/// The stream yields a database error and then ends.
pub fn load<'a>(
    connection: &'a mut PgConnection,
    partition: i16,
    ids: &'a [Uuid],
    state_version: Option<i16>,
    events_max: i64,
) -> impl Stream<Item = Result<(Uuid, StreamItem)>> + 'a {
    query_file!("src/load_streams.sql", partition, ids, state_version, events_max)
        .fetch(connection)
        .map_ok(|row| {
            // Only the first row of a stream has the state.
            let snapshot = row.snapshot_version.zip(row.snapshot_state);
            let snapshot = snapshot.map(|(version, state)| StreamItem::Snapshot { version, state });
            let event = match (row.version, row.event_type, row.schema_version, row.data, row.recorded_at) {
                (Some(version), Some(event_type), Some(schema_version), Some(data), Some(recorded_at)) => {
                    Some(StreamItem::Event { version, event_type, schema_version, data, recorded_at })
                }
                _ => None,
            };
            iter(snapshot.into_iter().chain(event).map(move |item| Ok((row.stream_id, item))))
        })
        .try_flatten()
}

/// A member of the data of events of one type.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// The name of the event type.
    pub event_type: &'a str,
    /// The name of the member. Its text has at most 64 characters.
    pub name: &'a str,
}

/// Reads a member of the data of these events, as text. Events of other types, and without the member, are left out.
///
/// # Errors
/// A database error.
pub async fn find_member(
    connection: &mut PgConnection,
    partition: i16,
    events: &[StreamVersion],
    member: Member<'_>,
) -> Result<Vec<(StreamVersion, String)>> {
    let mut found = Vec::new();
    for events in events.chunks(FOUND_MEMBERS_MAX) {
        let ids: Vec<Uuid> = events.iter().map(|event| event.stream_id).collect();
        let versions: Vec<i64> = events.iter().map(|event| event.version).collect();
        let rows = query_file!("src/find_member.sql", partition, &ids, &versions, member.event_type, member.name);
        found.extend(
            rows.fetch_all(&mut *connection).await?.into_iter().filter_map(|row| {
                Some((StreamVersion { stream_id: row.stream_id, version: row.version }, row.member?))
            }),
        );
    }
    Ok(found)
}

/// The type of an event and a member of its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeAndMember {
    /// The name of the event type.
    pub event_type: String,
    /// The member as text; `None` if the data have no such member.
    pub member: Option<String>,
}

/// Reads the types of these events, and of each the member `name` of its data, as a text of at most 32 characters. Missing events are
/// left out.
///
/// # Errors
/// A database error.
pub async fn find_type_and_member(
    connection: &mut PgConnection,
    partition: i16,
    events: &[StreamVersion],
    name: &str,
) -> Result<Vec<(StreamVersion, TypeAndMember)>> {
    let mut found = Vec::new();
    for events in events.chunks(FOUND_MEMBERS_MAX) {
        let ids: Vec<Uuid> = events.iter().map(|event| event.stream_id).collect();
        let versions: Vec<i64> = events.iter().map(|event| event.version).collect();
        let rows = query_file!("src/find_type_and_member.sql", partition, &ids, &versions, name);
        found.extend(rows.fetch_all(&mut *connection).await?.into_iter().map(|row| {
            let event = StreamVersion { stream_id: row.stream_id, version: row.version };
            (event, TypeAndMember { event_type: row.event_type, member: row.member })
        }));
    }
    Ok(found)
}

/// An event of a stream.
#[derive(Debug)]
pub struct StreamEvent {
    /// The stream.
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

/// Reads up to `events_max` events of one stream after a version.
///
/// # Errors
/// A database error.
pub async fn events_after(
    connection: &mut PgConnection,
    partition: i16,
    after: StreamVersion,
    events_max: i64,
) -> Result<Vec<StreamEvent>> {
    let rows = query!(
        r#"SELECT version, type AS event_type, schema_version, data::text AS "data!", recorded_at
           FROM event
           WHERE partition = $1 AND stream_id = $2 AND version > $3
           ORDER BY version
           LIMIT $4"#,
        partition,
        after.stream_id,
        after.version,
        events_max
    );
    let rows = rows.fetch_all(connection).await?.into_iter().map(|row| StreamEvent {
        stream_id: after.stream_id,
        version: row.version,
        event_type: row.event_type,
        schema_version: row.schema_version,
        data: row.data,
        recorded_at: row.recorded_at,
    });
    Ok(rows.collect())
}

/// Reads events of several streams after versions that the caller knows, for a caller that holds a lock: at most
/// [`LOCKED_READ_BYTES_MAX`], stream by stream, each in the order of its versions. An empty result means that there are no more.
///
/// # Errors
/// A database error.
pub async fn locked_events_after(
    connection: &mut PgConnection,
    partition: i16,
    known: &[StreamVersion],
) -> Result<Vec<StreamEvent>> {
    let rows = query_file!(
        "src/events_after_versions.sql",
        partition,
        &known.iter().map(|known| known.stream_id).collect::<Vec<_>>(),
        &known.iter().map(|known| known.version).collect::<Vec<_>>(),
        LOCKED_READ_EVENTS_MAX,
        LOCKED_READ_BYTES_MAX as i64,
        EVENT_ROW_BYTES
    );
    let rows = rows.fetch_all(connection).await?.into_iter().map(|row| StreamEvent {
        stream_id: row.stream_id,
        version: row.version,
        event_type: row.event_type,
        schema_version: row.schema_version,
        data: row.data,
        recorded_at: row.recorded_at,
    });
    Ok(rows.collect())
}

/// Reads the snapshot of one stream, unless its state has another JSON schema than `state_version`.
///
/// # Errors
/// A database error.
pub async fn read_snapshot(
    connection: &mut PgConnection,
    partition: i16,
    stream_id: Uuid,
    state_version: i16,
) -> Result<Option<Snapshot>> {
    let row = query!(
        r#"SELECT version, state::text AS "state!"
           FROM snapshot
           WHERE partition = $1 AND stream_id = $2 AND state_version = $3"#,
        partition,
        stream_id,
        state_version
    );
    let row = row.fetch_optional(connection).await?;
    Ok(row.map(|row| Snapshot { stream_id, version: row.version, state: row.state }))
}

/// Writes the snapshot of one stream, unless a newer one of the same JSON schema is recorded.
///
/// # Errors
/// A database error.
pub async fn write_snapshot(
    connection: &mut PgConnection,
    partition: i16,
    state_version: i16,
    snapshot: &Snapshot,
) -> Result<()> {
    query!(
        "INSERT INTO snapshot AS held (partition, stream_id, version, state_version, state)
         VALUES ($1, $2, $3, $4, $5::text::json)
         ON CONFLICT (partition, stream_id) DO UPDATE
         SET version = EXCLUDED.version, state_version = EXCLUDED.state_version, state = EXCLUDED.state
         WHERE held.version < EXCLUDED.version OR held.state_version <> EXCLUDED.state_version",
        partition,
        snapshot.stream_id,
        snapshot.version,
        state_version,
        snapshot.state
    )
    .execute(connection)
    .await?;
    Ok(())
}
