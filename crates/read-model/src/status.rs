//! How far each view is behind the log.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    mem,
};

use serde::Serialize;
use sqlx::query_file;
use tokio::{sync::Mutex, time::Instant};
use utoipa::ToSchema;

use super::{Error, ReadModel, Seen, generation, projection::known};
use passbook_event_store::Position;

/// When the last probe began to look, and what it saw.
pub(super) type LastProbe = Mutex<Option<(Instant, Option<Vec<ProjectionStatus>>)>>;

/// One view and how far it has read.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ProjectionStatus {
    /// The view.
    #[schema(example = "accounts")]
    pub name: String,
    /// Which generation of the view's rows this is; a rebuild makes the next one.
    #[schema(example = 1)]
    pub generation: i16,
    /// The version of the view's shape.
    #[schema(example = 1)]
    pub schema_version: i16,
    /// `building` until it has caught up and was found in order, then `live`; `stopped` while it cannot go on, as at an event
    /// that cannot be applied; `retired` once the next generation is live, until its rows are deleted; `failed` where what was
    /// built is not what the log says.
    #[schema(example = "live")]
    pub state: String,
    /// What went wrong, where something did.
    #[schema(example = json!(null))]
    pub failure: Option<String>,
    /// The last position that it has read.
    #[schema(value_type = String, example = "42")]
    pub position: Position,
    /// How many events of the log it has not read yet.
    #[schema(example = 0)]
    pub lag_events: i64,
    /// For how long the oldest of them has been waiting, in seconds.
    #[schema(example = 0.0)]
    pub lag_seconds: f64,
}

/// What became of the wish to rebuild a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// This generation is being built.
    Started(i16),
    /// Another is being built already.
    Running,
}

impl ReadModel {
    /// How many connections of the pool are idle, and how many in use.
    pub fn connections(&self) -> (i64, i64) {
        let idle = self.source.primary().num_idle() as i64;
        (idle, i64::from(self.source.primary().size()) - idle)
    }

    /// Asks for the next generation of a view, which the builder of any instance then builds; `None`: there is no such view.
    pub async fn rebuild(&self, name: &str, check_all: bool) -> Result<Option<Begun>, Error> {
        let Some(schema_version) = known().schema_version(name) else { return Ok(None) };
        let mut connection = self.source.primary().acquire().await?;
        let generation = generation::begin(&mut connection, self.partitions, name, schema_version, check_all).await?;
        Ok(Some(generation.map_or(Begun::Running, Begun::Started)))
    }

    /// All views for a probe: one looks at a time, and however many came before it began are answered by its look. `None`
    /// where the database does not tell.
    pub async fn probe(&self) -> Option<Vec<ProjectionStatus>> {
        let came_at = Instant::now();
        let mut last = self.last_probe.lock().await;
        if let Some((began_at, seen)) = &*last
            && *began_at > came_at
        {
            return seen.clone();
        }
        let began_at = Instant::now();
        let seen = match self.projections(None).await {
            Ok(seen) => Some(seen.value),
            Err(Error::Behind) => Some(vec![]),
            Err(error) => {
                tracing::warn!(%error, "the views cannot be looked at");
                None
            }
        };
        *last = Some((began_at, seen.clone()));
        seen
    }

    /// All views, measured against the log's head, once each has read up to `min_position`.
    pub async fn projections(&self, min_position: Option<&Position>) -> Result<Seen<Vec<ProjectionStatus>>, Error> {
        let at_primary = self.at_primary();
        let seen = at_primary.of_all(min_position, |partition, pool| async move {
            let rows = query_file!("src/status.sql", partition).fetch_all(&pool).await?;
            // How far the queries of this release see; before anything is live, how far what will be has come.
            let is_seen = |name: &str, state: &str, schema_version| {
                (state == "live" || state == "stopped")
                    && known().schema_version(name).is_some_and(|known| known >= schema_version)
            };
            let live = rows.iter().filter(|row| is_seen(&row.name, &row.state, row.schema_version));
            let live = live.map(|row| row.position).min();
            let least = live.or_else(|| rows.iter().map(|row| row.position).min());
            let value = rows
                .into_iter()
                .map(|row| ProjectionStatus {
                    name: row.name,
                    generation: row.generation,
                    schema_version: row.schema_version,
                    state: row.state,
                    failure: row.failure,
                    position: self.partitions.position(partition, row.position),
                    lag_events: row.lag_events,
                    lag_seconds: row.lag_seconds,
                })
                .collect();
            let position = |least| self.partitions.position(partition, least);
            Ok(least.map(|least| Seen { value, position: position(least), generation: 1 }))
        });
        Ok(seen.await?.map(together))
    }
}

/// One row a view and generation, whatever each partition says of it.
fn together(partitions: Vec<Vec<ProjectionStatus>>) -> Vec<ProjectionStatus> {
    let mut all: BTreeMap<(String, i16), ProjectionStatus> = BTreeMap::new();
    for status in partitions.into_iter().flatten() {
        match all.entry((status.name.clone(), status.generation)) {
            Entry::Vacant(vacant) => drop(vacant.insert(status)),
            Entry::Occupied(mut occupied) => occupied.get_mut().add(status),
        }
    }
    all.into_values().collect()
}

impl ProjectionStatus {
    /// What another partition says of the same generation: the state that matters more counts, and all lags together.
    fn add(&mut self, other: Self) {
        let gone = (self.state == "retired", other.state == "retired");
        if rank(&other.state) > rank(&self.state) {
            (self.state, self.failure) = (other.state, other.failure);
        }
        self.position = mem::take(&mut self.position).and(other.position);
        // Nothing reads on for rows that are taken down.
        (self.lag_events, self.lag_seconds) = match gone {
            (true, false) => (other.lag_events, other.lag_seconds),
            (false, true) => (self.lag_events, self.lag_seconds),
            (true, true) | (false, false) => {
                (self.lag_events + other.lag_events, self.lag_seconds.max(other.lag_seconds))
            }
        };
    }
}

/// How much a state matters to whoever asks. As long as any partition builds, it has not failed yet: nothing else can begin.
fn rank(state: &str) -> u8 {
    ["retired", "live", "failed", "building", "stopped"].iter().position(|known| *known == state).unwrap_or(0) as u8
}
