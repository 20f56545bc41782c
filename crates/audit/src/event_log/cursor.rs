//! Cursors identify an event by its position and the first bytes of its hash: `42-9f86d081`. After a restore, another event may
//! have the same position; its hash then differs from the cursor's. With several partitions, a cursor has an entry for each
//! partition in which events were read: `0:42-9f86d081,3:17-0b822cd1`.

use std::{borrow::Cow, fmt, str::FromStr};

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};

use super::error::InvalidCursor;
use passbook_event_store::{Partitions, partition_number};

/// How many bytes of an event's hash a cursor contains.
const HASH_BYTES: usize = 4;
const HASH_DIGITS: usize = 2 * HASH_BYTES;
/// The pattern of a cursor's text, with and without hashes.
const PATTERN: &str =
    "^([0-9]{1,18}(-[0-9a-f]{8})?|[0-9]{1,2}:[0-9]{1,18}(-[0-9a-f]{8})?(,[0-9]{1,2}:[0-9]{1,18}(-[0-9a-f]{8})?)*)$";

/// The last event that was read in one partition. The default is the beginning of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PartitionCursor {
    /// The event's position; 0 at the beginning of the log.
    pub(super) position: i64,
    hash: [u8; HASH_BYTES],
}

/// The last event that was read in each partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(Vec<PartitionCursor>);

/// A cursor as a client sends it. Its hashes are optional and not compared with the log yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CursorParam(CursorForm);

#[derive(Clone, Debug, PartialEq, Eq)]
enum CursorForm {
    /// For a log of one partition.
    Single(PartitionCursorParam),
    /// For a log of several partitions. Partitions that are not listed are read from the beginning.
    PerPartition(Vec<(i16, PartitionCursorParam)>),
}

/// The part of a [`CursorParam`] for one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PartitionCursorParam {
    pub(super) position: i64,
    hash: Option<[u8; HASH_BYTES]>,
}

impl PartitionCursor {
    /// The cursor after the event with this position and hash.
    pub(super) fn new(position: i64, hash: &[u8]) -> Self {
        let mut cursor = Self { position, ..Self::default() };
        cursor.hash.iter_mut().zip(hash).for_each(|(prefix, byte)| *prefix = *byte);
        cursor
    }

    /// Whether the event with this position and hash is the cursor's event.
    pub(super) fn matches(&self, position: i64, hash: &[u8]) -> bool {
        self.position == position && hash.starts_with(&self.hash)
    }
}

impl Cursor {
    /// A cursor with one entry per partition, in their order.
    pub(super) fn new(partitions: Vec<PartitionCursor>) -> Self {
        Self(partitions)
    }

    /// The position in a partition; 0 at its beginning.
    pub fn position_in(&self, partition: i16) -> i64 {
        self.at(partition).position
    }

    /// The entry of a partition.
    pub(super) fn at(&self, partition: i16) -> PartitionCursor {
        usize::try_from(partition).ok().and_then(|index| self.0.get(index)).copied().unwrap_or_default()
    }

    /// Replaces the entry of a partition.
    pub(super) fn advance(&mut self, partition: i16, to: PartitionCursor) {
        if let Some(entry) = usize::try_from(partition).ok().and_then(|index| self.0.get_mut(index)) {
            *entry = to;
        }
    }
}

impl PartitionCursorParam {
    /// A position without a hash.
    pub(super) fn from_position(position: i64) -> Self {
        Self { position, hash: None }
    }

    /// The cursor after the event at this position, which has the hash `recorded`. `None` if the hashes differ.
    pub(super) fn resolve(&self, recorded: &[u8]) -> Option<PartitionCursor> {
        let cursor = PartitionCursor::new(self.position, recorded);
        self.hash.is_none_or(|hash| hash == cursor.hash).then_some(cursor)
    }
}

impl Default for CursorParam {
    fn default() -> Self {
        Self(CursorForm::Single(PartitionCursorParam::default()))
    }
}

impl CursorParam {
    /// One entry per partition, in their order. `None` if the cursor belongs to a log with other partitions.
    pub(super) fn per_partition(&self, partitions: Partitions) -> Option<Vec<PartitionCursorParam>> {
        let mut entries = vec![PartitionCursorParam::default(); partitions.all().len()];
        match &self.0 {
            // Position 0, the beginning, is valid with any number of partitions.
            CursorForm::Single(entry) if partitions.is_partitioned() && entry.position > 0 => return None,
            CursorForm::Single(entry) => *entries.first_mut()? = *entry,
            CursorForm::PerPartition(listed) => {
                for (partition, entry) in listed {
                    *entries.get_mut(usize::try_from(*partition).ok()?)? = *entry;
                }
            }
        }
        Some(entries)
    }
}

impl fmt::Display for PartitionCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.position, hex::encode(self.hash))
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [single] = self.0[..] {
            return single.fmt(f);
        }
        let started = (0..).zip(&self.0).filter(|(_, entry)| entry.position > 0);
        if started.clone().next().is_none() {
            return write!(f, "0:{}", PartitionCursor::default());
        }
        for (index, (partition, entry)) in started.enumerate() {
            write!(f, "{}{partition}:{entry}", if index > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

impl PartialSchema for Cursor {
    fn schema() -> RefOr<Schema> {
        let description = "A cursor of the log: `42-9f86d081`, or `0:42-9f86d081,3:17-0b822cd1` with several partitions. Opaque: \
             return it unchanged. A position is also accepted.";
        let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some(PATTERN));
        text.description(Some(description)).examples(["42-9f86d081"]).into()
    }
}

impl ToSchema for Cursor {
    fn name() -> Cow<'static, str> {
        "LogCursor".into()
    }
}

impl FromStr for CursorParam {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        if !text.contains(':') {
            return parse_entry(text).map(|entry| Self(CursorForm::Single(entry))).ok_or(InvalidCursor);
        }
        let parse = |part: &str| {
            let (partition, entry) = part.split_once(':')?;
            Some((partition_number(partition)?, parse_entry(entry)?))
        };
        let entries: Option<Vec<(i16, PartitionCursorParam)>> = text.split(',').map(parse).collect();
        let entries = entries.filter(|entries| entries.is_sorted_by(|one, next| one.0 < next.0));
        entries.map(|entries| Self(CursorForm::PerPartition(entries))).ok_or(InvalidCursor)
    }
}

fn parse_entry(text: &str) -> Option<PartitionCursorParam> {
    let (position, hash) = match text.split_once('-') {
        Some((position, digits)) => (position, Some(parse_hash(digits)?)),
        None => (text, None),
    };
    let is_number = !position.is_empty() && position.bytes().all(|byte| byte.is_ascii_digit());
    let position = position.parse().ok().filter(|_| is_number)?;
    Some(PartitionCursorParam { position, hash })
}

fn parse_hash(digits: &str) -> Option<[u8; HASH_BYTES]> {
    let is_lower_case = digits.len() == HASH_DIGITS && !digits.bytes().any(|byte| byte.is_ascii_uppercase());
    let bytes = hex::decode(digits).ok().filter(|_| is_lower_case)?;
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: [u8; 5] = [0x9f, 0x86, 0xd0, 0x81, 0x88];

    fn partitions(count: i16) -> Partitions {
        Partitions::new(count).expect("a valid count")
    }

    #[test]
    fn cursor_contains_the_position_and_part_of_the_hash() {
        let cursor = PartitionCursor::new(42, &HASH);
        assert_eq!(Cursor::new(vec![cursor]).to_string(), "42-9f86d081");
        assert_eq!(Cursor::new(vec![PartitionCursor::default()]).to_string(), "0-00000000");
        let parse = |text: &str| {
            text.parse::<CursorParam>().expect("a cursor").per_partition(partitions(1)).expect("a single partition")[0]
        };
        assert_eq!(parse("42-9f86d081").resolve(&[0x9f, 0x86, 0xd0, 0x81, 0x00]), Some(cursor));
        assert_eq!(parse("42-9f86d081").resolve(&[0x9f, 0x86, 0xd0, 0x80, 0x88]), None);
        assert_eq!(parse("42").resolve(&[0x9f, 0x86, 0xd0, 0x81]), Some(cursor));
    }

    #[test]
    fn cursor_over_partitions_lists_those_with_a_position() {
        let mut cursor = Cursor::new(vec![PartitionCursor::default(); 4]);
        assert_eq!(cursor.to_string(), "0:0-00000000");
        cursor.advance(3, PartitionCursor::new(17, &HASH));
        assert_eq!(cursor.to_string(), "3:17-9f86d081");
        cursor.advance(0, PartitionCursor::new(42, &HASH));
        assert_eq!(cursor.to_string(), "0:42-9f86d081,3:17-9f86d081");
        let param: CursorParam = cursor.to_string().parse().expect("a cursor");
        let entries = param.per_partition(partitions(4)).expect("four partitions");
        assert_eq!(entries.iter().map(|entry| entry.position).collect::<Vec<_>>(), [42, 0, 0, 17]);
        assert_eq!(param.per_partition(partitions(3)), None);
        assert_eq!("42".parse::<CursorParam>().expect("a position").per_partition(partitions(4)), None);
        assert!("0".parse::<CursorParam>().expect("a position").per_partition(partitions(4)).is_some());
    }

    #[test]
    fn invalid_cursors_are_rejected() {
        let single = ["", "-", "x", "v17", "-1", "+1", "1.0", " 1", "1-", "1-9f86d08", "1-9f86d0811", "1-9f86d08g"];
        let more =
            ["1-9F86D081", "1-+f86d081", "9223372036854775808", "1-9f86d081-9f86d081", "①-9f86d081", "1-9f86d0é"];
        let several = ["0:", ":1", "0:1,", "0:1,0:2", "3:1,0:2", "64:1", "0:1-9f86d08", "0:1:2", "00:1", "0:-1"];
        for text in single.into_iter().chain(more).chain(several) {
            assert_eq!(text.parse::<CursorParam>(), Err(InvalidCursor), "{text}");
        }
    }
}
