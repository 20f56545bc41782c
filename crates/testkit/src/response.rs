//! An HTTP response read to its end, with the accessors and assertions that most tests need.

use reqwest::header::HeaderMap;
use serde_json::Value;
use uuid::Uuid;

use crate::partition_view::PartitionView;

/// Status, headers and body of a response.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body's bytes as received.
    pub bytes: Vec<u8>,
    /// The body as JSON; `null` if it is not JSON.
    pub body: Value,
}

impl Response {
    /// Reads the response to its end.
    pub async fn read(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.bytes().await.unwrap().to_vec();
        let body = serde_json::from_slice(&bytes).unwrap_or_default();
        Self { status, headers, bytes, body }
    }

    /// Status and headers of a response whose body is not read.
    pub fn without_body(response: &reqwest::Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Self { status, headers, bytes: vec![], body: Value::Null }
    }

    /// Removes the partition from positions and cursors in the header and the body.
    pub fn strip_partition(&mut self, view: PartitionView) {
        if let Some(position) = self.headers.get("passbook-position") {
            let stripped = view.strip(position.to_str().unwrap());
            self.headers.insert("passbook-position", stripped.parse().unwrap());
        }
        if let Ok(text) = std::str::from_utf8(&self.bytes) {
            self.bytes = view.strip_body(text).into_bytes();
            self.body = serde_json::from_slice(&self.bytes).unwrap_or_default();
        }
    }

    /// A header's value; `None` if the header is missing.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Asserts the status and returns the response.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.bytes));
        self
    }

    /// Asserts that the response is a complete problem document with this status and code, and returns it.
    #[track_caller]
    pub fn expect_problem(self, status: u16, code: &str) -> Self {
        let text = String::from_utf8_lossy(&self.bytes).into_owned();
        assert_eq!((self.status, self.body["code"].as_str()), (status, Some(code)), "{text}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{text}");
        assert_eq!(self.body["status"], status, "{text}");
        assert_eq!(self.body["type"], format!("/problems/{code}"), "{text}");
        assert_eq!(self.body["request_id"].as_str(), self.header("x-request-id"), "{text}");
        for member in ["title", "detail", "instance"] {
            assert!(self.body[member].as_str().is_some_and(|text| !text.is_empty()), "{member} of {text}");
        }
        assert_eq!(self.header("retry-after").is_some(), matches!(status, 429 | 503), "{text}");
        self
    }

    /// Whether the response is the replay of an earlier one under the same idempotency key.
    pub fn is_replay(&self) -> bool {
        self.header("idempotency-replayed") == Some("true")
    }

    /// The account id in a receipt.
    #[track_caller]
    pub fn account_id(&self) -> Uuid {
        self.uuid("/account_id")
    }

    /// A UUID in the body, by its JSON pointer.
    #[track_caller]
    pub fn uuid(&self, pointer: &str) -> Uuid {
        self.text(pointer).parse().expect("a UUID")
    }

    /// A string in the body, by its JSON pointer.
    #[track_caller]
    pub fn text(&self, pointer: &str) -> &str {
        self.body.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer} in {}", self.body))
    }

    /// The value of the header `Passbook-Position`.
    #[track_caller]
    pub fn position(&self) -> &str {
        self.header("passbook-position").expect("a position")
    }

    /// The lines of a response in lines of JSON.
    #[track_caller]
    pub fn lines(&self) -> Vec<Value> {
        let text = std::str::from_utf8(&self.bytes).expect("UTF-8");
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))).collect()
    }

    /// The results of a batch.
    #[track_caller]
    pub fn results(&self) -> &[Value] {
        self.body["results"].as_array().unwrap_or_else(|| panic!("no results in {}", self.body))
    }

    /// The rows of a list.
    #[track_caller]
    pub fn data(&self) -> &[Value] {
        self.body["data"].as_array().expect("a list")
    }
}

/// Whether the value is a time in the contract's form: UTC, six fractional digits, `Z`.
pub fn is_time(value: &Value) -> bool {
    let shape = |text: &str| text.len() == 27 && text.ends_with('Z') && text.as_bytes()[19] == b'.';
    value.as_str().is_some_and(|text| shape(text) && chrono::DateTime::parse_from_rfc3339(text).is_ok())
}

/// Whether the value is a UUID of version 7, the version that the service creates.
pub fn is_id(value: &Value) -> bool {
    value.as_str().and_then(|text| text.parse::<Uuid>().ok()).is_some_and(|id| id.get_version_num() == 7)
}
