//! Somebody who follows the log: reads Server-Sent Events as the HTML standard has it, section 9.2.6.

use std::{
    io::{BufRead, Cursor},
    mem,
    time::Duration,
};

use serde_json::Value;
use tokio::time::timeout;

use super::{PATIENCE_S_MAX, home::Home};

/// A stream of events that has begun.
pub struct Follower {
    response: reqwest::Response,
    home: Option<Home>,
    unread: Cursor<Vec<u8>>,
    /// The beginning of a block.
    begun: Vec<u8>,
    /// What an `EventSource` would send as `Last-Event-ID`.
    pub last_id: String,
    /// The connection broke before the stream was ended.
    pub is_broken: bool,
    /// Comments so far.
    pub comments: usize,
}

/// An event as it was told.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub id: String,
    pub event_type: String,
    /// The data as they came.
    pub text: String,
    /// The same as JSON.
    pub data: Value,
}

impl Told {
    pub fn position(&self) -> i64 {
        self.data["position"].as_str().unwrap().parse().unwrap()
    }
}

impl Follower {
    pub fn new(response: reqwest::Response, home: Option<Home>) -> Self {
        Self {
            response,
            home,
            unread: Cursor::default(),
            begun: vec![],
            last_id: String::new(),
            is_broken: false,
            comments: 0,
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name).map(|value| value.to_str().unwrap())
    }

    /// The next event; nothing once the stream has ended. Heartbeats alone do not go on for ever.
    pub async fn next(&mut self) -> Option<Told> {
        let next = async {
            loop {
                let block = self.block().await?;
                if let Some(told) = self.read(&block) {
                    return Some(told);
                }
            }
        };
        timeout(Duration::from_secs(PATIENCE_S_MAX), next).await.expect("an event, or the end")
    }

    /// The next `count` events.
    pub async fn take(&mut self, count: usize) -> Vec<Told> {
        let mut taken = Vec::new();
        while taken.len() < count {
            taken.push(self.next().await.expect("the stream goes on"));
        }
        taken
    }

    /// Everything up to the end of the stream.
    pub async fn rest(&mut self) -> Vec<Told> {
        let mut rest = Vec::new();
        while let Some(told) = self.next().await {
            rest.push(told);
        }
        rest
    }

    /// Whether nothing comes for so long.
    pub async fn is_silent_for(&mut self, patience: Duration) -> bool {
        timeout(patience, self.next()).await.is_err()
    }

    /// Up to an empty line; what is cut off by the end of the stream does not count. May be given up at any time.
    pub async fn block(&mut self) -> Option<String> {
        loop {
            let before = self.begun.len();
            self.unread.read_until(b'\n', &mut self.begun).unwrap();
            match self.begun.ends_with(b"\n") {
                true if self.begun.ends_with(b"\n\n") => {
                    return Some(String::from_utf8(mem::take(&mut self.begun)).unwrap());
                }
                true if self.begun.len() > before => {}
                true | false => {
                    let waiting = timeout(Duration::from_secs(PATIENCE_S_MAX), self.response.chunk());
                    let came = waiting.await.expect("something comes, a heartbeat at the least");
                    self.is_broken |= came.is_err();
                    let chunk = came.ok()??;
                    self.unread = Cursor::new(chunk.to_vec());
                }
            }
        }
    }

    fn read(&mut self, block: &str) -> Option<Told> {
        let (mut event_type, mut data) = (String::new(), Vec::new());
        for line in block.lines().filter(|line| !line.is_empty()) {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "" => self.comments += 1,
                "id" => self.last_id = self.home.map_or_else(|| value.to_owned(), |home| home.told(value)),
                "event" => event_type = value.to_owned(),
                "data" => data.push(value),
                "retry" => assert!(value.parse::<u64>().is_ok(), "{line}"),
                _ => panic!("no field of the standard: {line}"),
            }
        }
        let text = data.join("\n");
        let text = self.home.map_or_else(|| text.clone(), |home| home.told_body(&text));
        let data = serde_json::from_str(&text).ok()?;
        Some(Told { id: self.last_id.clone(), event_type, text, data })
    }
}
