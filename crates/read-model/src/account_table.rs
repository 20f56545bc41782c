//! A value for each of many accounts, for checks that fold a whole log in memory.
//!
//! A million accounts are looked up in random order, so memory decides about the time: the values lie next to each other in parts that
//! are never moved, and the index has five bytes for each of them.

use std::{fmt, hash::BuildHasher};

use hashbrown::{DefaultHashBuilder, HashTable};
use uuid::Uuid;

/// How many values one allocation has.
const PART_VALUES: usize = 4_096;

/// The states of a fold. Another table may have given the accounts their places; a state with a place needs no look-up.
pub(crate) struct FoldedAccounts<T> {
    placed: Vec<Vec<(Uuid, T)>>,
    /// The accounts without a place.
    indexed: AccountTable<T>,
}

impl<T> Default for FoldedAccounts<T> {
    fn default() -> Self {
        Self { placed: Vec::new(), indexed: AccountTable::default() }
    }
}

impl<T: Default> FoldedAccounts<T> {
    /// The state of an account, which is the default value at first. All events of an account have the same place, or none.
    pub(crate) fn get_or_default(&mut self, account_id: Uuid, place: Option<u32>) -> &mut T {
        let Some(place) = place else { return self.indexed.get_or_default(account_id) };
        let (part, place) = (place as usize / PART_VALUES, place as usize % PART_VALUES);
        while self.placed.len() <= part {
            self.placed.push(Vec::with_capacity(PART_VALUES));
        }
        let part = &mut self.placed[part];
        if part.len() <= place {
            part.resize_with(place + 1, || (Uuid::nil(), T::default()));
        }
        let (of_account, state) = &mut part[place];
        *of_account = account_id;
        state
    }

    /// The state of an account without a place.
    pub(crate) fn get_indexed(&self, account_id: &Uuid) -> Option<&T> {
        self.indexed.get(account_id)
    }

    /// All states. Places that no event has named have the nil id and the default state.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Uuid, &T)> {
        let placed = self.placed.iter().flatten().map(|(account_id, state)| (account_id, state));
        placed.chain(self.indexed.iter())
    }
}

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
        let place = self.place_or_default(account_id);
        self.at_mut(place)
    }

    /// The place of an account, whose value is the default value at first.
    pub fn place_or_default(&mut self, account_id: Uuid) -> u32
    where
        T: Default,
    {
        self.place(&account_id).unwrap_or_else(|| self.insert(account_id, T::default()))
    }

    /// The value at a place.
    ///
    /// # Panics
    /// The table has no such place.
    pub fn at_mut(&mut self, place: u32) -> &mut T {
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
        if (place as usize).is_multiple_of(PART_VALUES) {
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

    #[test]
    fn places_may_be_named_in_any_order() {
        let mut folded = FoldedAccounts::<i64>::default();
        let account = |place: u32| Uuid::from_u128(u128::from(place) + 1);
        let places = [2 * PART_VALUES as u32, 1, 3];
        for place in places.into_iter().chain(places) {
            *folded.get_or_default(account(place), Some(place)) += i64::from(place);
        }
        *folded.get_or_default(Uuid::max(), None) += 7;
        let states: Vec<(Uuid, i64)> =
            folded.iter().map(|(id, state)| (*id, *state)).filter(|(_, n)| *n != 0).collect();
        let twice = |place: u32| (account(place), 2 * i64::from(place));
        assert_eq!(states, [twice(1), twice(3), twice(places[0]), (Uuid::max(), 7)]);
        assert_eq!(folded.get_indexed(&Uuid::max()), Some(&7));
    }
}
