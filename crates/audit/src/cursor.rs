//! Places in the log that carry a part of its history with them: `42-9f86d081` is the event at position 42 with the hash
//! that begins so. After a restore the same position may hold another event, and the cursor says so. Over several
//! partitions a cursor has a place in each that it has come to: `0:42-9f86d081,3:17-0b822cd1`.

use std::{fmt, str::FromStr};

use passbook_event_store::{Partitions, partition_number};

/// How many digits of an event's hash a cursor repeats.
const HASH_DIGITS: usize = 2 * HASH_BYTES;
const HASH_BYTES: usize = 4;

/// Behind an event that stands in a partition, or before its first one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// The event's position; 0 before the first one.
    pub(super) position: i64,
    hash: [u8; HASH_BYTES],
}

/// Behind an event in every partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(Vec<Place>);

/// What somebody says that a cursor is. Hashes may be left away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bookmark(Marks);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Marks {
    /// Of a log of one partition.
    Only(Mark),
    /// Of a log of several: of those that are not named, before the first event.
    Over(Vec<(i16, Mark)>),
}

/// What somebody says of a place in one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) position: i64,
    hash: Option<[u8; HASH_BYTES]>,
}

/// The text is no cursor of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a cursor of the log is <position>-<8 hex digits of that event's hash>, such as 42-9f86d081, or a position alone; over \
     partitions such places with their partitions, such as 0:42-9f86d081,3:17"
)]
pub struct InvalidCursor;

impl Place {
    /// The place behind the event with this hash.
    pub(super) fn new(position: i64, hash: &[u8]) -> Self {
        let mut place = Self { position, ..Self::default() };
        place.hash.iter_mut().zip(hash).for_each(|(digit, byte)| *digit = *byte);
        place
    }

    /// Whether this is the event that it was taken from.
    pub(super) fn is_of(&self, position: i64, hash: &[u8]) -> bool {
        self.position == position && hash.starts_with(&self.hash)
    }
}

impl Cursor {
    /// These places, one in each partition.
    pub(super) fn new(places: Vec<Place>) -> Self {
        Self(places)
    }

    /// Where it stands in a partition.
    pub(super) fn at(&self, partition: i16) -> Place {
        usize::try_from(partition).ok().and_then(|at| self.0.get(at)).copied().unwrap_or_default()
    }

    /// Goes on to a place in a partition.
    pub(super) fn pass(&mut self, partition: i16, place: Place) {
        if let Some(here) = usize::try_from(partition).ok().and_then(|at| self.0.get_mut(at)) {
            *here = place;
        }
    }
}

impl Mark {
    /// The event at `position`, whichever it is.
    pub(super) fn of(position: i64) -> Self {
        Self { position, hash: None }
    }

    /// The place, if the event there is the one that was meant.
    pub(super) fn at(&self, hash: &[u8]) -> Option<Place> {
        let place = Place::new(self.position, hash);
        self.hash.is_none_or(|meant| meant == place.hash).then_some(place)
    }
}

impl Default for Bookmark {
    fn default() -> Self {
        Self(Marks::Only(Mark::default()))
    }
}

impl Bookmark {
    /// What it says of each partition, or nothing where it is of a log with others.
    pub(super) fn marks(&self, partitions: Partitions) -> Option<Vec<Mark>> {
        let mut marks = vec![Mark::default(); partitions.all().len()];
        match &self.0 {
            // The beginning is the same everywhere.
            Marks::Only(mark) if partitions.are_several() && mark.position > 0 => return None,
            Marks::Only(mark) => *marks.first_mut()? = *mark,
            Marks::Over(places) => {
                for (partition, mark) in places {
                    *marks.get_mut(usize::try_from(*partition).ok()?)? = *mark;
                }
            }
        }
        Some(marks)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.position, hex::encode(self.hash))
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.0[..] {
            return only.fmt(f);
        }
        let come_to = (0..).zip(&self.0).filter(|(_, place)| place.position > 0);
        if come_to.clone().next().is_none() {
            return write!(f, "0:{}", Place::default());
        }
        for (at, (partition, place)) in come_to.enumerate() {
            write!(f, "{}{partition}:{place}", if at > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

impl FromStr for Bookmark {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        if !text.contains(':') {
            return mark(text).map(|mark| Self(Marks::Only(mark))).ok_or(InvalidCursor);
        }
        let place = |part: &str| {
            let (partition, place) = part.split_once(':')?;
            Some((partition_number(partition)?, mark(place)?))
        };
        let places: Option<Vec<(i16, Mark)>> = text.split(',').map(place).collect();
        let places = places.filter(|places| places.is_sorted_by(|before, after| before.0 < after.0));
        places.map(|places| Self(Marks::Over(places))).ok_or(InvalidCursor)
    }
}

fn mark(text: &str) -> Option<Mark> {
    let (position, hash) = match text.split_once('-') {
        Some((position, digits)) => (position, Some(hash(digits)?)),
        None => (text, None),
    };
    let is_number = !position.is_empty() && position.bytes().all(|byte| byte.is_ascii_digit());
    let position = position.parse().ok().filter(|_| is_number)?;
    Some(Mark { position, hash })
}

fn hash(digits: &str) -> Option<[u8; HASH_BYTES]> {
    let lower = digits.len() == HASH_DIGITS && !digits.bytes().any(|byte| byte.is_ascii_uppercase());
    let bytes = hex::decode(digits).ok().filter(|_| lower)?;
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGUN: [u8; 5] = [0x9f, 0x86, 0xd0, 0x81, 0x88];

    fn of(count: i16) -> Partitions {
        Partitions::new(count).expect("a count")
    }

    #[test]
    fn a_cursor_says_where_it_stands_and_in_which_history() {
        let place = Place::new(42, &BEGUN);
        assert_eq!(Cursor::new(vec![place]).to_string(), "42-9f86d081");
        assert_eq!(Cursor::new(vec![Place::default()]).to_string(), "0-00000000");
        let said = |text: &str| text.parse::<Bookmark>().expect("a cursor").marks(of(1)).expect("of one")[0];
        assert_eq!(said("42-9f86d081").at(&[0x9f, 0x86, 0xd0, 0x81, 0x00]), Some(place));
        assert_eq!(said("42-9f86d081").at(&[0x9f, 0x86, 0xd0, 0x80, 0x88]), None);
        assert_eq!(said("42").at(&[0x9f, 0x86, 0xd0, 0x81]), Some(place));
    }

    #[test]
    fn a_cursor_over_partitions_names_those_that_it_has_come_to() {
        let mut cursor = Cursor::new(vec![Place::default(); 4]);
        assert_eq!(cursor.to_string(), "0:0-00000000");
        cursor.pass(3, Place::new(17, &BEGUN));
        assert_eq!(cursor.to_string(), "3:17-9f86d081");
        cursor.pass(0, Place::new(42, &BEGUN));
        assert_eq!(cursor.to_string(), "0:42-9f86d081,3:17-9f86d081");
        let said: Bookmark = cursor.to_string().parse().expect("a cursor");
        let marks = said.marks(of(4)).expect("of four");
        assert_eq!(marks.iter().map(|mark| mark.position).collect::<Vec<_>>(), [42, 0, 0, 17]);
        assert_eq!(said.marks(of(3)), None);
        assert_eq!("42".parse::<Bookmark>().expect("a position").marks(of(4)), None);
        assert!("0".parse::<Bookmark>().expect("a position").marks(of(4)).is_some());
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        let others = ["", "-", "x", "v17", "-1", "+1", "1.0", " 1", "1-", "1-9f86d08", "1-9f86d0811", "1-9f86d08g"];
        let more =
            ["1-9F86D081", "1-+f86d081", "9223372036854775808", "1-9f86d081-9f86d081", "①-9f86d081", "1-9f86d0é"];
        let over = ["0:", ":1", "0:1,", "0:1,0:2", "3:1,0:2", "64:1", "0:1-9f86d08", "0:1:2", "00:1", "0:-1"];
        for text in others.into_iter().chain(more).chain(over) {
            assert_eq!(text.parse::<Bookmark>(), Err(InvalidCursor), "{text}");
        }
    }
}
