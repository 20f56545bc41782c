//! The baselines of work on the whole log: an insertion of many events by one statement, and a hash of each of them.
//!
//! A rebuild is compared with the insertion, and a verification with the hashes. Both run in one backend of the service's Postgres.

use std::time::Instant;

use anyhow::Result;
use serde::Serialize;

use crate::baseline::Pgbench;

const INSERT: &str = include_str!("../sql/insert_many.sql");
const HASH: &str = "SET max_parallel_workers_per_gather = 0;
                    SELECT count(*) FROM event
                    WHERE sha256(convert_to(concat(id, stream_id, type, data, metadata, recorded_at), 'UTF8')) = hash";

/// The rates of both baselines, in events per second.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct BulkRates {
    pub inserted_per_second: f64,
    pub hashed_per_second: f64,
}

impl BulkRates {
    /// Measures both on a new table.
    pub async fn measure(pgbench: &Pgbench, events: u32) -> Result<Self> {
        eprintln!("inserting and hashing {events} events by one statement each");
        pgbench.create_tables().await?;
        let per_second = |started: Instant| f64::from(events) / started.elapsed().as_secs_f64();
        let started = Instant::now();
        pgbench.execute(&INSERT.replace(":events", &events.to_string())).await?;
        let inserted_per_second = per_second(started);
        let started = Instant::now();
        pgbench.execute(HASH).await?;
        Ok(Self { inserted_per_second, hashed_per_second: per_second(started) })
    }

    /// The mean of two measurements.
    pub fn mean(self, other: Self) -> Self {
        Self {
            inserted_per_second: f64::midpoint(self.inserted_per_second, other.inserted_per_second),
            hashed_per_second: f64::midpoint(self.hashed_per_second, other.hashed_per_second),
        }
    }
}
