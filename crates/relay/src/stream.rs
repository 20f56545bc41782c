//! The stream of one partition on the NATS server: where it ends, and how a message gets to its end.

use std::{str::from_utf8, time::Duration};

use async_nats::{
    Client, ConnectErrorKind, Event, HeaderMap, Message, PublishErrorKind, StatusCode, Subscriber, header,
    jetstream::{
        self, Context, ErrorCode,
        context::GetStreamErrorKind,
        publish::PublishAck,
        response::Response,
        stream::{Config, DiscardPolicy, RawMessageErrorKind, StorageType},
    },
};
use futures_util::StreamExt;
use tokio::sync::watch;

use super::{Error, Settings, Stop, message, server::Servers};
use passbook_event_store::whole::LinkedEvent;

/// How long the server may take to let us in.
const CONNECT_MS_MAX: u64 = 5_000;
/// How long it may take to answer a question.
const ANSWER_MS_MAX: u64 = 5_000;
/// How often it is asked for a sign of life; two that stay away end the connection.
const PING_MS: u64 = 2_000;
/// For how long the server remembers ids. It only spares it refusals: what keeps the order needs no memory.
const DUPLICATE_WINDOW_MS: u64 = 120_000;
/// What the server says where the account or the machine has no room, whatever the stream's own limits are.
const NO_ROOM: [ErrorCode; 3] =
    [ErrorCode::ACCOUNT_RESOURCES_EXCEEDED, ErrorCode::INSUFFICIENT_RESOURCES, ErrorCode::STORAGE_RESOURCES_EXCEEDED];

/// A stream that this process is connected to.
pub(super) struct Stream {
    client: Client,
    jetstream: Context,
    lost: watch::Receiver<bool>,
    partition: i16,
    name: String,
}

/// Where a stream ends.
pub(super) enum End {
    /// There is no such stream.
    Missing,
    /// Nothing was ever published into it.
    Empty,
    /// Behind the event at this position, with this hash unless the message itself was removed.
    At(i64, Option<Vec<u8>>),
}

impl End {
    /// The last position; 0 where there is none.
    pub(super) fn position(&self) -> i64 {
        match self {
            Self::Missing | Self::Empty => 0,
            Self::At(position, _) => *position,
        }
    }
}

/// What the server says of a message.
pub(super) enum Answer {
    /// It, and everything before it, is in the stream.
    Stored(i64),
    /// The stream ends elsewhere, or does not answer: it has to be looked at again.
    Look(String),
    /// There is no room for it.
    Full(String),
    /// It is larger than the stream's messages may be.
    TooLarge(String),
}

/// The answers to what one attempt publishes.
pub(super) struct Answers {
    inbox: String,
    messages: Subscriber,
}

impl Stream {
    /// Connects to the server, whether or not the stream is there.
    pub(super) async fn connect(settings: &Settings, partition: i16, name: &str) -> Result<Self, Error> {
        let (losing, lost) = watch::channel(false);
        let servers = Servers::parse(&settings.url)?;
        let mut options = servers
            .options()
            .name("passbook relay")
            .connection_timeout(Duration::from_millis(CONNECT_MS_MAX))
            .request_timeout(Some(Duration::from_millis(ANSWER_MS_MAX)))
            .ping_interval(Duration::from_millis(PING_MS))
            // Each address once. A lost connection ends the attempt; the next one begins with what the stream holds.
            .max_reconnects(servers.addresses.len())
            .event_callback(move |event| {
                let is_lost = matches!(event, Event::Disconnected | Event::Closed);
                losing.send_if_modified(|lost| std::mem::replace(lost, *lost || is_lost) != *lost);
                async {}
            });
        if let Some(path) = &settings.credentials {
            let read = options.credentials_file(path).await;
            options = read.map_err(|source| Stop::Credentials { path: path.clone(), source })?;
        }
        let client = options.connect(servers.addresses).await.map_err(|error| match error.kind() {
            ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                Error::from(Stop::NotAllowed(error.to_string()))
            }
            _ => Error::outage("the NATS server cannot be reached", error),
        })?;
        Ok(Self { jetstream: jetstream::new(client.clone()), client, lost, partition, name: name.to_owned() })
    }

    /// Comes when the connection is lost.
    pub(super) async fn lost(&self) {
        // The sender lives as long as the client does.
        let _ = self.lost.clone().wait_for(|lost| *lost).await;
    }

    /// Where it ends, once it is known to take what is published here.
    pub(super) async fn end(&self) -> Result<End, Error> {
        let stream = match self.jetstream.get_stream(&self.name).await {
            Ok(stream) => stream,
            Err(error) => {
                return match error.kind() {
                    GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                        Ok(End::Missing)
                    }
                    _ => Err(Error::outage("JetStream does not answer as it should", error)),
                };
            }
        };
        let info = stream.cached_info();
        let subjects = message::subjects(self.partition);
        if !info.config.subjects.iter().any(|taken| [subjects.as_str(), "passbook.>", ">"].contains(&taken.as_str())) {
            return Err(Stop::Subjects { stream: self.name.clone(), subjects }.into());
        }
        let last = info.state.last_sequence;
        if last == 0 {
            return Ok(End::Empty);
        }
        let position = last.cast_signed();
        match stream.get_raw_message(last).await {
            Ok(message) => match message::place(&message.payload) {
                Some((told, hash)) if told == position => Ok(End::At(position, Some(hash))),
                Some(_) | None => Err(Stop::Foreign { stream: self.name.clone(), position }.into()),
            },
            // Purged, or too old for the stream: it ends there all the same.
            Err(error) if matches!(error.kind(), RawMessageErrorKind::NoMessageFound) => Ok(End::At(position, None)),
            Err(error) => Err(Error::outage("the stream's last message cannot be read", error)),
        }
    }

    /// Makes the stream: kept in files, without limits, and refusing what has no room where somebody sets some.
    pub(super) async fn make(&self) -> Result<(), Error> {
        let made = self.jetstream.create_stream(Config {
            name: self.name.clone(),
            description: Some(format!(
                "Passbook's log, partition {}: the message at n is the event at n",
                self.partition
            )),
            subjects: vec![message::subjects(self.partition)],
            storage: StorageType::File,
            discard: DiscardPolicy::New,
            duplicate_window: Duration::from_millis(DUPLICATE_WINDOW_MS),
            ..Config::default()
        });
        match made.await.map(drop) {
            Ok(()) => {
                tracing::info!(stream = self.name, "the stream is made");
                Ok(())
            }
            Err(error) => match error.kind() {
                jetstream::context::CreateStreamErrorKind::JetStream(refusal) if refusal.code() < 500 => {
                    Err(Stop::NotMade { stream: self.name.clone(), reason: refusal.to_string() }.into())
                }
                _ => Err(Error::outage("the stream cannot be made yet", error)),
            },
        }
    }

    /// Where the answers to what is published from now on arrive.
    pub(super) async fn answers(&self) -> Result<Answers, Error> {
        let inbox = self.client.new_inbox();
        let messages = self.client.subscribe(inbox.clone()).await;
        let messages = messages.map_err(|error| Error::outage("the NATS server takes no subscription", error))?;
        Ok(Answers { inbox, messages })
    }

    /// Sends an event to the place of its position, and does not wait for the answer.
    pub(super) async fn publish(&self, linked: &LinkedEvent, answers: &Answers) -> Result<(), Error> {
        let position = linked.event.position;
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_MESSAGE_ID, linked.event.id.to_string());
        headers.insert(header::NATS_EXPECTED_STREAM, self.name.as_str());
        headers.insert(header::NATS_EXPECTED_LAST_SEQUENCE, (position - 1).to_string());
        headers.insert("Content-Type", message::CONTENT_TYPE);
        let subject = message::subject(self.partition, linked);
        let payload = message::render(self.partition, linked);
        let payload = payload.map_err(|error| Error::outage("an event cannot be told", error))?;
        let sent = self.client.publish_with_reply_and_headers(subject, answers.inbox.clone(), headers, payload).await;
        sent.map_err(|error| match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => Stop::TooLarge { position, reason: error.to_string() }.into(),
            _ => Error::outage("the NATS server takes no message", error),
        })
    }
}

impl Answers {
    /// The next answer. It may be given up at any time.
    pub(super) async fn next(&mut self) -> Result<Answer, Error> {
        let message = self.messages.next().await;
        message.as_ref().map(read).ok_or_else(|| Error::Outage("the connection to the NATS server is lost".to_owned()))
    }
}

fn read(message: &Message) -> Answer {
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        return Answer::Look("nobody takes messages there".to_owned());
    }
    match serde_json::from_slice(&message.payload) {
        Ok(Response::Ok(PublishAck { sequence, .. })) => Answer::Stored(sequence.cast_signed()),
        Ok(Response::Err { error }) if error.error_code() == ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM => {
            Answer::TooLarge(error.to_string())
        }
        Ok(Response::Err { error }) => {
            let reason = error.to_string();
            // The server has one code for whatever its store says.
            let is_full = error.error_code() == ErrorCode::STREAM_STORE_FAILED && reason.contains("maximum");
            match is_full || NO_ROOM.contains(&error.error_code()) {
                true => Answer::Full(reason),
                false => Answer::Look(reason),
            }
        }
        Err(_) => Answer::Look(from_utf8(&message.payload).unwrap_or("an answer that is no text").to_owned()),
    }
}
