//! The command `passbook rebuild`: registers the next generation of a view and builds it, whether or not a service is running.

use std::time::Duration;

use sqlx::{PgConnection, query};
use tokio::time::sleep;

use crate::{
    generation,
    query_router::is_timeout,
    rebuilder::{PartitionRebuilder, StepOutcome},
    views::known_views,
};
use passbook_event_store::{Partitions, Position, PrimaryConnector};

/// Interval at which the command reads the progress of another process that builds the same view.
const POLL_MS: u64 = 100;

/// The options of a rebuild.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// The name of the view.
    pub name: &'a str,
    /// Compare every row with the log before the generation goes live, instead of a sample of accounts.
    pub check_all: bool,
    /// Continue a rebuild that was started before.
    pub resume: bool,
}

/// A generation that has gone live.
#[derive(Clone, Debug)]
pub struct Rebuilt {
    /// The number of the generation.
    pub generation: i16,
    /// Its checkpoint when it went live.
    pub position: Position,
}

/// Why a view was not rebuilt.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant explains it")]
pub enum Error {
    #[error("There is no projection {name:?}. There are {}.", known.join(", "))]
    Unknown { name: String, known: &'static [String] },
    #[error(
        "A rebuild of {0} is already in progress. A running service continues it by itself; without a service, use --resume."
    )]
    AlreadyRunning(String),
    #[error("There is no rebuild of {0} to resume.")]
    NotStarted(String),
    #[error("The new generation of {name} failed its check and did not go live: {reason}")]
    CheckFailed { name: String, reason: String },
    #[error("The database failed: {0}")]
    Storage(#[from] sqlx::Error),
}

/// Builds the next generation of a view until it is live. `progress` receives the number of events read so far and the number of
/// events in the log, of one partition at a time.
///
/// # Errors
/// The view does not exist, a rebuild is in progress already (with `resume`: none is), the new generation failed its check, or the
/// database failed.
pub async fn rebuild(
    primary: PrimaryConnector,
    partitions: Partitions,
    options: Options<'_>,
    progress: impl Fn(i64, i64),
) -> Result<Rebuilt, Error> {
    let Options { name, check_all, resume } = options;
    let views = known_views();
    let unknown = || Error::Unknown { name: name.to_owned(), known: &views.names };
    let schema_version = views.schema_version(name).ok_or_else(unknown)?;
    let mut connection = primary.connect().await?;
    let started = match resume {
        false => {
            let started =
                generation::start_rebuild(&mut connection, partitions, name, schema_version, check_all).await?;
            Some(started.ok_or_else(|| Error::AlreadyRunning(name.to_owned()))?)
        }
        true => None,
    };
    let mut rebuilt: Option<Rebuilt> = None;
    for partition in partitions.all() {
        let building = match started {
            Some(started) => Some(started),
            // Some partitions of a resumed rebuild may be live already.
            None => generation::building_generation(&mut connection, partition, name).await?,
        };
        let Some(generation) = building else { continue };
        let rebuilder = PartitionRebuilder::new(partition, partitions, primary.clone());
        let position = build(&mut connection, rebuilder, name, generation, &progress).await?;
        let position = partitions.position_in(partition, position);
        rebuilt = Some(match rebuilt {
            None => Rebuilt { generation, position },
            Some(before) => Rebuilt { generation, position: before.position.merge(position) },
        });
    }
    rebuilt.ok_or_else(|| Error::NotStarted(name.to_owned()))
}

/// Builds the generation in one partition until it is live, and returns its checkpoint.
async fn build(
    connection: &mut PgConnection,
    mut rebuilder: PartitionRebuilder,
    name: &str,
    generation: i16,
    progress: &impl Fn(i64, i64),
) -> Result<i64, Error> {
    let mut building = None;
    loop {
        let outcome = match rebuilder.step(&mut building).await {
            // The next step has twice the time.
            Err(error) if is_timeout(&error) => {
                rebuilder.reset();
                continue;
            }
            outcome => outcome?,
        };
        let row = query!(
            "SELECT state, projection.position, failure, log_head.position AS head
             FROM projection
             JOIN log_head USING (partition)
             WHERE partition = $1 AND name = $2 AND generation = $3",
            rebuilder.partition(),
            name,
            generation
        )
        .fetch_one(&mut *connection)
        .await?;
        progress(row.position, row.head);
        match row.state.as_str() {
            "building" => {}
            "failed" => {
                return Err(Error::CheckFailed { name: name.to_owned(), reason: row.failure.unwrap_or_default() });
            }
            _ => return Ok(row.position),
        }
        if outcome != StepOutcome::Built {
            sleep(Duration::from_millis(POLL_MS)).await;
        }
    }
}
