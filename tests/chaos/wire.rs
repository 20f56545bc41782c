//! The protocol between a client and Postgres, as far as a thief must know it to steal the right message.
//!
//! <https://www.postgresql.org/docs/current/protocol-message-formats.html>

use std::collections::HashSet;

/// A message as it stands on the wire: a letter, a length, and what it says.
pub type Message = Vec<u8>;

/// Cuts a stream of bytes into messages.
#[derive(Default)]
pub struct Messages(Vec<u8>);

impl Messages {
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next whole message.
    pub fn pop(&mut self) -> Option<Message> {
        let length: [u8; 4] = self.0.get(1..5)?.try_into().unwrap();
        let whole = 1 + usize::try_from(u32::from_be_bytes(length)).unwrap();
        (self.0.len() >= whole).then(|| self.0.drain(..whole).collect())
    }

    /// What has come and has not been popped.
    pub fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

/// The first message of a connection has no letter. It names the client, among other things.
pub fn application_name(startup: &[u8]) -> String {
    let mut words = startup.split(|byte| *byte == 0).skip_while(|word| *word != b"application_name");
    String::from_utf8_lossy(words.nth(1).unwrap_or_default()).into_owned()
}

/// Whether the server says that it has done what it was asked and waits for more.
pub fn is_ready_for_query(answer: &Message) -> bool {
    answer.first() == Some(&b'Z')
}

/// A request that may make something durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// A call of `append_batch` that commits by itself.
    AppendAlone,
    /// The same within a transaction.
    Append,
    Commit,
}

/// Tells writes from other requests.
#[derive(Default)]
pub struct Writes {
    /// The prepared statements that call it.
    appends: HashSet<Vec<u8>>,
    in_transaction: bool,
}

impl Writes {
    pub fn tell(&mut self, request: &Message) -> Option<Write> {
        let said = &request[5..];
        let mut words = said.split(|byte| *byte == 0);
        match request[0] {
            // Parse: a name, then the statement.
            b'P' => {
                let name = words.next().unwrap_or_default();
                if words.next().is_some_and(|statement| contains(statement, b"FROM append_batch")) {
                    self.appends.insert(name.to_vec());
                }
                None
            }
            // Bind: a portal, then the name of the statement.
            b'B' => {
                let is_append = words.nth(1).is_some_and(|name| self.appends.contains(name));
                is_append.then_some(if self.in_transaction { Write::Append } else { Write::AppendAlone })
            }
            b'Q' => {
                self.in_transaction = said.starts_with(b"BEGIN");
                said.starts_with(b"COMMIT").then_some(Write::Commit)
            }
            _ => None,
        }
    }
}

fn contains(text: &[u8], words: &[u8]) -> bool {
    text.windows(words.len()).any(|window| window == words)
}

#[test]
fn a_call_of_append_batch_is_told_from_other_requests() {
    let request = |letter: u8, said: &[u8]| {
        let length = u32::try_from(said.len() + 4).unwrap().to_be_bytes();
        [&[letter], &length[..], said].concat()
    };
    let mut messages = Messages::default();
    messages.push(&request(b'P', b"s1\0SELECT 1 FROM append_batch($1)\0\0\0"));
    let bind = request(b'B', b"\0s1\0\0\0\0\0");
    messages.push(&bind[..3]);
    let mut writes = Writes::default();
    assert_eq!(writes.tell(&messages.pop().unwrap()), None);
    assert!(messages.pop().is_none(), "the rest is still to come");
    messages.push(&bind[3..]);
    assert_eq!(writes.tell(&messages.pop().unwrap()), Some(Write::AppendAlone));
    assert_eq!(writes.tell(&request(b'Q', b"BEGIN\0")), None);
    assert_eq!(writes.tell(&bind), Some(Write::Append));
    assert_eq!(writes.tell(&request(b'B', b"\0s2\0\0\0\0\0")), None);
    assert_eq!(writes.tell(&request(b'Q', b"COMMIT\0")), Some(Write::Commit));
    assert_eq!(writes.tell(&bind), Some(Write::AppendAlone));
}
