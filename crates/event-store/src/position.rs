//! A place in the log as clients see it: a short string that they pass back and never take apart.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::partition::PARTITIONS_MAX;

/// How far the log, or a view of it, has come: 0 before the first event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// In a log of one partition.
    Only(i64),
    /// In a log of several, in ascending order: what is not named is not spoken of.
    Over(Vec<(i16, i64)>),
}

impl Position {
    /// How far it is in one partition.
    pub fn at(&self, partition: i16) -> i64 {
        match self {
            Position::Only(position) if partition == 0 => *position,
            Position::Only(_) => 0,
            Position::Over(places) => places.iter().find(|place| place.0 == partition).map_or(0, |place| place.1),
        }
    }

    /// This and what another says of other partitions; of the same one what is further.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Position::Only(one), Position::Only(other)) => Position::Only(one.max(other)),
            (Position::Over(mut places), Position::Over(others)) => {
                for (partition, position) in others {
                    match places.binary_search_by_key(&partition, |place| place.0) {
                        Ok(at) => places[at].1 = places[at].1.max(position),
                        Err(at) => places.insert(at, (partition, position)),
                    }
                }
                Position::Over(places)
            }
            // Of two logs. None makes both.
            (over @ Position::Over(_), Position::Only(_)) | (Position::Only(_), over @ Position::Over(_)) => over,
        }
    }
}

impl Default for Position {
    fn default() -> Self {
        Position::Only(0)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Position::Only(position) => position.fmt(f),
            Position::Over(places) if places.iter().all(|place| place.1 == 0) => f.write_str("0:0"),
            Position::Over(places) => {
                let mut comma = "";
                for (partition, position) in places.iter().filter(|place| place.1 > 0) {
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
#[error("a position is what a `Passbook-Position` header says, such as 42, or 0:42,3:17 over partitions")]
pub struct InvalidPosition;

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        if !text.contains(':') {
            return number(text).map(Position::Only).ok_or(InvalidPosition);
        }
        let place = |part: &str| {
            let (partition, position) = part.split_once(':')?;
            let partition = partition_number(partition)?;
            Some((partition, number(position)?))
        };
        let places: Option<Vec<(i16, i64)>> = text.split(',').map(place).collect();
        let places = places.filter(|places| places.is_sorted_by(|before, after| before.0 < after.0));
        places.map(Position::Over).ok_or(InvalidPosition)
    }
}

/// A partition's number, as it is written in positions and cursors.
pub fn partition_number(text: &str) -> Option<i16> {
    let number = number(text).and_then(|number| i16::try_from(number).ok())?;
    (number < PARTITIONS_MAX && (text == "0" || !text.starts_with('0'))).then_some(number)
}

/// Digits alone.
fn number(text: &str) -> Option<i64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
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
    fn what_was_told_is_understood() {
        for text in ["0", "42", "0:42", "3:17", "0:42,3:17", "0:0", "63:9223372036854775807"] {
            assert_eq!(text.parse::<Position>().expect(text).to_string(), text);
        }
        let both: Position = "0:42,3:17".parse().expect("a position");
        assert_eq!([0, 1, 3].map(|partition| both.at(partition)), [42, 0, 17]);
    }

    #[test]
    fn what_is_no_position_is_refused() {
        let others =
            ["", "-1", "+1", "1.0", " 1", "x", "0:", ":1", "0:1,", ",0:1", "0:1,0:2", "3:1,0:2", "64:1", "00:1"];
        for text in others.into_iter().chain(["0:1:2", "0:-1", "-0:1", "9223372036854775808", "0:1;3:2", "0:1, 3:2"]) {
            assert_eq!(text.parse::<Position>(), Err(InvalidPosition), "{text}");
        }
    }

    #[test]
    fn positions_of_several_partitions_are_put_together() {
        let of = |text: &str| text.parse::<Position>().expect(text);
        assert_eq!(of("3:17").and(of("0:42")), of("0:42,3:17"));
        assert_eq!(of("0:42,3:17").and(of("1:5,3:9")), of("0:42,1:5,3:17"));
        assert_eq!(of("7").and(of("9")), of("9"));
    }
}
