//! Recorded events decoded for projections, the batches in which they are read, and the errors of events that cannot be projected.
//! The errors travel as [`sqlx::Error`], so that one error type covers a whole step.

use sqlx::{PgConnection, Result};

use passbook_domain::{Aggregate, DecodeError, Event, EventType};
use passbook_event_store::{RecordedEvent, StreamVersion, reader};

/// Limit of events per transaction of the live views. A row that changes often within a batch is written once.
pub(crate) const BATCH_EVENTS_MAX: i64 = 20_000;
/// Limit of events per transaction of a rebuild. Its rows are written in the order of their keys, so a larger batch finds more of them
/// in each page. The events of two batches are in memory at once, some 300 bytes each. Partitions share this limit: each of them may
/// have a batch in memory.
pub(crate) const REBUILD_EVENTS_MAX: i64 = 100_000;
/// No further events join a batch after so many bytes of their data, because metadata and references can make events large.
const BATCH_BYTES_MAX: usize = 32 << 20;

/// A recorded event and its decoded content.
#[derive(Debug)]
pub struct DecodedEvent {
    /// The event as stored in the log. Batches drop its `data`, because `event` is its content.
    pub recorded: RecordedEvent,
    /// The decoded content.
    pub event: Event,
    /// The place of the account in an [`AccountTable`](crate::AccountTable), which spares others the look-up; `None` if it is unknown.
    pub place: Option<u32>,
}

/// Consecutive events of a partition. Those of other aggregates than accounts change no view, and are left out.
#[derive(Debug, Default)]
pub(crate) struct DecodedBatch {
    pub(crate) events: Vec<DecodedEvent>,
    /// The number of events in the log, with those that are left out.
    pub(crate) count: i64,
}

impl TryFrom<RecordedEvent> for DecodedEvent {
    type Error = sqlx::Error;

    fn try_from(recorded: RecordedEvent) -> Result<Self> {
        match Event::decode(&recorded.event_type, recorded.schema_version, &recorded.data) {
            Ok(event) => Ok(Self { recorded: RecordedEvent { data: String::new(), ..recorded }, event, place: None }),
            Err(source) => Err(sqlx::Error::Decode(Box::new(Undecodable { recorded, source }))),
        }
    }
}

/// Limit of events per transaction of a rebuild: a multiple of [`BATCH_EVENTS_MAX`].
pub(crate) fn rebuild_events(partitions: usize) -> i64 {
    (REBUILD_EVENTS_MAX / partitions as i64 / BATCH_EVENTS_MAX).max(1) * BATCH_EVENTS_MAX
}

/// Reads the next batch of up to `limit` events after `position`. A missing position is an error: no event is ever skipped.
pub(crate) async fn read_batch(
    connection: &mut PgConnection,
    partition: i16,
    position: i64,
    limit: i64,
) -> Result<DecodedBatch> {
    let mut batch = PartialBatch::new(position, limit);
    while let Some((after, part)) = batch.next_part() {
        batch.add(reader::events_after(connection, partition, after, part).await?)?;
    }
    Ok(batch.read)
}

/// A batch that is read and decoded in parts of [`BATCH_EVENTS_MAX`], so that the texts of the whole batch are not in memory at once.
/// If its events are large, it ends behind a whole part.
struct PartialBatch {
    /// The position before the first event.
    position: i64,
    limit: i64,
    read: DecodedBatch,
    /// The bytes of the events' data.
    bytes: usize,
    /// Whether the log has no more events.
    is_at_end: bool,
}

impl PartialBatch {
    fn new(position: i64, limit: i64) -> Self {
        Self { position, limit, read: DecodedBatch::default(), bytes: 0, is_at_end: false }
    }

    /// The position before the next part, and the most events that it has; `None` if the batch is complete.
    fn next_part(&self) -> Option<(i64, i64)> {
        let missing = self.limit - self.read.count;
        let is_complete = missing == 0 || self.is_at_end || self.bytes > BATCH_BYTES_MAX;
        (!is_complete).then(|| (self.position + self.read.count, missing.min(BATCH_EVENTS_MAX)))
    }

    fn add(&mut self, part: Vec<RecordedEvent>) -> Result<()> {
        let Some((after, events_max)) = self.next_part() else { return Ok(()) };
        self.is_at_end = (part.len() as i64) < events_max;
        self.bytes += part.iter().map(|event| event.data.len()).sum::<usize>();
        let part = decode(after, part)?;
        self.read.count += part.count;
        match self.read.events.is_empty() {
            true => self.read.events = part.events,
            false => self.read.events.extend(part.events),
        }
        Ok(())
    }
}

/// Reads the first events after `position` for a caller that holds locks; no more than fit into the buffers of a socket. An empty
/// result means that there are no more.
pub(crate) async fn read_locked_batch(
    connection: &mut PgConnection,
    partition: i16,
    position: i64,
) -> Result<DecodedBatch> {
    decode(position, reader::locked_events_after(connection, partition, position).await?)
}

/// Decodes the events after `position`, which must have no gaps.
pub(crate) fn decode(position: i64, events: Vec<RecordedEvent>) -> Result<DecodedBatch> {
    let count = events.len() as i64;
    let decoded = (position + 1..).zip(events).filter_map(|(expected, recorded)| match recorded.position == expected {
        true if is_of_account(&recorded) => Some(recorded.try_into()),
        true => None,
        false => Some(Err(cannot_apply(format!("the log has no event at position {expected}")))),
    });
    Ok(DecodedBatch { events: decoded.collect::<Result<_>>()?, count })
}

/// Whether an event is one of an account, or of a type that only a newer release knows.
pub(crate) fn is_of_account(recorded: &RecordedEvent) -> bool {
    EventType::aggregate_of(&recorded.event_type) == Aggregate::BankAccount
}

/// A recorded event that this release cannot decode.
#[derive(Debug, thiserror::Error)]
#[error("the event at position {} cannot be decoded: {source}", recorded.position)]
struct Undecodable {
    recorded: RecordedEvent,
    source: DecodeError,
}

/// The event behind an error, if it was written by a newer release; otherwise `None`.
pub(crate) fn event_of_newer_release(error: &sqlx::Error) -> Option<StreamVersion> {
    let sqlx::Error::Decode(inner) = error else { return None };
    let Undecodable { recorded, source } = inner.downcast_ref()?;
    let event = StreamVersion { stream_id: recorded.stream_id, version: recorded.version };
    source.is_of_newer_release().then_some(event)
}

/// The error for events or checkpoints that contradict each other.
pub(crate) fn cannot_apply(reason: String) -> sqlx::Error {
    sqlx::Error::Decode(reason.into())
}

#[cfg(test)]
mod tests {
    use passbook_event_store::{RecordedEvent, timestamp};
    use uuid::Uuid;

    use super::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX, PartialBatch, REBUILD_EVENTS_MAX, rebuild_events};

    #[test]
    fn partitions_share_the_events_of_a_rebuild_in_whole_parts() {
        assert_eq!(rebuild_events(1), REBUILD_EVENTS_MAX);
        assert_eq!([2, 4, 64].map(rebuild_events), [40_000, 20_000, BATCH_EVENTS_MAX]);
    }

    /// How many events a batch has whose events have so many bytes of text each.
    fn events_of_batch(bytes: usize) -> i64 {
        let data = format!(r#"{{"amount":1,"reference":"{}"}}"#, "x".repeat(bytes));
        let event = |position| RecordedEvent {
            position,
            id: Uuid::nil(),
            stream_id: Uuid::nil(),
            version: position,
            event_type: "MoneyDeposited".to_owned(),
            schema_version: 1,
            data: data.clone(),
            recorded_at: timestamp::now(),
        };
        let mut batch = PartialBatch::new(7, 3 * BATCH_EVENTS_MAX);
        while let Some((after, events)) = batch.next_part() {
            batch.add((after + 1..=after + events).map(event).collect()).expect("the events can be decoded");
        }
        batch.read.events.len() as i64
    }

    #[test]
    fn batch_of_large_events_ends_behind_a_whole_part() {
        let half = BATCH_BYTES_MAX / (2 * BATCH_EVENTS_MAX as usize);
        assert_eq!([1, half, 2 * half].map(events_of_batch), [3, 2, 1].map(|parts| parts * BATCH_EVENTS_MAX));
    }
}
