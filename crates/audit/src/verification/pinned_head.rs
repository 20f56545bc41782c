//! A head of the log that an auditor saved outside the database. A log that was rewritten later has another hash there.

use std::{str::FromStr, sync::Arc};

use passbook_event_store::{Hash, partition_number};

/// Fewer digits of a hash could match by chance.
const DIGITS_MIN: usize = 8;

/// A saved position, and the hash of the event there or its first digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedHead {
    /// The partition.
    pub partition: i16,
    /// The position in it.
    pub position: i64,
    digits: String,
    /// Where the head was saved, for messages; `None` for one that the command line names.
    source: Option<Arc<str>>,
}

/// A text is not a pinned head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a head is <position>-<hash> with a position from 1 and at least the first {DIGITS_MIN} hex digits of the hash; with several \
     partitions, it is a list of <partition>:<position>-<hash>, separated by commas"
)]
pub struct InvalidPinnedHead;

impl PinnedHead {
    /// A head with its whole hash. `source` names where it was saved.
    pub fn new(partition: i16, position: i64, hash: &Hash, source: Arc<str>) -> Self {
        Self { partition, position, digits: hex::encode(hash), source: Some(source) }
    }

    /// Where the head was saved, for messages.
    pub(super) fn source(&self) -> &str {
        self.source.as_deref().unwrap_or("the expected head")
    }

    /// Whether `hash` is the saved hash.
    pub(super) fn matches(&self, hash: &Hash) -> bool {
        hex::encode(hash).starts_with(&self.digits)
    }
}

impl FromStr for PinnedHead {
    type Err = InvalidPinnedHead;

    fn from_str(text: &str) -> Result<Self, InvalidPinnedHead> {
        let (partition, head) = text.split_once(':').unwrap_or(("0", text));
        let partition = partition_number(partition).ok_or(InvalidPinnedHead)?;
        let (position, digits) = head.split_once('-').ok_or(InvalidPinnedHead)?;
        let position = position.parse().ok().filter(|position| *position > 0).ok_or(InvalidPinnedHead)?;
        let is_hexadecimal = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        match is_hexadecimal && (DIGITS_MIN..=2 * size_of::<Hash>()).contains(&digits.len()) {
            true => Ok(Self { partition, position, digits: digits.to_ascii_lowercase(), source: None }),
            false => Err(InvalidPinnedHead),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pinned_head_matches_hashes_with_its_first_digits() {
        let head: PinnedHead = "7-0A0a0a0a".parse().expect("a pinned head");
        assert!(head.matches(&[10; 32]));
        assert!(!head.matches(&[11; 32]));
        let in_partition: PinnedHead = "3:7-0a0a0a0a".parse().expect("a pinned head");
        assert_eq!((head.partition, in_partition.partition, in_partition.position), (0, 3, 7));
    }

    #[test]
    fn invalid_pinned_heads_are_rejected() {
        for invalid in [
            "",
            "7",
            "7-",
            "0-0a0a0a0a",
            "-1-0a0a0a0a",
            "7-0a0a0a0",
            "7-0g0a0a0a",
            "64:7-0a0a0a0a",
            ":7-0a0a0a0a",
            &format!("7-{}", "0".repeat(65)),
        ] {
            assert_eq!(invalid.parse::<PinnedHead>(), Err(InvalidPinnedHead), "{invalid}");
        }
    }
}
