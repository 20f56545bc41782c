//! A client of the event feed: parses Server-Sent Events by section 9.2.6 of the HTML standard.

use std::{
    io::{BufRead, Cursor},
    mem,
    time::Duration,
};

use serde_json::Value;
use tokio::time::timeout;

use crate::{WAIT_S_MAX, contract::check_event, partition_view::PartitionView};

/// An open event stream.
pub struct FeedSubscriber {
    response: reqwest::Response,
    view: Option<PartitionView>,
    unread: Cursor<Vec<u8>>,
    /// The bytes of a block that has not arrived completely.
    partial_block: Vec<u8>,
    /// The id that an `EventSource` would send as `Last-Event-ID`.
    pub last_id: String,
    /// Whether the connection broke before the stream ended.
    pub is_broken: bool,
    /// The number of comments received.
    pub comments: usize,
}

/// A received event.
#[derive(Clone, Debug, PartialEq)]
pub struct FeedEvent {
    /// The cursor of the event.
    pub id: String,
    /// The type of the event in the log.
    pub event_type: String,
    /// The data as received.
    pub text: String,
    /// The data as JSON.
    pub data: Value,
}

impl FeedEvent {
    /// The position within the partition.
    pub fn position(&self) -> i64 {
        self.data["position"].as_str().unwrap().parse().unwrap()
    }
}

impl FeedSubscriber {
    /// Reads from this response, which shows one partition if `view` is given.
    pub fn new(response: reqwest::Response, view: Option<PartitionView>) -> Self {
        Self {
            response,
            view,
            unread: Cursor::default(),
            partial_block: vec![],
            last_id: String::new(),
            is_broken: false,
            comments: 0,
        }
    }

    /// A header of the response; `None` if it is missing.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name).map(|value| value.to_str().unwrap())
    }

    /// The next event; `None` if the stream has ended. Fails after [`WAIT_S_MAX`] even if heartbeats arrive.
    pub async fn next(&mut self) -> Option<FeedEvent> {
        let next = async {
            loop {
                let block = self.next_block().await?;
                if let Some(event) = self.parse(&block) {
                    return Some(event);
                }
            }
        };
        timeout(Duration::from_secs(WAIT_S_MAX), next).await.expect("an event, or the end of the stream")
    }

    /// The next `count` events.
    pub async fn take(&mut self, count: usize) -> Vec<FeedEvent> {
        let mut taken = Vec::new();
        while taken.len() < count {
            taken.push(self.next().await.expect("the stream has more events"));
        }
        taken
    }

    /// All events up to the end of the stream.
    pub async fn read_to_end(&mut self) -> Vec<FeedEvent> {
        let mut rest = Vec::new();
        while let Some(event) = self.next().await {
            rest.push(event);
        }
        rest
    }

    /// Whether no event arrives within `duration`.
    pub async fn receives_nothing_for(&mut self, duration: Duration) -> bool {
        timeout(duration, self.next()).await.is_err()
    }

    /// The next block, up to an empty line. A block that the end of the stream cuts off is dropped. Cancel safe.
    pub async fn next_block(&mut self) -> Option<String> {
        loop {
            let before = self.partial_block.len();
            self.unread.read_until(b'\n', &mut self.partial_block).unwrap();
            match self.partial_block.ends_with(b"\n") {
                true if self.partial_block.ends_with(b"\n\n") => {
                    return Some(String::from_utf8(mem::take(&mut self.partial_block)).unwrap());
                }
                true if self.partial_block.len() > before => {}
                true | false => {
                    let chunk = timeout(Duration::from_secs(WAIT_S_MAX), self.response.chunk());
                    let chunk = chunk.await.expect("at least a heartbeat arrives");
                    self.is_broken |= chunk.is_err();
                    self.unread = Cursor::new(chunk.ok()??.to_vec());
                }
            }
        }
    }

    fn parse(&mut self, block: &str) -> Option<FeedEvent> {
        let (mut event_type, mut data) = (String::new(), Vec::new());
        for line in block.lines().filter(|line| !line.is_empty()) {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "" => self.comments += 1,
                "id" => self.last_id = self.view.map_or_else(|| value.to_owned(), |view| view.strip(value)),
                "event" => event_type = value.to_owned(),
                "data" => data.push(value),
                "retry" => assert!(value.parse::<u64>().is_ok(), "{line}"),
                _ => panic!("not a field of the standard: {line}"),
            }
        }
        let text = data.join("\n");
        serde_json::from_str(&text).iter().for_each(check_event);
        let text = self.view.map_or_else(|| text.clone(), |view| view.strip_body(&text));
        let data = serde_json::from_str(&text).ok()?;
        Some(FeedEvent { id: self.last_id.clone(), event_type, text, data })
    }
}
