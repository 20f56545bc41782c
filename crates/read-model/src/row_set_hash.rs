//! Compares the rows of a view with the rows that the events produce, without storing either set. A set of rows is represented by
//! its size and the sum of its hashes. The memory of a check therefore grows with accounts and not with rows. The hash key is
//! random for each check, so that no one can craft two sets that collide.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
};

use uuid::Uuid;

use crate::{decoded_event::DecodedEvent, projection::Mismatch};

/// A set of rows in any order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct RowSetHash {
    count: u64,
    sum_of_hashes: u64,
}

impl RowSetHash {
    fn add(&mut self, key: &RandomState, row: impl Hash) {
        self.count += 1;
        self.sum_of_hashes = self.sum_of_hashes.wrapping_add(key.hash_one(row));
    }

    /// Adds an amount of a row. The result depends on the sum of the amounts of the row, not on how many there were.
    fn add_amount(&mut self, key: &RandomState, row: impl Hash, amount: i64) {
        let weight = key.hash_one(row).wrapping_mul(amount.cast_unsigned());
        self.sum_of_hashes = self.sum_of_hashes.wrapping_add(weight);
    }
}

/// The rows of each account that follow from the events. `S` is the state of the fold of one account.
#[derive(Default)]
pub(crate) struct ExpectedRows<S> {
    key: RandomState,
    accounts: HashMap<Uuid, ExpectedAccount<S>>,
}

#[derive(Default)]
struct ExpectedAccount<S> {
    state: S,
    /// Rows that later events do not change.
    final_rows: RowSetHash,
    /// Position of the last event.
    position: i64,
}

impl<S: Default> ExpectedRows<S> {
    /// Folds one event into the state of its account. `fold` returns the row that became final by the event, if any.
    pub(crate) fn fold<R: Hash>(&mut self, decoded: &DecodedEvent, fold: impl FnOnce(&mut S) -> Option<R>) {
        let account = self.accounts.entry(decoded.recorded.stream_id).or_default();
        if let Some(row) = fold(&mut account.state) {
            account.final_rows.add(&self.key, row);
        }
        account.position = decoded.recorded.position;
    }

    /// An empty collection of rows to compare with these.
    pub(crate) fn actual_rows(&self) -> ActualRows {
        ActualRows { key: self.key.clone(), accounts: HashMap::new() }
    }

    /// Folds an amount that adds up in one row, which `row` identifies. The state of the account does not have the row.
    pub(crate) fn add_amount(&mut self, account_id: Uuid, row: impl Hash, amount: i64) {
        let account = self.accounts.entry(account_id).or_default();
        account.final_rows.add_amount(&self.key, row, amount);
    }

    /// Any account whose actual rows differ. `open_rows` returns the rows that are still in an account's state; `rows` names the
    /// rows in the message.
    pub(crate) fn mismatch<R: Hash, I: IntoIterator<Item = R>>(
        &self,
        actual: &ActualRows,
        rows: &str,
        open_rows: impl Fn(&S) -> I,
    ) -> Option<Mismatch> {
        self.accounts.keys().chain(actual.accounts.keys()).find_map(|account_id| {
            let account = self.accounts.get(account_id);
            let mut expected = account.map(|account| account.final_rows).unwrap_or_default();
            for row in account.into_iter().flat_map(|account| open_rows(&account.state)) {
                expected.add(&self.key, row);
            }
            let actual = actual.accounts.get(account_id).copied().unwrap_or_default();
            let message = match (expected.count, actual.count) {
                _ if expected == actual => return None,
                (0, _) => format!("the {rows} of account {account_id} have no events in the log"),
                (_, 0) => format!("the {rows} of account {account_id} are missing"),
                _ => format!("the {rows} of account {account_id} do not match its events"),
            };
            Some(Mismatch { position: account.map_or(0, |account| account.position), message })
        })
    }
}

/// The actual rows of each account in a view.
pub(crate) struct ActualRows {
    key: RandomState,
    accounts: HashMap<Uuid, RowSetHash>,
}

impl ActualRows {
    /// Adds one row of the view.
    pub(crate) fn add(&mut self, account_id: Uuid, row: impl Hash) {
        self.accounts.entry(account_id).or_default().add(&self.key, row);
    }

    /// Adds the amount of one row of the view.
    pub(crate) fn add_amount(&mut self, account_id: Uuid, row: impl Hash, amount: i64) {
        self.accounts.entry(account_id).or_default().add_amount(&self.key, row, amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One expected account, number 1, with a final row 10 and an open row 20.
    fn expected() -> ExpectedRows<Option<i64>> {
        let mut expected = ExpectedRows::<Option<i64>>::default();
        let mut final_rows = RowSetHash::default();
        final_rows.add(&expected.key, 10_i64);
        expected.accounts.insert(Uuid::from_u128(1), ExpectedAccount { state: Some(20), final_rows, position: 7 });
        expected
    }

    fn mismatch(rows: &[(u128, i64)]) -> Option<Mismatch> {
        let expected = expected();
        let mut actual = expected.actual_rows();
        rows.iter().for_each(|(account, row)| actual.add(Uuid::from_u128(*account), row));
        expected.mismatch(&actual, "rows", |row| *row)
    }

    #[test]
    fn equal_row_sets_match_in_any_order() {
        assert_eq!(mismatch(&[(1, 20), (1, 10)]), None);
    }

    #[test]
    fn amounts_of_a_row_add_up_in_any_number_of_parts() {
        let account = Uuid::from_u128(1);
        for (parts, matches) in [(&[3, 4][..], true), (&[7], true), (&[3, 5], false), (&[], false)] {
            let mut expected = expected();
            parts.iter().for_each(|part| expected.add_amount(account, 5, *part));
            let mut actual = expected.actual_rows();
            [10_i64, 20].iter().for_each(|row| actual.add(account, row));
            actual.add_amount(account, 5, 7);
            assert_eq!(expected.mismatch(&actual, "rows", |row| *row).is_none(), matches, "{parts:?}");
        }
    }

    #[test]
    fn changed_missing_and_surplus_rows_are_reported() {
        for (rows, words) in [
            (&[(1, 10), (1, 21)][..], "do not match its events"),
            (&[(1, 10)], "do not match its events"),
            (&[(1, 10), (1, 20), (1, 20)], "do not match its events"),
            (&[], "are missing"),
        ] {
            let mismatch = mismatch(rows).expect("a mismatch");
            assert!(mismatch.position == 7 && mismatch.message.ends_with(words), "{mismatch:?}");
        }
        let unknown = mismatch(&[(1, 10), (1, 20), (2, 10)]).expect("a mismatch");
        assert!(unknown.position == 0 && unknown.message.ends_with("have no events in the log"), "{unknown:?}");
    }
}
