//! What everybody was told of the log's positions. In a log of several partitions no number says "everything so far": a
//! test that says one means this.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use passbook::event_store::{Partitions, Position};

/// How far the log is with every command that a server of this test has answered.
#[derive(Clone)]
pub struct Heard {
    partitions: Partitions,
    position: Arc<Mutex<Position>>,
}

impl fmt::Display for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.position.lock().unwrap().fmt(f)
    }
}

impl Heard {
    pub fn nothing_yet(partitions: Partitions) -> Self {
        Self { partitions, position: Arc::new(Mutex::new(partitions.position(0, 0))) }
    }

    pub fn hear(&self, position: &str) {
        let mut heard = self.position.lock().unwrap();
        *heard = heard.clone().and(position.parse().unwrap());
    }

    /// The path with what its `min_position` means here: a number counts the events of all partitions.
    pub fn meant(&self, path: &str) -> String {
        let Some((before, value)) = path.split_once("min_position=").filter(|_| self.partitions.are_several()) else {
            return path.to_owned();
        };
        let (value, behind) = value.split_at(value.find('&').unwrap_or(value.len()));
        let heard = self.position.lock().unwrap().clone();
        let count: i64 = self.partitions.all().map(|partition| heard.at(partition)).sum();
        let meant = match value.parse() {
            Ok(Position::Only(number)) if number <= count => heard.to_string(),
            Ok(Position::Only(number)) => self.everywhere(number),
            Ok(over) => over.and(heard).to_string(),
            Err(_) => value.to_owned(),
        };
        format!("{before}min_position={meant}{behind}")
    }

    fn everywhere(&self, number: i64) -> String {
        Position::Over(self.partitions.all().map(|partition| (partition, number)).collect()).to_string()
    }
}
