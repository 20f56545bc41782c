//! Events as Server-Sent Events, rendered once and shared by all who read them.

use std::{fmt::Display, io::Write, mem, ops::Range};

use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::{Cursor, EventRecord, Filter, cursor::Place};
use passbook_domain::EventType;
use passbook_event_store::Partitions;

/// How large a chunk gets before another one is begun.
const CHUNK_BYTES_MAX: usize = 64 * 1024;

/// Events that follow each other in a partition, with the bytes that tell them.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) partition: i16,
    /// The event before the first one.
    after: Place,
    bytes: Bytes,
    entries: Vec<Entry>,
}

/// Where an event stands in the log and its telling in the bytes.
#[derive(Debug)]
struct Entry {
    place: Place,
    event_type: Option<EventType>,
    recorded_at: DateTime<Utc>,
    bytes: Range<usize>,
    /// Where what comes behind the id begins in them.
    behind_id: usize,
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
    /// Whether an event was told, and where the reader stood behind the last one.
    pub(super) last: Option<Cursor>,
}

impl Chunk {
    /// The place where a pump starts, without an event.
    pub(super) fn start(partition: i16, after: Place) -> Self {
        Self { partition, after, bytes: Bytes::new(), entries: vec![] }
    }

    /// All of `events`, which follow `after` in a partition.
    pub(super) fn render(partition: i16, mut after: Place, events: &[EventRecord]) -> Vec<Self> {
        let mut chunks = Vec::new();
        let (mut bytes, mut entries) = (Vec::new(), Vec::new());
        for event in events {
            let start = bytes.len();
            tell_id(&mut bytes, event.place);
            let behind_id = bytes.len();
            tell(&mut bytes, event);
            entries.push(Entry {
                place: event.place,
                event_type: EventType::from_name(&event.event_type),
                recorded_at: event.recorded_at,
                bytes: start..bytes.len(),
                behind_id,
            });
            if bytes.len() >= CHUNK_BYTES_MAX {
                chunks.push(Self::new(partition, after, mem::take(&mut bytes), mem::take(&mut entries)));
                after = event.place;
            }
        }
        if !entries.is_empty() {
            chunks.push(Self::new(partition, after, bytes, entries));
        }
        chunks
    }

    fn new(partition: i16, after: Place, bytes: Vec<u8>, entries: Vec<Entry>) -> Self {
        // Buffered by the hundred, so without room to grow.
        Self { partition, after, bytes: bytes.into_boxed_slice().into(), entries }
    }

    /// The last event.
    pub(super) fn last(&self) -> Place {
        self.entries.last().map_or(self.after, |entry| entry.place)
    }

    /// How this continues for whoever has had everything up to `place`.
    pub(super) fn joint(&self, place: Place) -> Joint {
        if place.position < self.after.position {
            return Joint::Gap;
        }
        let start = self.entries.partition_point(|entry| entry.place.position <= place.position);
        let before = start.checked_sub(1).map_or(self.after, |last| self.entries[last].place);
        match before == place || before.position < place.position {
            true => Joint::At(start),
            false => Joint::OtherHistory,
        }
    }

    /// What `filter` takes of the entries from `start` on, for a reader who stands at `cursor` and goes on behind the last.
    pub(super) fn tell(&self, start: usize, filter: &Filter, partitions: Partitions, cursor: &mut Cursor) -> Told {
        let entries = &self.entries[start..];
        if filter.takes_all() && !partitions.are_several() {
            let from = entries.first().map_or(self.bytes.len(), |entry| entry.bytes.start);
            self.pass(cursor);
            return Told { bytes: self.bytes.slice(from..), last: entries.last().map(|_| cursor.clone()) };
        }
        let mut last = None;
        let mut bytes = Vec::new();
        for entry in entries.iter().filter(|entry| filter.takes(entry.event_type, entry.recorded_at)) {
            cursor.pass(self.partition, entry.place);
            tell_id(&mut bytes, &*cursor);
            bytes.extend_from_slice(&self.bytes[entry.behind_id..entry.bytes.end]);
            last = Some(cursor.clone());
        }
        self.pass(cursor);
        Told { bytes: bytes.into(), last }
    }

    /// Behind the last event, unless the reader is further.
    fn pass(&self, cursor: &mut Cursor) {
        if self.last().position > cursor.at(self.partition).position {
            cursor.pass(self.partition, self.last());
        }
    }
}

/// A page of the table for one reader, who goes on from `cursor` with each of its events.
pub(super) fn tell_page(events: &[EventRecord], cursor: &mut Cursor) -> Told {
    let mut bytes = Vec::new();
    for event in events {
        cursor.pass(event.partition, event.place);
        tell_id(&mut bytes, &*cursor);
        tell(&mut bytes, event);
    }
    Told { bytes: bytes.into(), last: events.last().map(|_| cursor.clone()) }
}

fn tell_id(out: &mut Vec<u8>, id: impl Display) {
    // Writing to memory does not fail.
    let _ = writeln!(out, "id: {id}");
}

/// What comes behind the id of one event, in the form of the HTML standard, section 9.2.5.
fn tell(out: &mut Vec<u8>, event: &EventRecord) {
    let json = serde_json::to_string(event).unwrap_or_default();
    let _ = writeln!(out, "event: {}", lines(&event.event_type).next().unwrap_or_default());
    // What was recorded may hold line ends between its members. Each line has the field's name before it.
    for line in lines(&json) {
        let _ = writeln!(out, "data: {line}");
    }
    out.push(b'\n');
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').flat_map(|line| line.split('\r'))
}
