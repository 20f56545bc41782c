//! Derives the rows of reversals from the events. The rows of the source are not copied, so a row that was lost or changed there
//! does not let a movement be reversed again.

use std::collections::{BTreeSet, HashMap};

use sqlx::PgConnection;

use super::error::Error;
use passbook_domain::{Event, EventType};
use passbook_event_store::{EventWithHash, RecordedEvent, StreamVersion, log::Reversal, reversals};

/// A reversal that counts against its movement.
struct Counted {
    movement: StreamVersion,
    amount: i64,
    reversing_version: i64,
}

/// Writes the rows of the reversals among these events, which are in the order of the log. The target contains all earlier events.
pub(super) async fn write_reversals(
    target: &mut PgConnection,
    target_partition: i16,
    events: &[&EventWithHash],
) -> Result<(), Error> {
    let mut counted = Vec::new();
    for linked in events {
        counted.extend(counted_reversal(&linked.event)?);
    }
    if counted.is_empty() {
        return Ok(());
    }
    let movements: BTreeSet<StreamVersion> = counted.iter().map(|counted| counted.movement).collect();
    let movements: Vec<StreamVersion> = movements.into_iter().collect();
    let found = reversals::movements(target, target_partition, &movements).await?;
    let mut last: HashMap<StreamVersion, Reversal> =
        found.into_iter().filter_map(|movement| Some((movement.event, movement.last?))).collect();
    let mut rows = Vec::with_capacity(counted.len());
    for Counted { movement, amount, reversing_version } in counted {
        let (number, before) = last.get(&movement).map_or((0, 0), |last| (last.number, last.reversed));
        let row = Reversal { movement, number: number + 1, amount, reversed: before + amount, reversing_version };
        last.insert(movement, row);
        rows.push(row);
    }
    Ok(reversals::write_imported(target, target_partition, &rows).await?)
}

/// The reversal that an event records, if it counts against its movement.
fn counted_reversal(recorded: &RecordedEvent) -> Result<Option<Counted>, Error> {
    let RecordedEvent { stream_id, version, event_type, schema_version, data, .. } = recorded;
    if event_type != EventType::MovementReversed.name() {
        return Ok(None);
    }
    let unreadable = |error| Error::UnreadableReversal { account_id: *stream_id, version: *version, error };
    let event = Event::decode(event_type, *schema_version, data).map_err(unreadable)?;
    let Event::MovementReversed(reversed) = event else { return Ok(None) };
    let movement = StreamVersion { stream_id: *stream_id, version: reversed.reverses_version };
    let counted = Counted { movement, amount: reversed.amount.minor_units(), reversing_version: *version };
    Ok(reversed.is_counted().then_some(counted))
}
