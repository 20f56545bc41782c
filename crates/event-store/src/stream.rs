//! Loads streams for the write side: the snapshot if there is one, then the events after it.

use futures_util::{Stream, TryStreamExt, stream::iter};
use sqlx::{PgConnection, Result, query_file};
use uuid::Uuid;

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
    },
}

/// Reads the streams `ids` of one partition in one statement, stream by stream, each in the order of its versions.
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
) -> impl Stream<Item = Result<(Uuid, StreamItem)>> + 'a {
    let mut last = None;
    query_file!("src/load_streams.sql", partition, ids, state_version)
        .fetch(connection)
        .map_ok(move |row| {
            // Every row of a stream repeats its snapshot.
            let is_first = last.replace(row.stream_id) != Some(row.stream_id);
            let snapshot = row.snapshot_version.zip(row.snapshot_state).filter(|_| is_first);
            let snapshot = snapshot.map(|(version, state)| StreamItem::Snapshot { version, state });
            let event = match (row.version, row.event_type, row.schema_version, row.data) {
                (Some(version), Some(event_type), Some(schema_version), Some(data)) => {
                    Some(StreamItem::Event { version, event_type, schema_version, data })
                }
                _ => None,
            };
            iter(snapshot.into_iter().chain(event).map(move |item| Ok((row.stream_id, item))))
        })
        .try_flatten()
}
