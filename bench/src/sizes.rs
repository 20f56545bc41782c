//! The bytes that the log and the views take on disk, by table and index.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::postgres::Postgres;

const SIZES: &str = include_str!("../sql/sizes.sql");

/// The part of the database that a table belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    Log,
    Views,
    /// Keys, snapshots and other tables of the write side.
    Other,
}

/// The size of a table without its indexes, of its TOAST table, or of an index.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct RelationSize {
    pub name: String,
    pub part: Part,
    pub bytes: u64,
}

/// The sizes of all relations, and the number of events to divide them by.
#[derive(Clone, Debug, Serialize)]
pub struct Sizes {
    pub events: u64,
    pub relations: Vec<RelationSize>,
}

impl Sizes {
    /// Reads the sizes of a database whose log has this number of events.
    pub async fn read(postgres: &Postgres, events: u64) -> Result<Self> {
        let json = postgres.execute(SIZES).await?;
        let relations =
            serde_json::from_str(&json).with_context(|| format!("psql printed {json:?} instead of sizes"))?;
        Ok(Self { events, relations })
    }

    /// The bytes for each event of the relations that meet a condition; `None` if there are none.
    pub fn per_event(&self, is_counted: impl Fn(&RelationSize) -> bool) -> Option<f64> {
        let counted: Vec<u64> =
            self.relations.iter().filter(|relation| is_counted(relation)).map(|relation| relation.bytes).collect();
        (!counted.is_empty()).then(|| counted.iter().sum::<u64>() as f64 / self.events.max(1) as f64)
    }
}
