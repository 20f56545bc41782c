//! Recorded events decoded for projections, and the batches in which they are read.

use sqlx::{PgConnection, Result};

use crate::projection_error::{cannot_apply, undecodable};
use passbook_domain::Event;
use passbook_event_store::{RecordedEvent, feed};

/// Limit of events per transaction. A row that changes often within a batch is written once.
pub(crate) const BATCH_EVENTS_MAX: i64 = 20_000;

/// A recorded event and its decoded content.
#[derive(Debug)]
pub struct DecodedEvent {
    /// The event as stored in the log.
    pub recorded: RecordedEvent,
    /// The decoded content.
    pub event: Event,
}

impl TryFrom<RecordedEvent> for DecodedEvent {
    type Error = sqlx::Error;

    fn try_from(recorded: RecordedEvent) -> Result<Self> {
        match Event::decode(&recorded.event_type, recorded.schema_version, &recorded.data) {
            Ok(event) => Ok(Self { recorded, event }),
            Err(source) => Err(undecodable(recorded, source)),
        }
    }
}

/// Reads the next batch of events after `position`. A missing position is an error: no event is ever skipped.
pub(crate) async fn read_batch(
    connection: &mut PgConnection,
    partition: i16,
    position: i64,
) -> Result<Vec<DecodedEvent>> {
    let events = feed::read(connection, partition, position, BATCH_EVENTS_MAX).await?;
    (position + 1..)
        .zip(events)
        .map(|(expected, recorded)| match recorded.position == expected {
            true => recorded.try_into(),
            false => Err(cannot_apply(format!("the log has no event at position {expected}"))),
        })
        .collect()
}
