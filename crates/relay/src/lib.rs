//! Publishes the log to other services: every event, in order, once, as a CloudEvents message in a NATS JetStream stream.
//!
//! One stream a partition, in which the message at sequence n is the event at position n. Every message says so to the
//! server (`Nats-Expected-Last-Sequence: n - 1`), which stores it there or not at all: whatever is killed, sent twice,
//! delayed or done by a second relay, nothing is left out, doubled or out of order. `docs/decisions/0014` tells why so.
//!
//! [`message`] is what is published, [`log`] where it comes from, [`server`] and [`stream`] where it goes to; [`publisher`] fills
//! the stream, [`checkpoint`] remembers how far it must reach, [`lag`] tells how far behind it is.

mod checkpoint;
mod guarded;
mod lag;
mod log;
mod message;
mod progress;
mod publisher;
mod server;
mod stream;

use std::path::PathBuf;

use secrecy::SecretString;
use tokio::{sync::watch, task::JoinSet};

use self::{log::Misplaced, publisher::Publisher, server::Servers};
use passbook_event_store::{Partitions, Primary};

/// Where to publish, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `nats://user:password@host:4222`, or `token@` before the host; several with commas between.
    pub url: SecretString,
    /// The user's credentials as NATS's own tools write them.
    pub credentials: Option<PathBuf>,
    /// What the streams' names begin with; the partition follows.
    pub stream: String,
    /// Makes a stream anew that is gone, and publishes again what a cut off one no longer holds.
    pub refill: bool,
}

/// Why the relay does not go on until somebody has decided something; each a sentence that says what.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant says it in its sentence")]
pub enum Stop {
    #[error("PASSBOOK_RELAY_NATS_URL is no address of a NATS server such as nats://127.0.0.1:4222")]
    InvalidUrl,
    #[error("PASSBOOK_RELAY_NATS_URL names different users: to all servers of a cluster one comes as the same")]
    SeveralLogins,
    #[error("PASSBOOK_RELAY_STREAM={0:?} is no stream's name: letters, digits, - and _ make one")]
    InvalidStream(String),
    #[error("PASSBOOK_RELAY_NATS_CREDENTIALS_FILE={path} cannot be used: {source}")]
    Credentials { path: PathBuf, source: std::io::Error },
    #[error("the NATS server does not let this relay in: {0}")]
    NotAllowed(String),
    #[error(
        "the stream {stream} is gone, and held the log up to position {position}: restore it, or start the relay once with \
         --refill to make it anew and publish the log from its first event"
    )]
    Gone { stream: String, position: i64 },
    #[error(
        "the stream {stream} ends at {last}, and held the log up to position {position}: it was cut off, or restored from a \
         backup. Restore what is missing, or start the relay once with --refill to publish it again"
    )]
    CutOff { stream: String, last: i64, position: i64 },
    #[error(
        "the stream {stream} is full at {last} ({reason}): raise its limits, or purge what everybody has read, and start \
         the relay again. Nothing is lost; the log waits"
    )]
    Full { stream: String, last: i64, reason: String },
    #[error(
        "the message at {position} in the stream {stream} is not the event at that position: somebody else publishes into it. \
         Keep them out, delete this stream or take its subjects from it, and give the relay one of its own with \
         PASSBOOK_RELAY_STREAM"
    )]
    Foreign { stream: String, position: i64 },
    #[error(
        "the stream {stream} holds another history than the log: {misplaced}. Whoever read it has read what the log no longer \
         holds: compare, delete this stream or take its subjects from it, and give the relay a new one with PASSBOOK_RELAY_STREAM"
    )]
    OtherHistory { stream: String, misplaced: Misplaced },
    #[error("the stream {stream} does not take the subjects {subjects}: add them to it")]
    Subjects { stream: String, subjects: String },
    #[error("the stream {stream} cannot be made: {reason}")]
    NotMade { stream: String, reason: String },
    #[error(
        "the event at position {position} is larger than a message may be ({reason}): raise max_payload of the NATS server and \
         max_msg_size of the stream"
    )]
    TooLarge { position: i64, reason: String },
    #[error("a fault of the relay's own ended it ({0}): start it again, and it goes on where the stream ends")]
    Fault(String),
}

/// Why an attempt ended.
#[derive(Debug)]
enum Error {
    /// Somebody has to decide something.
    Stop(Box<Stop>),
    /// Something is away, and is tried again.
    Outage(String),
}

impl From<Stop> for Error {
    fn from(stop: Stop) -> Self {
        Self::Stop(Box::new(stop))
    }
}

impl Error {
    fn outage(what: &str, error: impl std::fmt::Display) -> Self {
        Self::Outage(format!("{what}: {error}"))
    }
}

/// Publishes all partitions, each over connections of its own, until `stopping` says so.
///
/// # Errors
/// What somebody has to decide before any of them goes on. What is merely away is waited for.
pub async fn run(
    settings: Settings,
    partitions: Partitions,
    database: &Primary,
    stopping: watch::Receiver<bool>,
) -> Result<(), Stop> {
    check(&settings)?;
    let mut publishers = JoinSet::new();
    for partition in partitions.all() {
        let publisher = Publisher::new(settings.clone(), partition, database.clone(), stopping.clone());
        publishers.spawn(publisher.run());
    }
    ended(publishers).await
}

/// Waits until all have ended, or the first one that stops, a panic included: a partition that nobody publishes would fall
/// behind while its relay seems well.
async fn ended(mut publishers: JoinSet<Result<(), Stop>>) -> Result<(), Stop> {
    while let Some(ended) = publishers.join_next().await {
        // The others are dropped: one sentence at a time, and what they had in flight is found in the stream.
        ended.map_err(|error| Stop::Fault(error.to_string()))??;
    }
    Ok(())
}

fn check(settings: &Settings) -> Result<(), Stop> {
    Servers::parse(&settings.url)?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    match !settings.stream.is_empty() && settings.stream.chars().all(is_name) {
        true => Ok(()),
        false => Err(Stop::InvalidStream(settings.stream.clone())),
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn a_publisher_that_panics_ends_the_relay() {
        let mut publishers = JoinSet::new();
        publishers.spawn(pending());
        publishers.spawn(async { panic!("a fault") });
        assert!(matches!(ended(publishers).await, Err(Stop::Fault(_))));
    }
}
