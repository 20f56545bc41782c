//! A value for each of many accounts, for checks that fold a whole log in memory.
//!
//! A million accounts are looked up in random order, so memory decides about the time: the values lie next to each other in parts that
//! are never moved, and the index has five bytes for each of them.

use std::{fmt, hash::BuildHasher};

use hashbrown::{DefaultHashBuilder, HashTable};
use uuid::Uuid;

/// How many values one allocation has.
const PART_VALUES: usize = 4_096;

/// The values by account.
pub struct AccountTable<T> {
    /// The places of the accounts.
    index: HashTable<u32>,
    parts: Vec<Vec<(Uuid, T)>>,
    hasher: DefaultHashBuilder,
}

impl<T> Default for AccountTable<T> {
    fn default() -> Self {
        Self { index: HashTable::new(), parts: Vec::new(), hasher: DefaultHashBuilder::default() }
    }
}

impl<T> fmt::Debug for AccountTable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccountTable").field("accounts", &self.len()).finish_non_exhaustive()
    }
}

impl<T> AccountTable<T> {
    /// The number of accounts.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is no account.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The value of an account.
    pub fn get(&self, account_id: &Uuid) -> Option<&T> {
        let (_, value) = entry(&self.parts, self.place(account_id)?);
        Some(value)
    }

    /// The value of an account, which is the default value at first.
    pub fn get_or_default(&mut self, account_id: Uuid) -> &mut T
    where
        T: Default,
    {
        let place = match self.place(&account_id) {
            Some(place) => place,
            None => self.insert(account_id, T::default()),
        };
        let (_, value) = &mut self.parts[place as usize / PART_VALUES][place as usize % PART_VALUES];
        value
    }

    /// The accounts with their values, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = (&Uuid, &T)> {
        self.parts.iter().flatten().map(|(account_id, value)| (account_id, value))
    }

    fn place(&self, account_id: &Uuid) -> Option<u32> {
        let hash = self.hasher.hash_one(account_id);
        self.index.find(hash, |place| entry(&self.parts, *place).0 == *account_id).copied()
    }

    fn insert(&mut self, account_id: Uuid, value: T) -> u32 {
        let place = self.index.len() as u32;
        if place as usize % PART_VALUES == 0 {
            self.parts.push(Vec::with_capacity(PART_VALUES));
        }
        if let Some(part) = self.parts.last_mut() {
            part.push((account_id, value));
        }
        let (parts, hasher) = (&self.parts, &self.hasher);
        let hash_of = |place: &u32| hasher.hash_one(entry(parts, *place).0);
        self.index.insert_unique(hasher.hash_one(account_id), place, hash_of);
        place
    }
}

fn entry<T>(parts: &[Vec<(Uuid, T)>], place: u32) -> &(Uuid, T) {
    &parts[place as usize / PART_VALUES][place as usize % PART_VALUES]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_in_all_parts() {
        let mut table = AccountTable::<u64>::default();
        let accounts = 3 * PART_VALUES as u128;
        for _ in 0..2 {
            (0..accounts).for_each(|account| *table.get_or_default(Uuid::from_u128(account)) += account as u64);
        }
        assert_eq!(table.len() as u128, accounts);
        assert!((0..accounts).all(|account| table.get(&Uuid::from_u128(account)) == Some(&(2 * account as u64))));
        assert_eq!(table.get(&Uuid::max()), None);
        assert!(table.iter().map(|(account_id, _)| account_id.as_u128()).eq(0..accounts));
    }
}
