//! The latest position of each partition that a response contained. In a log of several partitions no single number means "all
//! events so far". If a test names a number, the tracker replaces it by these positions.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use passbook_event_store::{Partitions, Position};

/// The positions that the responses to all commands of a test reported, merged.
#[derive(Clone)]
pub struct PositionTracker {
    partitions: Partitions,
    position: Arc<Mutex<Position>>,
}

impl fmt::Display for PositionTracker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.position.lock().unwrap().fmt(f)
    }
}

impl PositionTracker {
    /// A tracker for a log without events.
    pub fn new(partitions: Partitions) -> Self {
        Self { partitions, position: Arc::new(Mutex::new(partitions.position_in(0, 0))) }
    }

    /// Merges the position of a response.
    pub fn record(&self, position: &str) {
        let mut latest = self.position.lock().unwrap();
        *latest = latest.clone().merge(position.parse().unwrap());
    }

    /// Replaces a plain number in the path's `min_position`, which counts the events of all partitions, by a position
    /// of this log.
    pub fn rewrite_min_position(&self, path: &str) -> String {
        let Some((before, value)) = path.split_once("min_position=").filter(|_| self.partitions.is_partitioned())
        else {
            return path.to_owned();
        };
        let (value, rest) = value.split_at(value.find('&').unwrap_or(value.len()));
        let latest = self.position.lock().unwrap().clone();
        let count: i64 = self.partitions.all().map(|partition| latest.in_partition(partition)).sum();
        let rewritten = match value.parse() {
            Ok(Position::Single(number)) if number <= count => latest.to_string(),
            Ok(Position::Single(number)) => self.in_every_partition(number),
            Ok(position) => position.merge(latest).to_string(),
            Err(_) => value.to_owned(),
        };
        format!("{before}min_position={rewritten}{rest}")
    }

    fn in_every_partition(&self, number: i64) -> String {
        Position::PerPartition(self.partitions.all().map(|partition| (partition, number)).collect()).to_string()
    }
}
