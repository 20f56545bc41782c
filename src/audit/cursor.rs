//! Places in the log that carry a part of its history with them: `42-9f86d081` is the event at position 42 with the hash
//! that begins so. After a restore the same position may hold another event, and the cursor says so.

use std::{fmt, str::FromStr};

/// How many digits of an event's hash a cursor repeats.
const HASH_DIGITS: usize = 2 * HASH_BYTES;
const HASH_BYTES: usize = 4;

/// Behind an event that stands in the log, or before the first one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The event's position; 0 before the first one.
    pub position: i64,
    hash: [u8; HASH_BYTES],
}

/// What somebody says that a cursor is. The hash may be left away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bookmark {
    pub(super) position: i64,
    hash: Option<[u8; HASH_BYTES]>,
}

/// The text is no cursor of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a cursor of the log is <position>-<8 hex digits of that event's hash>, such as 42-9f86d081, or a position alone"
)]
pub struct InvalidCursor;

impl Cursor {
    /// The cursor behind the event with this hash.
    pub(super) fn new(position: i64, hash: &[u8]) -> Self {
        let mut cursor = Self { position, ..Self::default() };
        cursor.hash.iter_mut().zip(hash).for_each(|(digit, byte)| *digit = *byte);
        cursor
    }

    /// Whether this is the event that it was taken from.
    pub(super) fn is_of(&self, position: i64, hash: &[u8]) -> bool {
        self.position == position && hash.starts_with(&self.hash)
    }
}

impl Bookmark {
    /// The event at `position`, whichever it is.
    pub(super) fn of(position: i64) -> Self {
        Self { position, hash: None }
    }

    /// The cursor, if the event there is the one that was meant.
    pub(super) fn at(&self, hash: &[u8]) -> Option<Cursor> {
        let cursor = Cursor::new(self.position, hash);
        self.hash.is_none_or(|meant| meant == cursor.hash).then_some(cursor)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.position, hex::encode(self.hash))
    }
}

impl FromStr for Bookmark {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let (position, hash) = match text.split_once('-') {
            Some((position, digits)) => (position, Some(hash(digits).ok_or(InvalidCursor)?)),
            None => (text, None),
        };
        let is_number = !position.is_empty() && position.bytes().all(|byte| byte.is_ascii_digit());
        let position = position.parse().ok().filter(|_| is_number).ok_or(InvalidCursor)?;
        Ok(Self { position, hash })
    }
}

fn hash(digits: &str) -> Option<[u8; HASH_BYTES]> {
    let lower = digits.len() == HASH_DIGITS && !digits.bytes().any(|byte| byte.is_ascii_uppercase());
    let bytes = hex::decode(digits).ok().filter(|_| lower)?;
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_says_where_it_stands_and_in_which_history() {
        let cursor = Cursor::new(42, &[0x9f, 0x86, 0xd0, 0x81, 0x88]);
        assert_eq!(cursor.to_string(), "42-9f86d081");
        assert_eq!(Cursor::default().to_string(), "0-00000000");
        let said: Bookmark = "42-9f86d081".parse().expect("a cursor");
        assert_eq!(said.at(&[0x9f, 0x86, 0xd0, 0x81, 0x00]), Some(cursor));
        assert_eq!(said.at(&[0x9f, 0x86, 0xd0, 0x80, 0x88]), None);
        let bare: Bookmark = "42".parse().expect("a position");
        assert_eq!(bare.at(&[0x9f, 0x86, 0xd0, 0x81]), Some(cursor));
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        let others = ["", "-", "x", "v17", "-1", "+1", "1.0", " 1", "1-", "1-9f86d08", "1-9f86d0811", "1-9f86d08g"];
        let more =
            ["1-9F86D081", "1-+f86d081", "9223372036854775808", "1-9f86d081-9f86d081", "①-9f86d081", "1-9f86d0é"];
        for text in others.into_iter().chain(more) {
            assert_eq!(text.parse::<Bookmark>(), Err(InvalidCursor), "{text}");
        }
    }
}
