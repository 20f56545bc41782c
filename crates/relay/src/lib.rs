//! Publishes the log to other services: each event once and in order, as a CloudEvents message in a NATS JetStream stream.
//!
//! Each partition has its own stream. The message at sequence n is the event at position n. Each message requires this with
//! the header `Nats-Expected-Last-Sequence: n - 1`: the server stores the message at n or rejects it. A crash, a repeated
//! message, a delay or a second relay therefore cannot cause a gap, a duplicate or a wrong order. The reasons are in
//! `docs/decisions/0014`.

mod checkpoint;
mod error;
mod in_flight;
mod jetstream;
mod lag;
mod log_checkpoints;
mod log_reader;
mod message;
mod outage;
mod publisher;
mod settings;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::publisher::Publisher;
use passbook_checkpoint::Checkpoints;
use passbook_event_store::{Partitions, PrimaryConnector};

pub use error::FatalError;
pub use log_reader::HistoryMismatch;
pub use settings::Settings;

/// Publishes all partitions until `shutdown` is cancelled, and checkpoints if they are wanted. Each partition has its own connections.
///
/// Outages of NATS and of the database are retried without limit.
///
/// # Errors
/// An operator must act before the relay can continue, or a task panicked. The first error ends all partitions.
pub async fn run(
    settings: Settings,
    partitions: Partitions,
    database: &PrimaryConnector,
    checkpoints: Option<Checkpoints>,
    shutdown: CancellationToken,
) -> Result<(), FatalError> {
    settings.validate()?;
    let mut publishers = JoinSet::new();
    if let Some(checkpoints) = checkpoints {
        publishers.spawn(log_checkpoints::publish(settings.clone(), checkpoints, shutdown.clone()));
    }
    for partition in partitions.all() {
        let publisher = Publisher::new(settings.clone(), partition, database.clone(), shutdown.clone());
        publishers.spawn(publisher.run());
    }
    wait_for_publishers(publishers).await
}

/// Waits until all publishers end or the first one fails. A panic counts as a failure: otherwise one partition would fall
/// behind while the relay appears healthy.
async fn wait_for_publishers(mut publishers: JoinSet<Result<(), FatalError>>) -> Result<(), FatalError> {
    while let Some(outcome) = publishers.join_next().await {
        // A return aborts the other publishers. The next start finds their unacknowledged messages in the streams.
        outcome.map_err(|error| FatalError::TaskFailed(error.to_string()))??;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn a_panic_in_one_publisher_ends_the_relay() {
        let mut publishers = JoinSet::new();
        publishers.spawn(pending());
        publishers.spawn(async { panic!("a bug") });
        assert!(matches!(wait_for_publishers(publishers).await, Err(FatalError::TaskFailed(_))));
    }
}
