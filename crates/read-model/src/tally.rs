//! Rows that are compared without being kept: their number and the sum of their hashes, whose key is drawn anew for each
//! check. So the memory of a check grows with accounts, and not with rows.

use std::hash::{BuildHasher, Hash, RandomState};

/// Some rows, in whatever order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    count: u64,
    sum_of_hashes: u64,
}

impl Tally {
    /// One row more.
    pub(super) fn add(&mut self, key: &RandomState, row: impl Hash) {
        self.count += 1;
        self.sum_of_hashes = self.sum_of_hashes.wrapping_add(key.hash_one(row));
    }
}
