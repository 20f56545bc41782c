//! Streams by id: the snapshot where there is one, then the events after it.

use futures_util::{Stream, TryStreamExt, stream::iter};
use sqlx::{PgConnection, Result, query_file};
use uuid::Uuid;

/// One piece of a stream's history, in the order in which it is folded.
#[derive(Debug)]
pub enum Piece {
    /// The state after `version` events; comes first, where it comes.
    Snapshot {
        /// The last version folded in.
        version: i64,
        /// The state's JSON.
        state: String,
    },
    /// One event.
    Event {
        /// Its place in the stream.
        version: i64,
        /// What kind of fact it is.
        event_type: String,
        /// The version of the shape of `data`.
        schema_version: i16,
        /// JSON as it was written.
        data: String,
    },
}

/// Reads the streams `ids` in one statement, stream by stream and each in order. Only a snapshot of this
/// `state_version` is used; without one, or with `None`, a stream comes from its first event.
pub fn load<'a>(
    connection: &'a mut PgConnection,
    partition: i16,
    ids: &'a [Uuid],
    state_version: Option<i16>,
) -> impl Stream<Item = Result<(Uuid, Piece)>> + 'a {
    let mut last = None;
    query_file!("src/load.sql", partition, ids, state_version)
        .fetch(connection)
        .map_ok(move |row| {
            // Every row of a stream names its snapshot.
            let is_first = last.replace(row.stream_id) != Some(row.stream_id);
            let snapshot = row.snapshot_version.zip(row.snapshot_state).filter(|_| is_first);
            let snapshot = snapshot.map(|(version, state)| Piece::Snapshot { version, state });
            let event = match (row.version, row.event_type, row.schema_version, row.data) {
                (Some(version), Some(event_type), Some(schema_version), Some(data)) => {
                    Some(Piece::Event { version, event_type, schema_version, data })
                }
                _ => None,
            };
            iter(snapshot.into_iter().chain(event).map(move |piece| Ok((row.stream_id, piece))))
        })
        .try_flatten()
}
