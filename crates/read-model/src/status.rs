//! The status of each view: its state and its lag behind the head of the log.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    mem,
};

use serde::Serialize;
use tokio::{sync::Mutex, time::Instant};
use utoipa::ToSchema;

use passbook_event_store::{Position, StorageFailure};

/// When the last readiness query started, and its result: `None` if the database failed.
pub(crate) type LastReadiness = Mutex<Option<(Instant, Result<Vec<ProjectionStatus>, StorageFailure>)>>;

/// The status of one generation of a view.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ProjectionStatus {
    /// The name of the view.
    #[schema(example = "accounts")]
    pub name: String,
    /// The generation of the view's rows. Each rebuild creates the next one.
    #[schema(example = 1)]
    pub generation: i16,
    /// The version of the shape of the rows.
    #[schema(example = 1)]
    pub schema_version: i16,
    /// `building` until the generation has caught up and passed its check, then `live`. `stopped` while a live view cannot
    /// continue, for example because an event cannot be applied. `retired` once the next generation is live, until the rows
    /// are deleted. `failed` if the check found rows that do not match the log.
    #[schema(example = "live")]
    pub state: String,
    /// The reason of the last failure.
    #[schema(required = true, example = json!(null))]
    pub failure: Option<String>,
    /// The position of the last event that the view has read.
    #[schema(value_type = String)]
    pub position: Position,
    /// The number of events that the view has not read yet.
    #[schema(example = 0)]
    pub lag_events: i64,
    /// The age of the oldest event that the view has not read yet, in seconds.
    #[schema(example = 0.0)]
    pub lag_seconds: f64,
}

/// The result of a request to rebuild a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RebuildStart {
    /// This generation is registered and will be built.
    Started(i16),
    /// Another generation is being built already.
    AlreadyRunning,
}

/// Merges the rows of all partitions into one row per view and generation.
pub(crate) fn merge_partitions(partitions: Vec<Vec<ProjectionStatus>>) -> Vec<ProjectionStatus> {
    let mut merged: BTreeMap<(String, i16), ProjectionStatus> = BTreeMap::new();
    for status in partitions.into_iter().flatten() {
        match merged.entry((status.name.clone(), status.generation)) {
            Entry::Vacant(vacant) => drop(vacant.insert(status)),
            Entry::Occupied(mut occupied) => occupied.get_mut().merge(status),
        }
    }
    merged.into_values().collect()
}

impl ProjectionStatus {
    /// Adds the same generation in another partition: the more severe state is shown, and the lags are combined.
    fn merge(&mut self, other: Self) {
        let is_retired = (self.state == "retired", other.state == "retired");
        if severity(&other.state) > severity(&self.state) {
            (self.state, self.failure) = (other.state, other.failure);
        }
        self.position = mem::take(&mut self.position).merge(other.position);
        // A retired generation does not read on, so its lag does not count.
        (self.lag_events, self.lag_seconds) = match is_retired {
            (true, false) => (other.lag_events, other.lag_seconds),
            (false, true) => (self.lag_events, self.lag_seconds),
            (true, true) | (false, false) => {
                (self.lag_events + other.lag_events, self.lag_seconds.max(other.lag_seconds))
            }
        };
    }
}

/// Orders the states by importance for an operator. `building` is above `failed`: no rebuild can start while one partition builds.
fn severity(state: &str) -> u8 {
    ["retired", "live", "failed", "building", "stopped"].iter().position(|known| *known == state).unwrap_or(0) as u8
}
