//! Reads a partition of the log in chunks. One task reads rows, and others hash and decode the chunks, because that is a third of the
//! time of a verification. The chunks arrive in the order of positions.
//!
//! An event's hash covers the hash before it. Each chunk is hashed with the *recorded* hashes before its events: a chain in which every
//! recorded hash follows from the one recorded before it is the chain that hashing in order would find.

use futures_util::TryStreamExt;
use sqlx::{PgConnection, Result};
use tokio::{
    sync::mpsc,
    task::{JoinHandle, spawn_blocking},
};
use tokio_util::task::AbortOnDropHandle;

use passbook_domain::{DecodeError, Event, OtherEvent};
use passbook_event_store::{EventWithHash, Hash, RecordedEvent, hash_chain, scan};
use passbook_read_model::DecodedEvent;

/// How many events a chunk has.
const CHUNK_EVENTS_MAX: usize = 1_000;
/// How many chunks are read ahead. They are hashed and decoded at the same time.
const CHUNKS_AHEAD_MAX: usize = 4;

/// An event of the log with what follows from its row alone.
#[derive(Debug)]
pub(super) struct CheckedEvent {
    pub(super) content: Content,
    /// JSON as it was written.
    pub(super) metadata: String,
    pub(super) hashes: Hashes,
}

/// What an event is about.
#[derive(Debug)]
pub(super) enum Content {
    /// An account.
    Account(DecodedEvent),
    /// Another aggregate, which no command and no view depends on.
    Other(RecordedEvent),
}

impl CheckedEvent {
    /// The event as it is recorded.
    pub(super) fn recorded(&self) -> &RecordedEvent {
        match &self.content {
            Content::Account(decoded) => &decoded.recorded,
            Content::Other(recorded) => recorded,
        }
    }
}

/// The recorded hash of an event, and the one that follows from its content and the hash recorded before it.
#[derive(Debug)]
pub(super) struct Hashes {
    pub(super) recorded: Vec<u8>,
    pub(super) computed: Hash,
}

/// The next events of a partition.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) events: Vec<CheckedEvent>,
    /// The event after them, if it cannot be decoded.
    pub(super) undecodable: Option<Undecodable>,
}

#[derive(Debug)]
pub(super) struct Undecodable {
    pub(super) event: EventWithHash,
    pub(super) computed: Hash,
    pub(super) error: DecodeError,
}

/// The chunks of a partition that are read ahead.
pub(super) struct CheckedEvents {
    chunks: mpsc::Receiver<Result<JoinHandle<Chunk>>>,
    _reader: AbortOnDropHandle<()>,
}

impl CheckedEvents {
    /// Starts to read a partition from the first event on.
    pub(super) fn read(connection: PgConnection, partition: i16) -> Self {
        let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD_MAX);
        Self { chunks, _reader: AbortOnDropHandle::new(tokio::spawn(read(connection, partition, sender))) }
    }

    /// The next chunk; `None` after the last event.
    pub(super) async fn next(&mut self) -> Result<Option<Chunk>> {
        match self.chunks.recv().await {
            None => Ok(None),
            Some(chunk) => Ok(Some(joined(chunk?).await)),
        }
    }
}

/// The result of a task. A panic continues in the caller.
pub(super) async fn joined<T>(task: impl Future<Output = Result<T, tokio::task::JoinError>>) -> T {
    task.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// Reads all events. A closed channel means that no more are needed.
async fn read(mut connection: PgConnection, partition: i16, chunks: mpsc::Sender<Result<JoinHandle<Chunk>>>) {
    let mut previous = [0; size_of::<Hash>()].to_vec();
    let mut rows = scan::events(&mut connection, partition).try_chunks(CHUNK_EVENTS_MAX);
    loop {
        let (chunk, is_last) = match rows.try_next().await {
            Ok(Some(rows)) => {
                let before = rows.last().map(|last| last.hash.clone()).unwrap_or_default();
                let before = std::mem::replace(&mut previous, before);
                (Ok(spawn_blocking(move || check(partition, before, rows))), false)
            }
            Ok(None) => break,
            // The events of an incomplete chunk are not needed: the verification ends.
            Err(error) => (Err(error.1), true),
        };
        if chunks.send(chunk).await.is_err() || is_last {
            break;
        }
    }
}

/// Hashes and decodes a chunk. `previous` is the recorded hash of the event before it.
fn check(partition: i16, mut previous: Vec<u8>, rows: Vec<EventWithHash>) -> Chunk {
    let mut events = Vec::with_capacity(rows.len());
    for row in rows {
        // A hash of another length was found at its own event.
        let before: Hash = previous.as_slice().try_into().unwrap_or_default();
        let computed = hash_chain::hash(&before, row.hashed_fields(partition));
        previous.clone_from(&row.hash);
        let event = &row.event;
        let event = match Event::decode(&event.event_type, event.schema_version, &event.data) {
            Ok(event) => Ok(Some(event)),
            Err(error) if error.is_of_other_aggregate() => {
                OtherEvent::decode(&event.event_type, event.schema_version, &event.data).map(|_| None)
            }
            Err(error) => Err(error),
        };
        let event = match event {
            Ok(event) => event,
            Err(error) => return Chunk { events, undecodable: Some(Undecodable { event: row, computed, error }) },
        };
        let EventWithHash { event: recorded, metadata, hash } = row;
        let content = match event {
            Some(event) => Content::Account(DecodedEvent { recorded, event, place: None }),
            None => Content::Other(recorded),
        };
        events.push(CheckedEvent { content, metadata, hashes: Hashes { recorded: hash, computed } });
    }
    Chunk { events, undecodable: None }
}

#[cfg(test)]
mod tests {
    use passbook_event_store::{RecordedEvent, timestamp};
    use uuid::Uuid;

    use super::*;

    /// A chain of deposits from position 1 on.
    fn rows(count: i64) -> Vec<EventWithHash> {
        let mut previous = Hash::default();
        let row = |position| {
            let event = RecordedEvent {
                position,
                id: Uuid::nil(),
                stream_id: Uuid::nil(),
                version: position,
                event_type: "MoneyDeposited".to_owned(),
                schema_version: 1,
                data: r#"{"amount":5}"#.to_owned(),
                recorded_at: timestamp::now(),
            };
            let mut row = EventWithHash { event, metadata: "{}".to_owned(), hash: vec![] };
            previous = hash_chain::hash(&previous, row.hashed_fields(0));
            row.hash = previous.to_vec();
            row
        };
        (1..=count).map(row).collect()
    }

    /// The positions whose hash is wrong, with the rows hashed in chunks of `size`.
    fn wrong(mut rows: Vec<EventWithHash>, size: usize) -> Vec<i64> {
        let (mut previous, mut wrong) = (vec![0; 32], Vec::new());
        while !rows.is_empty() {
            let rest = rows.split_off(size.min(rows.len()));
            let last = rows.last().expect("a row").hash.clone();
            let chunk = check(0, std::mem::replace(&mut previous, last), rows);
            let is_wrong = |event: &&CheckedEvent| event.hashes.recorded != event.hashes.computed;
            wrong.extend(chunk.events.iter().filter(is_wrong).map(|event| event.recorded().position));
            rows = rest;
        }
        wrong
    }

    #[test]
    fn each_chunk_finds_changes_of_its_own_events() {
        for changed in 1..=6 {
            for size in [1, 2, 3, 6] {
                let mut with_other_data = rows(6);
                with_other_data[changed - 1].event.data = r#"{"amount":6}"#.to_owned();
                assert_eq!(wrong(with_other_data, size), [changed as i64], "chunks of {size}");
                // With a hash that fits the changed content, the next event no longer follows.
                let mut rehashed = rows(6);
                rehashed[changed - 1].event.data = r#"{"amount":6}"#.to_owned();
                let before = changed.checked_sub(2).map(|at| rehashed[at].hash.clone()).unwrap_or(vec![0; 32]);
                let before = before.try_into().expect("a hash");
                rehashed[changed - 1].hash = hash_chain::hash(&before, rehashed[changed - 1].hashed_fields(0)).to_vec();
                let next = (changed < 6).then_some(changed as i64 + 1);
                assert_eq!(wrong(rehashed, size), Vec::from_iter(next), "chunks of {size}");
            }
        }
        assert_eq!(wrong(rows(6), 2), [0; 0]);
    }

    #[test]
    fn chunk_ends_before_an_event_that_cannot_be_decoded() {
        let mut rows = rows(3);
        rows[1].event.event_type = "Unknown".to_owned();
        let chunk = check(0, vec![0; 32], rows);
        assert_eq!(chunk.events.len(), 1);
        assert_eq!(chunk.undecodable.expect("an event").event.event.position, 2);
    }
}
