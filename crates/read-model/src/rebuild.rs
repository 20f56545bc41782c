//! The command `passbook rebuild`: asks for a view's next generation and builds it, with or without a service beside it.

use std::time::Duration;

use sqlx::{PgConnection, query};
use tokio::time::sleep;

use super::{
    builder::{Builder, Work},
    generation, is_timed_out,
    projection::known,
};
use passbook_event_store::{Partitions, Position, Primary};

/// How often it looks how far another process has come that builds, too.
const LOOK_MS: u64 = 100;

/// A generation that has gone live.
#[derive(Clone, Debug)]
pub struct Rebuilt {
    /// Which one.
    pub generation: i16,
    /// Up to where it has read.
    pub position: Position,
}

/// Why a view was not rebuilt.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant says it in its sentence")]
pub enum Error {
    #[error("there is no projection {0:?}")]
    Unknown(String),
    #[error("{0} is being rebuilt already: a running service goes on with it by itself, and --resume does it here")]
    Running(String),
    #[error("there is no rebuild of {0} to go on with")]
    NotBegun(String),
    #[error("what was built of {name} is not in order and did not go live: {flaw}")]
    Flawed { name: String, flaw: String },
    #[error("the database cannot be used: {0}")]
    Storage(#[from] sqlx::Error),
}

/// Builds the next generation of the view `name` until it is live. `progress` is told how many events were read, and of
/// how many.
///
/// # Errors
/// There is no such view, one is being built already (or, with `resume`, none is), or what was built is not in order.
pub async fn rebuild(
    connect: Primary,
    partitions: Partitions,
    name: &str,
    check_all: bool,
    resume: bool,
    progress: impl Fn(i64, i64),
) -> Result<Rebuilt, Error> {
    let schema_version = known().schema_version(name).ok_or_else(|| Error::Unknown(name.to_owned()))?;
    let mut connection = connect.connect().await?;
    let begun = match resume {
        false => {
            let begun = generation::begin(&mut connection, partitions, name, schema_version, check_all).await?;
            Some(begun.ok_or_else(|| Error::Running(name.to_owned()))?)
        }
        true => None,
    };
    let mut rebuilt: Option<Rebuilt> = None;
    for partition in partitions.all() {
        let building = match begun {
            Some(begun) => Some(begun),
            // What is gone on with may be done in some partitions.
            None => generation::building(&mut connection, partition, name).await?,
        };
        let Some(generation) = building else { continue };
        let builder = Builder::new(partition, connect.clone());
        let position = build(&mut connection, builder, (partition, name, generation), &progress).await?;
        let position = partitions.position(partition, position);
        rebuilt = Some(match rebuilt {
            None => Rebuilt { generation, position },
            Some(before) => Rebuilt { generation, position: before.position.and(position) },
        });
    }
    rebuilt.ok_or_else(|| Error::NotBegun(name.to_owned()))
}

/// Builds one partition's generation until it is live, and says how far it has read.
async fn build(
    connection: &mut PgConnection,
    mut builder: Builder,
    (partition, name, generation): (i16, &str, i16),
    progress: &impl Fn(i64, i64),
) -> Result<i64, Error> {
    let mut building = None;
    loop {
        let work = match builder.step(&mut building).await {
            // It may take twice as long the next time.
            Err(error) if is_timed_out(&error) => {
                building = None;
                builder.forget();
                continue;
            }
            step => step?,
        };
        let row = query!(
            "SELECT state, projection.position, failure, log_head.position AS head
             FROM projection
             JOIN log_head USING (partition)
             WHERE partition = $1 AND name = $2 AND generation = $3",
            partition,
            name,
            generation
        )
        .fetch_one(&mut *connection)
        .await?;
        progress(row.position, row.head);
        match row.state.as_str() {
            "building" => {}
            "failed" => {
                return Err(Error::Flawed { name: name.to_owned(), flaw: row.failure.unwrap_or_default() });
            }
            _ => return Ok(row.position),
        }
        if !matches!(work, Work::Built) {
            sleep(Duration::from_millis(LOOK_MS)).await;
        }
    }
}
