//! Positions in the log as clients see them: short strings such as `42` or `0:42,3:17`, which clients return unchanged.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::partition::{PARTITIONS_MAX, Partitions};

/// A position of the log or of a view. 0 is the position before the first event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// The position in a log of one partition.
    Single(i64),
    /// Positions in a log of several partitions, by ascending partition. A missing partition is not constrained.
    PerPartition(Vec<(i16, i64)>),
}

impl Position {
    /// Returns the position within `partition`, 0 if this value does not contain that partition.
    pub fn in_partition(&self, partition: i16) -> i64 {
        match self {
            Position::Single(position) if partition == 0 => *position,
            Position::Single(_) => 0,
            Position::PerPartition(positions) => {
                positions.iter().find(|found| found.0 == partition).map_or(0, |found| found.1)
            }
        }
    }

    /// Combines two positions: for each partition, the greater of both.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        match (self, other) {
            (Position::Single(one), Position::Single(other)) => Position::Single(one.max(other)),
            (Position::PerPartition(mut positions), Position::PerPartition(others)) => {
                for (partition, position) in others {
                    match positions.binary_search_by_key(&partition, |found| found.0) {
                        Ok(index) => positions[index].1 = positions[index].1.max(position),
                        Err(index) => positions.insert(index, (partition, position)),
                    }
                }
                Position::PerPartition(positions)
            }
            // These belong to different logs, so callers never merge them.
            (several @ Position::PerPartition(_), Position::Single(_))
            | (Position::Single(_), several @ Position::PerPartition(_)) => several,
        }
    }
}

impl Partitions {
    /// Returns a position in one partition of a log with these partitions.
    pub fn position_in(self, partition: i16, position: i64) -> Position {
        match self.is_partitioned() {
            false => Position::Single(position),
            true => Position::PerPartition(vec![(partition, position)]),
        }
    }

    /// Whether `position` can be one of a log with these partitions.
    pub fn covers(self, position: &Position) -> bool {
        match position {
            Position::Single(position) => !self.is_partitioned() || *position == 0,
            Position::PerPartition(positions) => positions.iter().all(|(partition, _)| *partition < self.count()),
        }
    }
}

impl Default for Position {
    fn default() -> Self {
        Position::Single(0)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Position::Single(position) => position.fmt(f),
            Position::PerPartition(positions) if positions.iter().all(|found| found.1 == 0) => f.write_str("0:0"),
            Position::PerPartition(positions) => {
                let mut comma = "";
                for (partition, position) in positions.iter().filter(|found| found.1 > 0) {
                    write!(f, "{comma}{partition}:{position}")?;
                    comma = ",";
                }
                Ok(())
            }
        }
    }
}

/// The text is not a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "A position must be the value of a `Passbook-Position` response header: `42`, or `0:42,3:17` in a log with several partitions."
)]
pub struct InvalidPosition;

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        if !text.contains(':') {
            return digits(text).map(Position::Single).ok_or(InvalidPosition);
        }
        let parse = |part: &str| {
            let (partition, position) = part.split_once(':')?;
            let partition = partition_number(partition)?;
            Some((partition, digits(position)?))
        };
        let positions: Option<Vec<(i16, i64)>> = text.split(',').map(parse).collect();
        let positions = positions.filter(|positions| positions.is_sorted_by(|before, after| before.0 < after.0));
        positions.map(Position::PerPartition).ok_or(InvalidPosition)
    }
}

/// Parses a partition's number as positions and cursors contain it. `None` if it is not canonical or not below
/// [`PARTITIONS_MAX`].
pub fn partition_number(text: &str) -> Option<i16> {
    let number = digits(text).and_then(|number| i16::try_from(number).ok())?;
    (number < PARTITIONS_MAX && (text == "0" || !text.starts_with('0'))).then_some(number)
}

/// Parses a number that consists of digits only, with no sign.
fn digits(text: &str) -> Option<i64> {
    let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_digits)
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_parsed_back_from_its_text() {
        for text in ["0", "42", "0:42", "3:17", "0:42,3:17", "0:0", "63:9223372036854775807"] {
            assert_eq!(text.parse::<Position>().expect(text).to_string(), text);
        }
        let both: Position = "0:42,3:17".parse().expect("a position");
        assert_eq!([0, 1, 3].map(|partition| both.in_partition(partition)), [42, 0, 17]);
    }

    #[test]
    fn other_texts_are_rejected() {
        let others =
            ["", "-1", "+1", "1.0", " 1", "x", "0:", ":1", "0:1,", ",0:1", "0:1,0:2", "3:1,0:2", "64:1", "00:1"];
        for text in others.into_iter().chain(["0:1:2", "0:-1", "-0:1", "9223372036854775808", "0:1;3:2", "0:1, 3:2"]) {
            assert_eq!(text.parse::<Position>(), Err(InvalidPosition), "{text}");
        }
    }

    #[test]
    fn merging_takes_the_greater_position_of_each_partition() {
        let position = |text: &str| text.parse::<Position>().expect(text);
        assert_eq!(position("3:17").merge(position("0:42")), position("0:42,3:17"));
        assert_eq!(position("0:42,3:17").merge(position("1:5,3:9")), position("0:42,1:5,3:17"));
        assert_eq!(position("7").merge(position("9")), position("9"));
    }
}
