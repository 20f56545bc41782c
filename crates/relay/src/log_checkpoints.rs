//! Publishes a checkpoint of the log every minute, into a stream of its own. Message n of a stream of events is the event at position n, so
//! a checkpoint has no place there. Several relays publish one each; consumers need not distinguish them.

use std::{convert::Infallible, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    error::{AttemptError, FatalError},
    jetstream::JetStream,
    outage::OutageState,
    settings::Settings,
};
use passbook_checkpoint::Checkpoints;

/// The interval between two checkpoints.
const INTERVAL_S: u64 = 60;
/// Ends the name of the stream.
const STREAM_SUFFIX: &str = "-checkpoints";

/// Publishes until the shutdown or a fatal error. Outages are retried without limit.
///
/// # Errors
/// An operator must act.
pub(super) async fn publish(
    settings: Settings,
    checkpoints: Checkpoints,
    shutdown: CancellationToken,
) -> Result<(), FatalError> {
    let stream = settings.stream.clone() + STREAM_SUFFIX;
    let mut outage = OutageState::new(stream.clone());
    loop {
        let attempt = attempt(&settings, &checkpoints, &stream, &mut outage);
        match shutdown.run_until_cancelled(attempt).await {
            None => return Ok(()),
            Some(Err(AttemptError::Fatal(error))) => return Err(*error),
            Some(Err(AttemptError::Outage(reason))) => outage.record_failure(&reason),
            Some(Ok(never)) => match never {},
        }
        if shutdown.run_until_cancelled(sleep(outage.next_pause())).await.is_none() {
            return Ok(());
        }
    }
}

/// Connects and publishes until the first error.
async fn attempt(
    settings: &Settings,
    checkpoints: &Checkpoints,
    name: &str,
    outage: &mut OutageState,
) -> Result<Infallible, AttemptError> {
    let stream = JetStream::connect(settings, 0, name).await?;
    stream.ensure_checkpoints().await?;
    loop {
        let signed = checkpoints.sign().await;
        let (note, checkpoint) = signed.map_err(|error| AttemptError::outage("cannot sign a checkpoint", error))?;
        stream.publish_checkpoint(&checkpoint, note).await?;
        outage.record_success(checkpoint.heads.first().map_or(0, |head| head.position));
        sleep(Duration::from_secs(INTERVAL_S)).await;
    }
}
