//! A decided batch on its way into the log, and what is known of it where no answer came.

use sqlx::PgConnection;

use super::{
    decide_batch::{Decided, HeadsByPartition, RecordedKeys},
    executor::UnknownAppend,
    storage_error::{StorageError, Kind, STATEMENT_MAX, within},
};
use passbook_event_store::{
    log::{self, Key, Outcome},
    settle::Place,
};
use passbook_telemetry::metrics::phase;

/// What became of a batch.
pub(super) enum Written {
    Done(HeadsByPartition),
    HeadMoved,
    KeysRecorded(RecordedKeys),
}

/// Writes a batch to each of its partitions; what has no events is confirmed. On the fast way there is one of them.
pub(super) async fn write(connection: &mut PgConnection, heads: &HeadsByPartition, decided: &Decided) -> Result<Written, StorageError> {
    let _write = phase("write");
    let mut next = heads.clone();
    if heads.len() > 1 {
        // Before the first append: behind the locks nobody else records a key, and nothing has to be taken back.
        for (partition, write) in decided.write.iter().filter(|(_, write)| !write.asked.is_empty()) {
            let confirmed =
                within(STATEMENT_MAX, log::confirm(connection, *partition, &heads[partition], &write.asked));
            match told(*partition, confirmed.await?, &mut next) {
                None => {}
                Some(written) => return Ok(written),
            }
        }
    }
    for (partition, write) in &decided.write {
        let head = &heads[partition];
        let outcome = match write.events.is_empty() {
            true if heads.len() > 1 => continue,
            true => within(STATEMENT_MAX, log::confirm(connection, *partition, head, &write.asked)).await?,
            false => within(STATEMENT_MAX, log::append(connection, *partition, head, write)).await?,
        };
        if let Some(written) = told(*partition, outcome, &mut next) {
            return Ok(written);
        }
    }
    Ok(Written::Done(next))
}

/// Takes a head that stands into `next`; everything else is the end of the writing.
fn told(partition: i16, outcome: Outcome, next: &mut HeadsByPartition) -> Option<Written> {
    match outcome {
        Outcome::Done(head) => {
            next.insert(partition, head);
            None
        }
        Outcome::HeadMoved => Some(Written::HeadMoved),
        Outcome::KeysRecorded(keys) => {
            let keyed = |key: Key| ((partition, key.id.clone()), key);
            Some(Written::KeysRecorded(keys.into_iter().map(keyed).collect()))
        }
    }
}

/// Keeps what is needed to find out later whether a lost write stands.
pub(super) fn remember_unknown_outcome(failure: StorageError, decided: Decided, heads: &HeadsByPartition, unknown: &mut Option<UnknownAppend>) -> StorageError {
    let place = |(partition, write): (&i16, &log::Batch)| {
        let (head, first) = heads.get(partition).zip(write.events.first())?;
        Some(Place { partition: *partition, position: head.position + 1, id: first.id })
    };
    let places: Vec<Place> = decided.write.iter().filter_map(place).collect();
    if failure.kind == Kind::UnknownOutcome && !places.is_empty() {
        *unknown = Some(UnknownAppend { places, answers: decided.answers });
    }
    failure
}
