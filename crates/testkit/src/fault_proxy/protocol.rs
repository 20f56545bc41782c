//! The part of the Postgres wire protocol that the proxy needs. It splits both directions into messages, and recognises writes
//! and the end of a response.
//!
//! <https://www.postgresql.org/docs/current/protocol-message-formats.html>

use std::collections::HashSet;

use bytes::BytesMut;
use postgres_protocol::message::backend::{Header, READY_FOR_QUERY_TAG};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The bytes of a message before its body: its type and its length.
const HEADER_BYTES: usize = 5;

/// Takes the next complete message from the bytes that were read: its type, its length, and its body. Requests and
/// responses have the same header.
pub fn next_message(unread: &mut BytesMut) -> Option<BytesMut> {
    let header = Header::parse(unread).expect("the header of a Postgres message")?;
    let length = 1 + usize::try_from(header.len()).expect("a positive length");
    (unread.len() >= length).then(|| unread.split_to(length))
}

/// Reads the whole first message of a connection, which has no type byte.
pub async fn read_startup(client: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let length = client.read_u32().await.ok()?;
    let mut startup = length.to_be_bytes().to_vec();
    startup.resize(usize::try_from(length).ok()?.max(startup.len()), 0);
    client.read_exact(&mut startup[size_of::<u32>()..]).await.ok()?;
    Some(startup)
}

/// The `application_name` of a startup message, which is a list of names and values, each terminated by a zero byte.
pub fn application_name(startup: &[u8]) -> String {
    let mut fields = startup.split(|byte| *byte == 0).skip_while(|field| *field != b"application_name");
    String::from_utf8_lossy(fields.nth(1).unwrap_or_default()).into_owned()
}

/// Whether the message is ReadyForQuery, which ends every response.
pub fn is_ready_for_query(response: &[u8]) -> bool {
    response.first() == Some(&READY_FOR_QUERY_TAG)
}

/// Whether the request contains this text.
pub fn contains(request: &[u8], text: &str) -> bool {
    request.windows(text.len()).any(|window| window == text.as_bytes())
}

/// A request that writes to the log or commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// A call of `append_batch` outside of an explicit transaction, which commits by itself.
    AppendAlone,
    /// A call of `append_batch` within a transaction.
    Append,
    /// The end of an explicit transaction.
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
    /// The kind of write of this request; `None` if it is none. Expects every request of the connection, in order.
    pub fn classify(&mut self, request: &[u8]) -> Option<Write> {
        let body = &request[HEADER_BYTES..];
        let mut fields = body.split(|byte| *byte == 0);
        match request[0] {
            // Parse: the statement's name, then its text.
            b'P' => {
                let name = fields.next().unwrap_or_default();
                if fields.next().is_some_and(|statement| contains(statement, "FROM append_batch")) {
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

#[cfg(test)]
mod tests {
    use postgres_protocol::{IsNull, message::frontend};

    use super::*;

    fn parse(statement: &str, text: &str) -> BytesMut {
        let mut message = BytesMut::new();
        frontend::parse(statement, text, [], &mut message).unwrap();
        message
    }

    fn bind(statement: &str) -> BytesMut {
        let mut message = BytesMut::new();
        let bound = frontend::bind("", statement, [], [(); 0], |(), _| Ok(IsNull::Yes), [], &mut message);
        assert!(bound.is_ok());
        message
    }

    fn query(text: &str) -> BytesMut {
        let mut message = BytesMut::new();
        frontend::query(text, &mut message).unwrap();
        message
    }

    #[test]
    fn append_batch_calls_are_distinguished_from_other_requests() {
        let mut detector = WriteDetector::default();
        assert_eq!(detector.classify(&parse("s1", "SELECT 1 FROM append_batch($1)")), None);
        assert_eq!(detector.classify(&bind("s1")), Some(Write::AppendAlone));
        assert_eq!(detector.classify(&query("BEGIN")), None);
        assert_eq!(detector.classify(&bind("s1")), Some(Write::Append));
        assert_eq!(detector.classify(&bind("s2")), None);
        assert_eq!(detector.classify(&query("COMMIT")), Some(Write::Commit));
        assert_eq!(detector.classify(&bind("s1")), Some(Write::AppendAlone));
    }

    #[test]
    fn a_message_is_taken_only_once_it_is_complete() {
        let (first, second) = (query("BEGIN"), bind("s1"));
        let mut unread = first.clone();
        unread.extend_from_slice(&second[..HEADER_BYTES - 2]);
        assert_eq!(next_message(&mut unread), Some(first));
        assert_eq!(next_message(&mut unread), None, "the header is incomplete");
        unread.extend_from_slice(&second[HEADER_BYTES - 2..HEADER_BYTES + 1]);
        assert_eq!(next_message(&mut unread), None, "the body is incomplete");
        unread.extend_from_slice(&second[HEADER_BYTES + 1..]);
        assert_eq!(next_message(&mut unread), Some(second));
        assert!(unread.is_empty());
    }

    #[tokio::test]
    async fn application_name_is_read_from_the_startup_message() {
        let mut message = BytesMut::new();
        let parameters = [("user", "passbook"), ("application_name", "passbook writer")];
        frontend::startup_message(parameters, &mut message).unwrap();
        let startup = read_startup(&mut &message[..]).await.unwrap();
        assert_eq!(startup, message);
        assert_eq!(application_name(&startup), "passbook writer");
        assert_eq!(read_startup(&mut &message[..message.len() - 1]).await, None, "the message is incomplete");
    }
}
