//! The JetStream stream of one partition: connecting, reading its last message, creating it, and publishing to it.

use std::{str::from_utf8, time::Duration};

use async_nats::{
    Client, ConnectErrorKind, Event, HeaderMap, Message, PublishErrorKind, StatusCode, Subscriber, header,
    jetstream::{
        self, Context, ErrorCode,
        context::{CreateStreamErrorKind, GetStreamErrorKind},
        publish::PublishAck,
        response::Response,
        stream::{Config, DiscardPolicy, RawMessageErrorKind, StorageType},
    },
};
use futures_util::StreamExt;
use tokio::sync::watch;

use super::{
    error::{AttemptError, FatalError},
    message,
    settings::{Servers, Settings},
};
use passbook_checkpoint::Checkpoint;
use passbook_event_store::EventWithHash;

/// The time limit of a connection attempt, including the login.
const CONNECT_MS_MAX: u64 = 5_000;
/// The time limit of a request to the server.
const REQUEST_MS_MAX: u64 = 5_000;
/// The interval between pings. Two unanswered pings end the connection.
const PING_MS: u64 = 2_000;
/// How long the server remembers message ids. It only reduces rejections: the expected sequence keeps the order.
const DUPLICATE_WINDOW_MS: u64 = 120_000;
/// The error codes of an account or a server that is out of space. They can occur below the stream's own limits.
const OUT_OF_SPACE: [ErrorCode; 3] =
    [ErrorCode::ACCOUNT_RESOURCES_EXCEEDED, ErrorCode::INSUFFICIENT_RESOURCES, ErrorCode::STORAGE_RESOURCES_EXCEEDED];

/// The beginning of the subjects of checkpoints; the id of the log follows. Streams of events do not accept it.
const CHECKPOINT_SUBJECT: &str = "passbook-checkpoint";
/// The media type of a signed note.
const CHECKPOINT_TYPE: &str = "text/plain; charset=utf-8";

/// A connection to the server, and the name of the partition's stream there.
pub(super) struct JetStream {
    client: Client,
    context: Context,
    disconnected: watch::Receiver<bool>,
    partition: i16,
    name: String,
}

/// The end of a stream.
pub(super) enum StreamTail {
    /// The stream does not exist.
    Missing,
    /// The stream exists, and no message was ever published to it.
    Empty,
    /// The last position, and the hash of its event. The hash is `None` if the last message was removed.
    At(i64, Option<Vec<u8>>),
}

impl StreamTail {
    /// The last position; 0 for a missing or empty stream.
    pub(super) fn position(&self) -> i64 {
        match self {
            Self::Missing | Self::Empty => 0,
            Self::At(position, _) => *position,
        }
    }
}

/// The server's reply to a published message.
pub(super) enum PublishReply {
    /// The stream contains the message at this position, and all messages before it.
    Stored(i64),
    /// The stream has another end than expected, or is unavailable: the relay must read its end again.
    Recheck(String),
    /// The stream, the account or the server has no space for the message.
    Full(String),
    /// The message is larger than the stream allows.
    TooLarge(String),
}

/// The subscription that receives the replies to the messages of one attempt.
pub(super) struct Replies {
    inbox: String,
    messages: Subscriber,
}

impl JetStream {
    /// Connects to the server. The stream does not need to exist.
    pub(super) async fn connect(settings: &Settings, partition: i16, name: &str) -> Result<Self, AttemptError> {
        let (sender, disconnected) = watch::channel(false);
        let servers = Servers::parse(&settings.url)?;
        let mut options = servers
            .options()
            .name("passbook relay")
            .connection_timeout(Duration::from_millis(CONNECT_MS_MAX))
            .request_timeout(Some(Duration::from_millis(REQUEST_MS_MAX)))
            .ping_interval(Duration::from_millis(PING_MS))
            // The client tries each address once. A lost connection ends the attempt, and the next attempt reads the stream's end.
            .max_reconnects(servers.addresses.len())
            .event_callback(move |event| {
                let is_lost = matches!(event, Event::Disconnected | Event::Closed);
                sender.send_if_modified(|lost| std::mem::replace(lost, *lost || is_lost) != *lost);
                async {}
            });
        if let Some(path) = &settings.credentials {
            let read = options.credentials_file(path).await;
            options = read.map_err(|source| FatalError::Credentials { path: path.clone(), source })?;
        }
        let client = options.connect(servers.addresses).await.map_err(|error| match error.kind() {
            ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                AttemptError::from(FatalError::LoginRejected(error.to_string()))
            }
            _ => AttemptError::outage("cannot connect to the NATS server", error),
        })?;
        Ok(Self { context: jetstream::new(client.clone()), client, disconnected, partition, name: name.to_owned() })
    }

    /// Waits until the connection is lost.
    pub(super) async fn disconnected(&self) {
        // The client owns the sender, so this cannot fail while `self` exists.
        let _ = self.disconnected.clone().wait_for(|lost| *lost).await;
    }

    /// Reads the end of the stream, after a check that the stream accepts the partition's subjects.
    pub(super) async fn tail(&self) -> Result<StreamTail, AttemptError> {
        let stream = match self.context.get_stream(&self.name).await {
            Ok(stream) => stream,
            Err(error) => {
                return match error.kind() {
                    GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                        Ok(StreamTail::Missing)
                    }
                    _ => Err(AttemptError::outage("cannot read the stream's state", error)),
                };
            }
        };
        let info = stream.cached_info();
        let subjects = message::subjects(self.partition);
        let sufficient = [subjects.as_str(), "passbook.>", ">"];
        if !info.config.subjects.iter().any(|accepted| sufficient.contains(&accepted.as_str())) {
            return Err(FatalError::MissingSubjects { stream: self.name.clone(), subjects }.into());
        }
        let last = info.state.last_sequence;
        if last == 0 {
            return Ok(StreamTail::Empty);
        }
        let position = last.cast_signed();
        match stream.get_raw_message(last).await {
            Ok(message) => match message::parse_position(&message.payload) {
                Some(event) if event.position == position => Ok(StreamTail::At(position, Some(event.hash))),
                Some(_) | None => Err(FatalError::ForeignMessage { stream: self.name.clone(), position }.into()),
            },
            // The message was purged or has expired. The stream still ends at its sequence.
            Err(error) if matches!(error.kind(), RawMessageErrorKind::NoMessageFound) => {
                Ok(StreamTail::At(position, None))
            }
            Err(error) => Err(AttemptError::outage("cannot read the stream's last message", error)),
        }
    }

    /// Creates the stream with file storage and without limits. If an operator adds limits, a full stream rejects new messages.
    pub(super) async fn create(&self) -> Result<(), AttemptError> {
        let created = self.context.create_stream(Config {
            name: self.name.clone(),
            description: Some(format!(
                "Log of Passbook, partition {}: message n is the event at position n",
                self.partition
            )),
            subjects: vec![message::subjects(self.partition)],
            storage: StorageType::File,
            discard: DiscardPolicy::New,
            duplicate_window: Duration::from_millis(DUPLICATE_WINDOW_MS),
            ..Config::default()
        });
        match created.await.map(drop) {
            Ok(()) => {
                tracing::info!(stream = self.name, "stream created");
                Ok(())
            }
            Err(error) => match error.kind() {
                CreateStreamErrorKind::JetStream(refusal) if refusal.code() < 500 => {
                    Err(FatalError::CreationRefused { stream: self.name.clone(), reason: refusal.to_string() }.into())
                }
                _ => Err(AttemptError::outage("cannot create the stream", error)),
            },
        }
    }

    /// Creates the stream of checkpoints, with file storage and without limits, if it does not exist.
    pub(super) async fn ensure_checkpoints(&self) -> Result<(), AttemptError> {
        let found = self.context.get_or_create_stream(Config {
            name: self.name.clone(),
            description: Some("Checkpoints of the log of Passbook: a signed note in each message".to_owned()),
            subjects: vec![format!("{CHECKPOINT_SUBJECT}.>")],
            storage: StorageType::File,
            ..Config::default()
        });
        match found.await.map(drop) {
            Ok(()) => Ok(()),
            Err(error) => match error.kind() {
                CreateStreamErrorKind::JetStream(refusal) if refusal.code() < 500 => {
                    Err(FatalError::CreationRefused { stream: self.name.clone(), reason: refusal.to_string() }.into())
                }
                _ => Err(AttemptError::outage("cannot create the stream", error)),
            },
        }
    }

    /// Publishes a checkpoint, and waits until the stream has it.
    pub(super) async fn publish_checkpoint(&self, checkpoint: &Checkpoint, note: String) -> Result<(), AttemptError> {
        let subject = format!("{CHECKPOINT_SUBJECT}.{}", checkpoint.log_id);
        let mut headers = HeaderMap::new();
        // Another stream may accept all subjects, and its message n must stay the event at position n.
        headers.insert(header::NATS_EXPECTED_STREAM, self.name.as_str());
        headers.insert("Content-Type", CHECKPOINT_TYPE);
        let failed = |error| AttemptError::outage("cannot publish a checkpoint", error);
        let sent = self.context.publish_with_headers(subject, headers, note.into()).await.map_err(failed)?;
        sent.await.map(drop).map_err(failed)
    }

    /// Subscribes to the replies to messages that are published from now on.
    pub(super) async fn subscribe_to_replies(&self) -> Result<Replies, AttemptError> {
        let inbox = self.client.new_inbox();
        let messages = self.client.subscribe(inbox.clone()).await;
        let messages = messages.map_err(|error| AttemptError::outage("cannot subscribe to replies", error))?;
        Ok(Replies { inbox, messages })
    }

    /// Sends an event, which the server stores at the event's position or not at all. Does not wait for the reply.
    pub(super) async fn publish(&self, recorded: &EventWithHash, replies: &Replies) -> Result<(), AttemptError> {
        let position = recorded.event.position;
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_MESSAGE_ID, recorded.event.id.to_string());
        headers.insert(header::NATS_EXPECTED_STREAM, self.name.as_str());
        headers.insert(header::NATS_EXPECTED_LAST_SEQUENCE, (position - 1).to_string());
        headers.insert("Content-Type", message::CONTENT_TYPE);
        let subject = message::subject(self.partition, recorded);
        let payload = message::render(self.partition, recorded);
        let payload = payload.map_err(|error| AttemptError::outage("cannot render an event as JSON", error))?;
        let sent = self.client.publish_with_reply_and_headers(subject, replies.inbox.clone(), headers, payload).await;
        sent.map_err(|error| match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => FatalError::TooLarge { position, reason: error.to_string() }.into(),
            _ => AttemptError::outage("cannot send a message to the NATS server", error),
        })
    }
}

impl Replies {
    /// Waits for the next reply. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<PublishReply, AttemptError> {
        let message = self.messages.next().await;
        let message =
            message.ok_or_else(|| AttemptError::Outage("lost the connection to the NATS server".to_owned()))?;
        Ok(parse_reply(&message))
    }
}

fn parse_reply(message: &Message) -> PublishReply {
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        return PublishReply::Recheck("no stream accepts the subject".to_owned());
    }
    match serde_json::from_slice(&message.payload) {
        Ok(Response::Ok(PublishAck { sequence, .. })) => PublishReply::Stored(sequence.cast_signed()),
        Ok(Response::Err { error }) if error.error_code() == ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM => {
            PublishReply::TooLarge(error.to_string())
        }
        Ok(Response::Err { error }) => {
            let reason = error.to_string();
            // The server uses one error code for all errors of its store, so only the text shows that a limit is reached.
            let is_full = error.error_code() == ErrorCode::STREAM_STORE_FAILED && reason.contains("maximum");
            match is_full || OUT_OF_SPACE.contains(&error.error_code()) {
                true => PublishReply::Full(reason),
                false => PublishReply::Recheck(reason),
            }
        }
        Err(_) => PublishReply::Recheck(from_utf8(&message.payload).unwrap_or("a reply that is not text").to_owned()),
    }
}
