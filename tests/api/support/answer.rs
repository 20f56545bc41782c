//! An answer, read to its end, and what is commonly asked of it.

use reqwest::header::HeaderMap;
use serde_json::Value;
use uuid::Uuid;

use super::home::Home;

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// The body as it came.
    pub bytes: Vec<u8>,
    /// The body as JSON; `null` where it is none.
    pub body: Value,
}

impl Answer {
    pub async fn read(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.bytes().await.unwrap().to_vec();
        let body = serde_json::from_slice(&bytes).unwrap_or_default();
        Self { status, headers, bytes, body }
    }

    /// What stands before a body that is not read.
    pub fn without_body(response: &reqwest::Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Self { status, headers, bytes: vec![], body: Value::Null }
    }

    /// The same as if there were one partition.
    pub fn come_home(&mut self, home: Home) {
        if let Some(position) = self.headers.get("passbook-position") {
            let told = home.told(position.to_str().unwrap());
            self.headers.insert("passbook-position", told.parse().unwrap());
        }
        if let Ok(text) = std::str::from_utf8(&self.bytes) {
            self.bytes = home.told_body(text).into_bytes();
            self.body = serde_json::from_slice(&self.bytes).unwrap_or_default();
        }
    }

    /// A header's value; nothing where it is missing.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The answer, if it has this status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.bytes));
        self
    }

    /// The answer, if it is a problem of this status and code, whole and without a word too much.
    #[track_caller]
    pub fn refused(self, status: u16, code: &str) -> Self {
        let told = String::from_utf8_lossy(&self.bytes).into_owned();
        assert_eq!((self.status, self.body["code"].as_str()), (status, Some(code)), "{told}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{told}");
        assert_eq!(self.body["status"], status, "{told}");
        assert_eq!(self.body["type"], format!("/problems/{code}"), "{told}");
        assert_eq!(self.body["request_id"].as_str(), self.header("x-request-id"), "{told}");
        for member in ["title", "detail", "instance"] {
            assert!(self.body[member].as_str().is_some_and(|text| !text.is_empty()), "{member} of {told}");
        }
        assert_eq!(self.header("retry-after").is_some(), matches!(status, 429 | 503), "{told}");
        self
    }

    /// Whether it is the replay of an earlier answer.
    pub fn is_replay(&self) -> bool {
        self.header("idempotency-replayed") == Some("true")
    }

    /// The account of a receipt.
    #[track_caller]
    pub fn account_id(&self) -> Uuid {
        self.uuid("/account_id")
    }

    /// An id in the body, by its JSON pointer.
    #[track_caller]
    pub fn uuid(&self, pointer: &str) -> Uuid {
        self.text(pointer).parse().expect("a UUID")
    }

    /// A text in the body, by its JSON pointer.
    #[track_caller]
    pub fn text(&self, pointer: &str) -> &str {
        self.body.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer} in {}", self.body))
    }

    /// The position in the header.
    #[track_caller]
    pub fn position(&self) -> &str {
        self.header("passbook-position").expect("a position")
    }

    /// The rows of a list.
    #[track_caller]
    pub fn data(&self) -> &[Value] {
        self.body["data"].as_array().expect("a list")
    }
}

/// Whether it is written as the contract has it: UTC, six fractional digits, `Z`.
pub fn is_time(value: &Value) -> bool {
    let shape = |text: &str| text.len() == 27 && text.ends_with('Z') && text.as_bytes()[19] == b'.';
    value.as_str().is_some_and(|text| shape(text) && chrono::DateTime::parse_from_rfc3339(text).is_ok())
}

/// Whether it is an id made by the service.
pub fn is_id(value: &Value) -> bool {
    value.as_str().and_then(|text| text.parse::<Uuid>().ok()).is_some_and(|id| id.get_version_num() == 7)
}
