//! Deletes idempotency keys that are older than their retention, in the background.
//!
//! A slice is small and takes no lock that a command waits for. Between two slices is a pause, so that deleting never takes more than
//! a small part of the database's time. Several instances may delete at the same time: each takes other keys.

use std::{num::NonZeroU16, time::Duration};

use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection, Result};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use passbook_event_store::{
    Partitions, PrimaryConnector,
    old_keys::{DeletedSlice, delete_slice},
    with_timeout,
};
use passbook_telemetry::metrics::METRICS;

/// The number of keys that one transaction deletes.
const SLICE_KEYS_MAX: i32 = 500;
/// The pause between two slices, in milliseconds.
const SLICE_PAUSE_MS: u64 = 50;
/// The interval between two sweeps, in seconds. A sweep deletes all keys that are too old.
const SWEEP_INTERVAL_S: u64 = 60;
/// The time limit of connecting and of one slice, in milliseconds.
const STATEMENT_MS_MAX: u64 = 5_000;

/// The deletion of old keys.
pub struct KeyDeletion {
    primary: PrimaryConnector,
    partitions: Partitions,
    retention_days: NonZeroU16,
}

impl KeyDeletion {
    /// A deletion that keeps keys for `retention_days`.
    pub fn new(primary: PrimaryConnector, partitions: Partitions, retention_days: NonZeroU16) -> Self {
        Self { primary, partitions, retention_days }
    }

    /// Sweeps at intervals until `shutdown` is cancelled.
    pub async fn run(self, shutdown: CancellationToken) {
        loop {
            match shutdown.run_until_cancelled(self.sweep()).await {
                Some(Ok(0)) => {}
                Some(Ok(keys)) => tracing::debug!(keys, "old idempotency keys deleted"),
                Some(Err(error)) => tracing::warn!(%error, "deletion of old idempotency keys failed; retrying"),
                None => return,
            }
            let pause = sleep(Duration::from_secs(SWEEP_INTERVAL_S));
            if shutdown.run_until_cancelled(pause).await.is_none() {
                return;
            }
        }
    }

    /// Deletes all keys that are older than their retention. Returns their number.
    ///
    /// # Errors
    /// A database error. The keys of earlier slices are deleted.
    pub async fn sweep(&self) -> Result<u64> {
        let limit = Duration::from_millis(STATEMENT_MS_MAX);
        let mut connection = with_timeout(limit, self.primary.connect()).await?;
        let mut deleted = 0;
        for partition in self.partitions.all() {
            // A slice does not read the rows that the slices before it deleted. Every sweep begins anew, so that it finds keys that
            // another instance held or that came back after a failover.
            let mut until = DateTime::UNIX_EPOCH;
            loop {
                let slice = with_timeout(limit, slice(&mut connection, partition, self.retention_days, until)).await?;
                deleted += slice.keys.unsigned_abs();
                METRICS.deleted_keys.inc_by(slice.keys.unsigned_abs());
                let Some(end) = slice.end else { break };
                until = end;
                sleep(Duration::from_millis(SLICE_PAUSE_MS)).await;
            }
        }
        // Best effort: the connection is closed either way.
        let _ = connection.close().await;
        Ok(deleted)
    }
}

async fn slice(
    connection: &mut PgConnection,
    partition: i16,
    retention_days: NonZeroU16,
    after: DateTime<Utc>,
) -> Result<DeletedSlice> {
    delete_slice(connection, partition, i32::from(retention_days.get()), after, SLICE_KEYS_MAX).await
}
