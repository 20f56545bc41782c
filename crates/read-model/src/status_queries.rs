//! Queries for the status of the views, for operators and readiness probes, and the request to rebuild a view.

use std::time::Duration;

use chrono::DateTime;
use sqlx::query_file;
use tokio::time::Instant;

use crate::{
    generation,
    positioned::Positioned,
    query_router::QUERY_MS_MAX,
    read_model::{Error, ReadModel},
    status::{ProjectionStatus, RebuildStart, merge_partitions},
    views::known_views,
};
use passbook_event_store::{Position, StorageFailure, in_words, reader, with_timeout};

impl ReadModel {
    /// The numbers of idle and of used connections in the pool of the primary.
    pub fn connections(&self) -> (i64, i64) {
        let idle = self.router.primary().num_idle() as i64;
        (idle, i64::from(self.router.primary().size()) - idle)
    }

    /// Registers the next generation of a view, which the rebuilder of any instance then builds. `None`: there is no such view.
    ///
    /// # Errors
    /// The database failed.
    pub async fn rebuild(&self, name: &str, check_all: bool) -> Result<Option<RebuildStart>, Error> {
        let Some(schema_version) = known_views().schema_version(name) else { return Ok(None) };
        let mut connection = self.router.primary().acquire().await?;
        let generation =
            generation::start_rebuild(&mut connection, self.partitions, name, schema_version, check_all).await?;
        Ok(Some(generation.map_or(RebuildStart::AlreadyRunning, RebuildStart::Started)))
    }

    /// The status of all views for a readiness probe. One query runs at a time, and its result answers all probes that arrived
    /// before it started. It also calls a database function, because queries do.
    ///
    /// # Errors
    /// How the database failed.
    pub async fn readiness_snapshot(&self) -> Result<Vec<ProjectionStatus>, StorageFailure> {
        let arrived_at = Instant::now();
        let mut last = self.last_readiness.lock().await;
        if let Some((started_at, status)) = &*last
            && *started_at > arrived_at
        {
            return status.clone();
        }
        let started_at = Instant::now();
        let read = async {
            self.call_function().await?;
            self.projections(None).await
        };
        let status = match read.await {
            Ok(status) => Ok(status.value),
            Err(Error::Lagging { .. }) => Ok(vec![]),
            Err(error) => {
                let failure = match &error {
                    Error::Storage(error) => StorageFailure::of(error),
                    Error::Lagging { .. } | Error::ForeignPosition(_) | Error::Inconsistent(_) => {
                        StorageFailure::Refused
                    }
                };
                // One line for each outage, because load balancers probe all the time. During one, probes fail in two ways.
                let is_refusal = |failure: StorageFailure| failure == StorageFailure::Refused;
                let is_known = matches!(&*last, Some((_, Err(known))) if is_refusal(*known) == is_refusal(failure));
                let (text, failure_name) = (error.to_string(), failure.as_str());
                match is_known {
                    false => tracing::warn!(failure = failure_name, error = in_words(&text), "readiness probe failed"),
                    true => {
                        tracing::debug!(failure = failure_name, error = in_words(&text), "readiness probe failed again")
                    }
                }
                Err(failure)
            }
        };
        *last = Some((started_at, status.clone()));
        status
    }

    /// Calls a PL/pgSQL function that queries use. It fails if new sessions cannot load the language, for example after its
    /// files were replaced under the running server.
    async fn call_function(&self) -> Result<(), Error> {
        let limit = Duration::from_millis(QUERY_MS_MAX);
        with_timeout(limit, async {
            let mut connection = self.router.primary().acquire().await?;
            reader::position_at(&mut connection, 0, DateTime::UNIX_EPOCH).await
        })
        .await?;
        Ok(())
    }

    /// The status of all views at the primary, once each has reached `min_position`.
    ///
    /// # Errors
    /// No view is registered, the views do not reach the position in time, or the database failed.
    pub async fn projections(
        &self,
        min_position: Option<&Position>,
    ) -> Result<Positioned<Vec<ProjectionStatus>>, Error> {
        let at_primary = self.at_primary();
        let status = at_primary.query_all_partitions(min_position, |partition, pool| async move {
            let rows = query_file!("src/status.sql", partition).fetch_all(&pool).await?;
            // The position of the response is that of the views which queries of this release read. Without a live view, it is
            // that of the views that are being built.
            let is_queried = |name: &str, state: &str, schema_version| {
                (state == "live" || state == "stopped")
                    && known_views().schema_version(name).is_some_and(|known| known >= schema_version)
            };
            let queried = rows.iter().filter(|row| is_queried(&row.name, &row.state, row.schema_version));
            let queried = queried.map(|row| row.position).min();
            let least = queried.or_else(|| rows.iter().map(|row| row.position).min());
            let value = rows
                .into_iter()
                .map(|row| ProjectionStatus {
                    name: row.name,
                    generation: row.generation,
                    schema_version: row.schema_version,
                    state: row.state,
                    failure: row.failure,
                    position: self.partitions.position_in(partition, row.position),
                    lag_events: row.lag_events,
                    lag_seconds: row.lag_seconds,
                })
                .collect();
            let position = |least| self.partitions.position_in(partition, least);
            Ok(least.map(|least| Positioned { value, position: position(least), generation: 1 }))
        });
        Ok(status.await?.map(merge_partitions))
    }
}
