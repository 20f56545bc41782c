//! Reads the rows of reversals, and writes them into the copy of a log. [`log::append`](super::log::append) writes them otherwise.

use sqlx::{PgConnection, Result, query, query_file};
use uuid::Uuid;

use super::{event::StreamVersion, log::Reversal};

/// How many movements one statement looks up. Its response is small enough for a caller that holds the log-head lock.
const MOVEMENTS_MAX: usize = 256;

/// An event that a reversal names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Movement {
    /// The account and the version.
    pub event: StreamVersion,
    /// The id of the event at this version; `None` if there is none.
    pub event_id: Option<Uuid>,
    /// The last reversal; `None` if the event was never reversed.
    pub last: Option<Reversal>,
}

/// Reads the ids of these events, and the last reversal of each.
///
/// # Errors
/// A database error.
pub async fn movements(
    connection: &mut PgConnection,
    partition: i16,
    events: &[StreamVersion],
) -> Result<Vec<Movement>> {
    let mut found = Vec::new();
    for events in events.chunks(MOVEMENTS_MAX) {
        let ids: Vec<Uuid> = events.iter().map(|event| event.stream_id).collect();
        let versions: Vec<i64> = events.iter().map(|event| event.version).collect();
        let rows = query_file!("src/movements.sql", partition, &ids, &versions);
        found.extend(rows.fetch_all(&mut *connection).await?.into_iter().map(|row| {
            let event = StreamVersion { stream_id: row.account_id, version: row.version };
            let last = row.number.zip(row.amount).zip(row.reversed).zip(row.reversing_version);
            let last = last.map(|(((number, amount), reversed), reversing_version)| Reversal {
                movement: event,
                number,
                amount,
                reversed,
                reversing_version,
            });
            Movement { event, event_id: row.event_id, last }
        }));
    }
    Ok(found)
}

/// Reads up to `limit` reversals after the one with this movement and number, by ascending movement and number.
///
/// # Errors
/// A database error.
pub async fn page(
    connection: &mut PgConnection,
    partition: i16,
    (after, number): (StreamVersion, i32),
    limit: i64,
) -> Result<Vec<Reversal>> {
    let rows = query!(
        "SELECT account_id, version, number, amount, reversed, reversing_version
         FROM reversal
         WHERE partition = $1 AND (account_id, version, number) > ($2, $3, $4)
         ORDER BY account_id, version, number
         LIMIT $5",
        partition,
        after.stream_id,
        after.version,
        number,
        limit
    );
    let rows = rows.fetch_all(connection).await?.into_iter().map(|row| Reversal {
        movement: StreamVersion { stream_id: row.account_id, version: row.version },
        number: row.number,
        amount: row.amount,
        reversed: row.reversed,
        reversing_version: row.reversing_version,
    });
    Ok(rows.collect())
}

/// Writes the reversals of copied events.
///
/// # Errors
/// A database error.
pub async fn write_imported(connection: &mut PgConnection, partition: i16, reversals: &[Reversal]) -> Result<()> {
    query!(
        "INSERT INTO reversal (partition, account_id, version, number, amount, reversed, reversing_version)
         SELECT $1, r.account_id, r.version, r.number, r.amount, r.reversed, r.reversing_version
         FROM unnest($2::uuid[], $3::bigint[], $4::integer[], $5::bigint[], $6::bigint[], $7::bigint[])
             AS r(account_id, version, number, amount, reversed, reversing_version)",
        partition,
        &reversals.iter().map(|reversal| reversal.movement.stream_id).collect::<Vec<_>>(),
        &reversals.iter().map(|reversal| reversal.movement.version).collect::<Vec<_>>(),
        &reversals.iter().map(|reversal| reversal.number).collect::<Vec<_>>(),
        &reversals.iter().map(|reversal| reversal.amount).collect::<Vec<_>>(),
        &reversals.iter().map(|reversal| reversal.reversed).collect::<Vec<_>>(),
        &reversals.iter().map(|reversal| reversal.reversing_version).collect::<Vec<_>>()
    )
    .execute(connection)
    .await?;
    Ok(())
}
