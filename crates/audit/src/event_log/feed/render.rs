//! Renders events as Server-Sent Events. A chunk is rendered once and shared by all subscribers.

use std::{fmt::Display, io::Write, mem, ops::Range};

use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::event_log::{
    cursor::{Cursor, PartitionCursor},
    record::{EventFilter, EventRecord},
};
use passbook_domain::EventType;
use passbook_event_store::Partitions;

/// The size of a chunk after which another one is begun.
const CHUNK_BYTES_MAX: usize = 64 * 1024;

/// Consecutive events of a partition, and their rendered bytes.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) partition: i16,
    /// The event before the first one.
    after: PartitionCursor,
    bytes: Bytes,
    entries: Vec<Entry>,
}

/// One event of a chunk.
#[derive(Debug)]
struct Entry {
    cursor: PartitionCursor,
    event_type: Option<EventType>,
    recorded_at: DateTime<Utc>,
    /// The event's part of the chunk's bytes.
    bytes: Range<usize>,
    /// The index in the chunk's bytes at which the event's `id` line ends.
    id_end: usize,
}

/// How a chunk continues the events that a subscriber has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Continuation {
    /// It continues with this entry. If the subscriber has read the whole chunk, the index is the number of entries.
    At(usize),
    /// Events between the subscriber's cursor and the chunk are missing.
    Gap,
    /// The subscriber has read another event at the same position.
    OtherHistory,
}

/// The events to send to one subscriber.
#[derive(Debug, Default)]
pub(super) struct Rendered {
    pub(super) bytes: Bytes,
    /// The id of the last of these events; `None` if there are none.
    pub(super) last_id: Option<Cursor>,
}

impl Chunk {
    /// A chunk without events, which announces the cursor at which a broadcast starts.
    pub(super) fn start(partition: i16, after: PartitionCursor) -> Self {
        Self { partition, after, bytes: Bytes::new(), entries: vec![] }
    }

    /// Renders consecutive events of a partition, the first of which follows `after`.
    pub(super) fn render(partition: i16, mut after: PartitionCursor, events: &[EventRecord]) -> Vec<Self> {
        let mut chunks = Vec::new();
        let (mut bytes, mut entries) = (Vec::new(), Vec::new());
        for event in events {
            let start = bytes.len();
            render_id(&mut bytes, event.cursor);
            let id_end = bytes.len();
            render_event(&mut bytes, event);
            entries.push(Entry {
                cursor: event.cursor,
                event_type: EventType::from_name(&event.event_type),
                recorded_at: event.recorded_at,
                bytes: start..bytes.len(),
                id_end,
            });
            if bytes.len() >= CHUNK_BYTES_MAX {
                chunks.push(Self::new(partition, after, mem::take(&mut bytes), mem::take(&mut entries)));
                after = event.cursor;
            }
        }
        if !entries.is_empty() {
            chunks.push(Self::new(partition, after, bytes, entries));
        }
        chunks
    }

    fn new(partition: i16, after: PartitionCursor, bytes: Vec<u8>, entries: Vec<Entry>) -> Self {
        // Hundreds of chunks are buffered, so unused capacity is freed.
        Self { partition, after, bytes: bytes.into_boxed_slice().into(), entries }
    }

    /// The cursor after the last event.
    pub(super) fn last(&self) -> PartitionCursor {
        self.entries.last().map_or(self.after, |entry| entry.cursor)
    }

    /// How this chunk continues for a subscriber that has read all events up to `cursor`.
    pub(super) fn continuation(&self, cursor: PartitionCursor) -> Continuation {
        if cursor.position < self.after.position {
            return Continuation::Gap;
        }
        let start = self.entries.partition_point(|entry| entry.cursor.position <= cursor.position);
        let before = start.checked_sub(1).map_or(self.after, |last| self.entries[last].cursor);
        match before == cursor || before.position < cursor.position {
            true => Continuation::At(start),
            false => Continuation::OtherHistory,
        }
    }

    /// The entries from `start` on that `filter` selects, for a subscriber at `cursor`. Moves `cursor` to the end of the chunk.
    pub(super) fn render_for(
        &self,
        start: usize,
        filter: &EventFilter,
        partitions: Partitions,
        cursor: &mut Cursor,
    ) -> Rendered {
        let entries = &self.entries[start..];
        if filter.matches_all() && !partitions.is_partitioned() {
            let from = entries.first().map_or(self.bytes.len(), |entry| entry.bytes.start);
            self.advance(cursor);
            return Rendered { bytes: self.bytes.slice(from..), last_id: entries.last().map(|_| cursor.clone()) };
        }
        let mut last_id = None;
        let mut bytes = Vec::new();
        for entry in entries.iter().filter(|entry| filter.matches(entry.event_type, entry.recorded_at)) {
            cursor.advance(self.partition, entry.cursor);
            render_id(&mut bytes, &*cursor);
            bytes.extend_from_slice(&self.bytes[entry.id_end..entry.bytes.end]);
            last_id = Some(cursor.clone());
        }
        self.advance(cursor);
        Rendered { bytes: bytes.into(), last_id }
    }

    /// Moves `cursor` to the last event, unless it is already beyond it.
    fn advance(&self, cursor: &mut Cursor) {
        if self.last().position > cursor.at(self.partition).position {
            cursor.advance(self.partition, self.last());
        }
    }
}

/// Renders a page of the log for one subscriber. Moves `cursor` to the last event.
pub(super) fn render_page(events: &[EventRecord], cursor: &mut Cursor) -> Rendered {
    let mut bytes = Vec::new();
    for event in events {
        cursor.advance(event.partition, event.cursor);
        render_id(&mut bytes, &*cursor);
        render_event(&mut bytes, event);
    }
    Rendered { bytes: bytes.into(), last_id: events.last().map(|_| cursor.clone()) }
}

fn render_id(out: &mut Vec<u8>, id: impl Display) {
    // Writing to a vector does not fail.
    let _ = writeln!(out, "id: {id}");
}

/// Renders everything but the id of an event, in the format of section 9.2.5 of the HTML standard.
fn render_event(out: &mut Vec<u8>, event: &EventRecord) {
    let json = serde_json::to_string(event).unwrap_or_default();
    let _ = writeln!(out, "event: {}", lines(&event.event_type).next().unwrap_or_default());
    // Recorded JSON may contain line breaks between its members. Each line needs the name of the field.
    for line in lines(&json) {
        let _ = writeln!(out, "data: {line}");
    }
    out.push(b'\n');
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').flat_map(|line| line.split('\r'))
}
