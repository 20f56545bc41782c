//! Events as Server-Sent Events, rendered once and shared by all who read them.

use std::{io::Write, mem, ops::Range};

use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::{
    audit::{Cursor, EventRecord, Filter},
    domain::EventType,
};

/// How large a chunk gets before another one is begun.
const CHUNK_BYTES_MAX: usize = 64 * 1024;

/// Events that follow each other in the log, with the bytes that tell them.
#[derive(Debug)]
pub(super) struct Chunk {
    /// The event before the first one.
    after: Cursor,
    bytes: Bytes,
    entries: Vec<Entry>,
}

/// Where an event stands in the log and its telling in the bytes.
#[derive(Debug)]
struct Entry {
    cursor: Cursor,
    event_type: Option<EventType>,
    recorded_at: DateTime<Utc>,
    bytes: Range<usize>,
}

/// How a chunk continues what a reader has had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joint {
    /// From this entry on; behind the last one if the reader has had all of it.
    At(usize),
    /// There are events between.
    Gap,
    /// The reader has had another event at the same position.
    OtherHistory,
}

/// What of a chunk is sent to one reader.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) bytes: Bytes,
    /// The last event that was told.
    pub(super) last: Option<Cursor>,
}

impl Chunk {
    /// The place where a pump starts, without an event.
    pub(super) fn start(after: Cursor) -> Self {
        Self { after, bytes: Bytes::new(), entries: vec![] }
    }

    /// All of `events`, which follow `after`.
    pub(super) fn render(mut after: Cursor, events: &[EventRecord]) -> Vec<Self> {
        let mut chunks = Vec::new();
        let (mut bytes, mut entries) = (Vec::new(), Vec::new());
        for event in events {
            let start = bytes.len();
            tell(&mut bytes, event);
            entries.push(Entry {
                cursor: event.cursor,
                event_type: EventType::from_name(&event.event_type),
                recorded_at: event.recorded_at,
                bytes: start..bytes.len(),
            });
            if bytes.len() >= CHUNK_BYTES_MAX {
                chunks.push(Self::new(after, mem::take(&mut bytes), mem::take(&mut entries)));
                after = event.cursor;
            }
        }
        if !entries.is_empty() {
            chunks.push(Self::new(after, bytes, entries));
        }
        chunks
    }

    fn new(after: Cursor, bytes: Vec<u8>, entries: Vec<Entry>) -> Self {
        // Buffered by the hundred, so without room to grow.
        Self { after, bytes: bytes.into_boxed_slice().into(), entries }
    }

    /// The last event.
    pub(super) fn last(&self) -> Cursor {
        self.entries.last().map_or(self.after, |entry| entry.cursor)
    }

    /// How this continues for whoever has had everything up to `cursor`.
    pub(super) fn joint(&self, cursor: Cursor) -> Joint {
        if cursor.position < self.after.position {
            return Joint::Gap;
        }
        let start = self.entries.partition_point(|entry| entry.cursor.position <= cursor.position);
        let before = start.checked_sub(1).map_or(self.after, |last| self.entries[last].cursor);
        match before == cursor || before.position < cursor.position {
            true => Joint::At(start),
            false => Joint::OtherHistory,
        }
    }

    /// What `filter` takes of the entries from `start` on.
    pub(super) fn tell(&self, start: usize, filter: &Filter) -> Told {
        let entries = &self.entries[start..];
        if filter.takes_all() {
            let from = entries.first().map_or(self.bytes.len(), |entry| entry.bytes.start);
            return Told { bytes: self.bytes.slice(from..), last: entries.last().map(|entry| entry.cursor) };
        }
        let taken = entries.iter().filter(|entry| filter.takes(entry.event_type, entry.recorded_at));
        let mut last = None;
        let mut bytes = Vec::new();
        for entry in taken {
            bytes.extend_from_slice(&self.bytes[entry.bytes.clone()]);
            last = Some(entry.cursor);
        }
        Told { bytes: bytes.into(), last }
    }
}

/// One event in the form of the HTML standard, section 9.2.5.
fn tell(out: &mut Vec<u8>, event: &EventRecord) {
    let json = serde_json::to_string(event).unwrap_or_default();
    // Writing to memory does not fail.
    let _ = writeln!(out, "id: {}\nevent: {}", event.cursor, lines(&event.event_type).next().unwrap_or_default());
    // What was recorded may hold line ends between its members. Each line has the field's name before it.
    for line in lines(&json) {
        let _ = writeln!(out, "data: {line}");
    }
    out.push(b'\n');
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').flat_map(|line| line.split('\r'))
}
