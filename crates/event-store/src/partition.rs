//! Which partition a stream is in: a fixed function of its id and of how many partitions the log has. It never changes:
//! where an event is looked for tomorrow is where it was written today.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::Position;

/// How many partitions a log may have.
pub const PARTITIONS_MAX: i16 = 64;

/// How many partitions a log has, from 1 to [`PARTITIONS_MAX`]; they are numbered from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partitions(i16);

impl Partitions {
    /// A log that was not divided.
    pub const ONE: Self = Self(1);

    /// So many, if a log may have so many.
    pub fn new(count: i16) -> Option<Self> {
        (1..=PARTITIONS_MAX).contains(&count).then_some(Self(count))
    }

    /// How many.
    pub fn count(self) -> i16 {
        self.0
    }

    /// Whether there are several.
    pub fn are_several(self) -> bool {
        self.0 > 1
    }

    /// All of them, in ascending order.
    pub fn all(self) -> impl DoubleEndedIterator<Item = i16> + ExactSizeIterator + Clone {
        0..self.0
    }

    /// Where the stream of this id is: the first 8 bytes of SHA-256 over the id's 16 bytes, big-endian, modulo the count.
    pub fn of(self, id: Uuid) -> i16 {
        match self.0 {
            1 => 0,
            count => place(Sha256::new_with_prefix(id.as_bytes()), count),
        }
    }

    /// Where whatever a caller's key creates belongs, so that a retry finds the key: the same over the caller's length in
    /// bytes (four bytes, big-endian), the caller and the key.
    pub fn of_key(self, caller: &str, key: &str) -> i16 {
        let length = (caller.len() as u32).to_be_bytes();
        place(Sha256::new_with_prefix(length).chain_update(caller).chain_update(key), self.0)
    }

    /// A new id in this partition. As many are tried as there are partitions, on average.
    pub fn new_id_in(self, partition: i16) -> Uuid {
        loop {
            let id = Uuid::now_v7();
            if self.of(id) == partition {
                return id;
            }
        }
    }

    /// A place in one partition of this log.
    pub fn position(self, partition: i16, position: i64) -> Position {
        match self.0 {
            1 => Position::Only(position),
            _ => Position::Over(vec![(partition, position)]),
        }
    }

    /// Whether `position` is a place in a log of so many partitions.
    pub fn hold(self, position: &Position) -> bool {
        match position {
            Position::Only(position) => self.0 == 1 || *position == 0,
            Position::Over(places) => places.iter().all(|(partition, _)| *partition < self.0),
        }
    }
}

fn place(digest: Sha256, count: i16) -> i16 {
    let bytes: [u8; 32] = digest.finalize().into();
    let first = bytes.iter().take(8).fold(0u64, |number, byte| (number << 8) | u64::from(*byte));
    (first % u64::from(count.unsigned_abs())) as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(count: i16) -> Partitions {
        Partitions::new(count).expect("a count")
    }

    /// What stands here stands in databases: a test that fails has found an error in the function, not in the test.
    #[test]
    fn an_id_is_for_ever_in_the_partition_where_it_was_first() {
        let ids = [
            "01900000-0000-7000-8000-000000000001",
            "01900000-0000-7000-8000-000000000002",
            "00000000-0000-0000-0000-000000000000",
        ];
        let places = |count| ids.map(|id| of(count).of(id.parse().expect("an id")));
        assert_eq!(places(1), [0, 0, 0]);
        assert_eq!(places(2), [1, 0, 1]);
        assert_eq!(places(4), [3, 2, 1]);
        assert_eq!(places(16), [15, 10, 5]);
        assert_eq!(places(64), [31, 10, 21]);
        assert_eq!(of(16).of_key("customer-17", "a key"), 0);
        assert_eq!(of(1).of_key("customer-17", "a key"), 0);
    }

    #[test]
    fn ids_are_spread_over_all_partitions() {
        let partitions = of(64);
        let mut counts = [0; 64];
        (0..64_000).for_each(|_| counts[usize::try_from(partitions.of(Uuid::now_v7())).expect("a place")] += 1);
        assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_new_id_is_where_it_is_wanted() {
        for partition in of(7).all() {
            assert_eq!(of(7).of(of(7).new_id_in(partition)), partition);
        }
    }

    #[test]
    fn a_caller_and_a_key_are_not_mistaken_for_another_pair() {
        let differ = (0..20).any(|n| of(64).of_key(&format!("a{n}"), "b") != of(64).of_key("a", &format!("{n}b")));
        assert!(differ);
    }
}
