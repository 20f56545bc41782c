//! The text of a checkpoint: the name of the log, a line `<partition> <position> <hash>` for each partition, and the time.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use passbook_event_store::{Hash, PARTITIONS_MAX, timestamp};
use uuid::Uuid;

use crate::log_name;

/// What a checkpoint says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log.
    pub log_id: Uuid,
    /// The head of each partition, from partition 0.
    pub heads: Vec<SavedHead>,
    /// The time of the database's clock.
    pub time: DateTime<Utc>,
}

/// The head of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedHead {
    /// The position of the last event; 0 without events.
    pub position: i64,
    /// The hash of the last event; zeros without events.
    pub hash: Hash,
}

/// A signed text is not a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its text is not that of a checkpoint of Passbook")]
pub struct InvalidBody;

impl fmt::Display for Checkpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}", log_name(self.log_id))?;
        for (partition, SavedHead { position, hash }) in self.heads.iter().enumerate() {
            writeln!(formatter, "{partition} {position} {}", hex::encode(hash))?;
        }
        writeln!(formatter, "{}", timestamp::format(&self.time))
    }
}

impl FromStr for Checkpoint {
    type Err = InvalidBody;

    fn from_str(text: &str) -> Result<Self, InvalidBody> {
        // Each checkpoint has one text, so that the parsed form has exactly the text that was signed.
        parse(text).filter(|checkpoint| checkpoint.to_string() == text).ok_or(InvalidBody)
    }
}

fn parse(text: &str) -> Option<Checkpoint> {
    let mut lines = text.lines();
    let log_id = lines.next()?.strip_prefix("passbook/")?.parse().ok()?;
    let mut lines: Vec<&str> = lines.collect();
    let time = DateTime::parse_from_rfc3339(lines.pop()?).ok()?.to_utc();
    let heads: Vec<SavedHead> = lines.into_iter().map(parse_head).collect::<Option<_>>()?;
    (1..=PARTITIONS_MAX as usize).contains(&heads.len()).then_some(Checkpoint { log_id, heads, time })
}

fn parse_head(line: &str) -> Option<SavedHead> {
    let mut fields = line.split(' ').skip(1);
    let position: i64 = fields.next()?.parse().ok()?;
    let hash: Hash = hex::decode(fields.next()?).ok()?.try_into().ok()?;
    let is_head = position > 0 || (position == 0 && hash == [0; 32]);
    is_head.then_some(SavedHead { position, hash })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;

    fn text() -> String {
        format!(
            "passbook/01900000-0000-7000-8000-000000000001\n0 42 {}\n1 0 {}\n2026-12-01T03:00:00.000001Z\n",
            "ab".repeat(32),
            "00".repeat(32)
        )
    }

    #[test]
    fn a_checkpoint_is_read_and_written() {
        let checkpoint: Checkpoint = text().parse().unwrap();
        assert_eq!(checkpoint.heads[0], SavedHead { position: 42, hash: [0xab; 32] });
        assert_eq!(checkpoint.heads[1], SavedHead { position: 0, hash: [0; 32] });
        assert_eq!(checkpoint.to_string(), text());
    }

    #[test]
    fn other_texts_are_rejected() {
        let text = text();
        for (valid, invalid) in [
            ("passbook/", "passbook "),
            ("passbook/0", "passbook/x"),
            ("0 42 ", "0 -42 "),
            ("0 42 ", "0 042 "),
            ("0 42 ", "1 42 "),
            ("0 42 ", "0  42 "),
            ("abab\n", "abaB\n"),
            ("abab\n", "ab\n"),
            ("0 42 ", "0 0 "),
            ("1 0 00", "1 0 01"),
            (".000001Z", ".1Z"),
            ("Z\n", "Z"),
            ("Z\n", "+01:00\n"),
            ("Z\n", "Z\nmore\n"),
        ] {
            assert!(text.contains(valid), "{valid}");
            assert_eq!(text.replacen(valid, invalid, 1).parse::<Checkpoint>(), Err(InvalidBody), "{invalid}");
        }
        assert_eq!("".parse::<Checkpoint>(), Err(InvalidBody));
    }
}
