//! The function from streams to partitions: a hash of the stream's id, modulo the number of partitions. The function must
//! never change, because a stream is read from the partition that it returns.

use sha2::{Digest, Sha256};
use uuid::Uuid;

/// The largest number of partitions of a log.
pub const PARTITIONS_MAX: i16 = 64;

/// The number of partitions of a log, from 1 to [`PARTITIONS_MAX`]. Partitions are numbered from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partitions(i16);

impl Partitions {
    /// A log with one partition.
    pub const ONE: Self = Self(1);

    /// Returns `None` if `count` is not between 1 and [`PARTITIONS_MAX`].
    pub fn new(count: i16) -> Option<Self> {
        (1..=PARTITIONS_MAX).contains(&count).then_some(Self(count))
    }

    /// The number of partitions.
    pub fn count(self) -> i16 {
        self.0
    }

    /// Whether the log has more than one partition.
    pub fn is_partitioned(self) -> bool {
        self.0 > 1
    }

    /// The partitions' numbers in ascending order.
    pub fn all(self) -> impl DoubleEndedIterator<Item = i16> + ExactSizeIterator + Clone {
        0..self.0
    }

    /// Returns the partition of a stream: the first 8 bytes of SHA-256 over the id's 16 bytes, big-endian, modulo the count.
    pub fn partition_of(self, stream_id: Uuid) -> i16 {
        match self.0 {
            1 => 0,
            count => digest_modulo(Sha256::new_with_prefix(stream_id.as_bytes()), count),
        }
    }

    /// Returns the partition of a stream that is created under an idempotency key, so that a retry finds the key.
    ///
    /// The function is that of [`Self::partition_of`] over the caller's length in bytes (four bytes, big-endian), the caller
    /// and the key.
    pub fn partition_of_key(self, caller: &str, key: &str) -> i16 {
        let length = (caller.len() as u32).to_be_bytes();
        digest_modulo(Sha256::new_with_prefix(length).chain_update(caller).chain_update(key), self.0)
    }

    /// Returns a new version 7 UUID that belongs to `partition`. It needs as many attempts as there are partitions, on average.
    pub fn new_id_in(self, partition: i16) -> Uuid {
        loop {
            let id = Uuid::now_v7();
            if self.partition_of(id) == partition {
                return id;
            }
        }
    }
}

fn digest_modulo(digest: Sha256, count: i16) -> i16 {
    let bytes: [u8; 32] = digest.finalize().into();
    let first = bytes.iter().take(8).fold(0u64, |number, byte| (number << 8) | u64::from(*byte));
    (first % u64::from(count.unsigned_abs())) as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partitions(count: i16) -> Partitions {
        Partitions::new(count).expect("a valid count")
    }

    /// Databases rely on these values. If this test fails, the function is wrong, not the test.
    #[test]
    fn the_partition_of_an_id_never_changes() {
        let ids = [
            "01900000-0000-7000-8000-000000000001",
            "01900000-0000-7000-8000-000000000002",
            "00000000-0000-0000-0000-000000000000",
        ];
        let found = |count| ids.map(|id| partitions(count).partition_of(id.parse().expect("a UUID")));
        assert_eq!(found(1), [0, 0, 0]);
        assert_eq!(found(2), [1, 0, 1]);
        assert_eq!(found(4), [3, 2, 1]);
        assert_eq!(found(16), [15, 10, 5]);
        assert_eq!(found(64), [31, 10, 21]);
        assert_eq!(partitions(16).partition_of_key("customer-17", "a key"), 0);
        assert_eq!(partitions(1).partition_of_key("customer-17", "a key"), 0);
    }

    #[test]
    fn ids_are_spread_evenly_over_all_partitions() {
        let mut counts = [0; 64];
        for _ in 0..64_000 {
            let partition = partitions(64).partition_of(Uuid::now_v7());
            counts[usize::try_from(partition).expect("not negative")] += 1;
        }
        assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_new_id_belongs_to_the_wanted_partition() {
        let seven = partitions(7);
        for partition in seven.all() {
            assert_eq!(seven.partition_of(seven.new_id_in(partition)), partition);
        }
    }

    #[test]
    fn caller_and_key_are_hashed_with_their_boundary() {
        let of = |caller: &str, key: &str| partitions(64).partition_of_key(caller, key);
        assert!((0..20).any(|n| of(&format!("a{n}"), "b") != of("a", &format!("{n}b"))));
    }
}
