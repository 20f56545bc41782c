//! The part of the Postgres wire protocol that the proxy needs to recognise writes and the end of a response.
//!
//! <https://www.postgresql.org/docs/current/protocol-message-formats.html>

use std::collections::HashSet;

/// A complete message: a type byte, a length, and the body.
pub type Message = Vec<u8>;

/// Splits a byte stream into messages.
#[derive(Default)]
pub struct MessageBuffer(Vec<u8>);

impl MessageBuffer {
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Takes the next complete message.
    pub fn pop(&mut self) -> Option<Message> {
        let length: [u8; 4] = self.0.get(1..5)?.try_into().unwrap();
        let whole = 1 + usize::try_from(u32::from_be_bytes(length)).unwrap();
        (self.0.len() >= whole).then(|| self.0.drain(..whole).collect())
    }

    /// Takes the remaining bytes.
    pub fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

/// Extracts the `application_name` from the startup message, which has no type byte.
pub fn application_name(startup: &[u8]) -> String {
    let mut fields = startup.split(|byte| *byte == 0).skip_while(|field| *field != b"application_name");
    String::from_utf8_lossy(fields.nth(1).unwrap_or_default()).into_owned()
}

/// Whether the message is ReadyForQuery, which ends every response.
pub fn is_ready_for_query(response: &Message) -> bool {
    response.first() == Some(&b'Z')
}

/// A request that writes to the log or commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// A call of `append_batch` outside of an explicit transaction, which commits by itself.
    AppendAlone,
    /// A call of `append_batch` within a transaction.
    Append,
    Commit,
}

/// Recognises the writes among the requests of one connection.
#[derive(Default)]
pub struct WriteDetector {
    /// The names of the prepared statements that call `append_batch`.
    appends: HashSet<Vec<u8>>,
    in_transaction: bool,
}

impl WriteDetector {
    pub fn classify(&mut self, request: &Message) -> Option<Write> {
        let body = &request[5..];
        let mut fields = body.split(|byte| *byte == 0);
        match request[0] {
            // Parse: the statement's name, then its text.
            b'P' => {
                let name = fields.next().unwrap_or_default();
                if fields.next().is_some_and(|statement| contains(statement, b"FROM append_batch")) {
                    self.appends.insert(name.to_vec());
                }
                None
            }
            // Bind: the portal's name, then the statement's name.
            b'B' => {
                let is_append = fields.nth(1).is_some_and(|name| self.appends.contains(name));
                is_append.then_some(if self.in_transaction { Write::Append } else { Write::AppendAlone })
            }
            b'Q' => {
                self.in_transaction = body.starts_with(b"BEGIN");
                body.starts_with(b"COMMIT").then_some(Write::Commit)
            }
            _ => None,
        }
    }
}

fn contains(text: &[u8], pattern: &[u8]) -> bool {
    text.windows(pattern.len()).any(|window| window == pattern)
}

#[test]
fn append_batch_calls_are_distinguished_from_other_requests() {
    let request = |kind: u8, body: &[u8]| {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[kind], &length[..], body].concat()
    };
    let mut messages = MessageBuffer::default();
    messages.push(&request(b'P', b"s1\0SELECT 1 FROM append_batch($1)\0\0\0"));
    let bind = request(b'B', b"\0s1\0\0\0\0\0");
    messages.push(&bind[..3]);
    let mut detector = WriteDetector::default();
    assert_eq!(detector.classify(&messages.pop().unwrap()), None);
    assert!(messages.pop().is_none(), "the message is incomplete");
    messages.push(&bind[3..]);
    assert_eq!(detector.classify(&messages.pop().unwrap()), Some(Write::AppendAlone));
    assert_eq!(detector.classify(&request(b'Q', b"BEGIN\0")), None);
    assert_eq!(detector.classify(&bind), Some(Write::Append));
    assert_eq!(detector.classify(&request(b'B', b"\0s2\0\0\0\0\0")), None);
    assert_eq!(detector.classify(&request(b'Q', b"COMMIT\0")), Some(Write::Commit));
    assert_eq!(detector.classify(&bind), Some(Write::AppendAlone));
}
