//! Streams by id: the snapshot where there is one, then the events after it.

use futures_util::TryStreamExt;
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

/// Reads the streams `ids` in one statement and hands each piece to `fold`, stream by stream. Snapshots of another
/// `state_version` are passed over.
pub async fn load(
    connection: &mut PgConnection,
    partition: i16,
    ids: &[Uuid],
    state_version: i16,
    mut fold: impl FnMut(Uuid, Piece),
) -> Result<()> {
    let mut rows = query_file!("src/event_store/load.sql", partition, ids, state_version).fetch(connection);
    let mut stream_id = None;
    while let Some(row) = rows.try_next().await? {
        if stream_id != Some(row.stream_id) {
            stream_id = Some(row.stream_id);
            if let (Some(version), Some(state)) = (row.snapshot_version, row.snapshot_state) {
                fold(row.stream_id, Piece::Snapshot { version, state });
            }
        }
        if let (Some(version), Some(event_type), Some(schema_version), Some(data)) =
            (row.version, row.event_type, row.schema_version, row.data)
        {
            fold(row.stream_id, Piece::Event { version, event_type, schema_version, data });
        }
    }
    Ok(())
}
