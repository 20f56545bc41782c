//! Compares the rows of a view with the rows that the events produce, without storing either set. A set of rows is represented by
//! its size and the sum of its hashes. The memory of a check therefore grows with accounts and not with rows. The hash key is
//! random for each check, so that no one can craft two sets that collide.
//!
//! One sum over all accounts costs no memory, but says only whether the view matches. Sums by account also say where it does not.

use std::hash::{BuildHasher, Hash, RandomState};

use uuid::Uuid;

use crate::{
    account_table::{AccountTable, FoldedAccounts},
    decoded_event::DecodedEvent,
    projection::{Detail, Mismatch},
};

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

/// The rows of all accounts that follow from the events. `S` is the state of the fold of one account.
pub(crate) struct ExpectedRows<S> {
    key: RandomState,
    accounts: FoldedAccounts<S>,
    /// Rows of all accounts that later events do not change.
    final_rows: RowSetHash,
    /// `None` for [`Detail::Total`].
    by_account: Option<AccountTable<ExpectedOfAccount>>,
}

#[derive(Default)]
struct ExpectedOfAccount {
    /// Rows that later events do not change.
    final_rows: RowSetHash,
    /// Position of the last event.
    position: i64,
}

impl<S: Default> ExpectedRows<S> {
    pub(crate) fn new(detail: Detail) -> Self {
        Self {
            key: RandomState::new(),
            accounts: FoldedAccounts::default(),
            final_rows: RowSetHash::default(),
            by_account: match detail {
                Detail::Total => None,
                Detail::ByAccount => Some(AccountTable::default()),
            },
        }
    }

    /// Folds one event into the state of its account. `fold` returns the row that became final by the event, if any.
    pub(crate) fn fold<R: Hash>(&mut self, decoded: &DecodedEvent, fold: impl FnOnce(&mut S) -> Option<R>) {
        let account_id = decoded.recorded.stream_id;
        // By account, the states are looked up again by their ids.
        let place = decoded.place.filter(|_| self.by_account.is_none());
        let row = fold(self.accounts.get_or_default(account_id, place));
        let rows = match &mut self.by_account {
            None => &mut self.final_rows,
            Some(by_account) => {
                let account = by_account.get_or_default(account_id);
                account.position = decoded.recorded.position;
                &mut account.final_rows
            }
        };
        if let Some(row) = row {
            rows.add(&self.key, (account_id, row));
        }
    }

    /// An empty collection of rows to compare with these.
    pub(crate) fn actual_rows(&self) -> ActualRows {
        ActualRows {
            key: self.key.clone(),
            rows: RowSetHash::default(),
            by_account: self.by_account.as_ref().map(|_| AccountTable::default()),
        }
    }

    /// Folds an amount that adds up in one row, which `row` identifies. The state of the account does not have the row.
    pub(crate) fn add_amount(&mut self, account_id: Uuid, row: impl Hash, amount: i64) {
        let rows = match &mut self.by_account {
            None => &mut self.final_rows,
            Some(by_account) => &mut by_account.get_or_default(account_id).final_rows,
        };
        rows.add_amount(&self.key, (account_id, row), amount);
    }

    /// A difference between the actual rows and these: with [`Detail::ByAccount`] that of any account. `open_rows` returns the rows that
    /// are still in an account's state; `rows` names the rows in the message.
    pub(crate) fn mismatch<R: Hash, I: IntoIterator<Item = R>>(
        &self,
        actual: &ActualRows,
        rows: &str,
        open_rows: impl Fn(&S) -> I,
    ) -> Option<Mismatch> {
        let open = |account_id: &Uuid, expected: &mut RowSetHash, state: &S| {
            open_rows(state).into_iter().for_each(|row| expected.add(&self.key, (*account_id, row)));
        };
        let (Some(expected), Some(actual)) = (&self.by_account, &actual.by_account) else {
            let mut expected = self.final_rows;
            self.accounts.iter().for_each(|(account_id, state)| open(account_id, &mut expected, state));
            let message = || format!("the {rows} do not match the events");
            return (expected != actual.rows).then(|| Mismatch { position: 0, message: message() });
        };
        let surplus = actual.iter().filter(|(account_id, _)| expected.get(account_id).is_none());
        let surplus = surplus.map(|(account_id, _)| (account_id, None));
        let accounts = expected.iter().map(|(account_id, account)| (account_id, Some(account))).chain(surplus);
        accounts.into_iter().find_map(|(account_id, account)| {
            let mut expected = account.map(|account| account.final_rows).unwrap_or_default();
            if let Some(state) = self.accounts.get_indexed(account_id) {
                open(account_id, &mut expected, state);
            }
            let actual = actual.get(account_id).copied().unwrap_or_default();
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

/// The actual rows of a view.
pub(crate) struct ActualRows {
    key: RandomState,
    rows: RowSetHash,
    by_account: Option<AccountTable<RowSetHash>>,
}

impl ActualRows {
    /// Adds one row of the view.
    pub(crate) fn add(&mut self, account_id: Uuid, row: impl Hash) {
        let key = self.key.clone();
        self.of_account(account_id).add(&key, (account_id, row));
    }

    /// Adds the amount of one row of the view.
    pub(crate) fn add_amount(&mut self, account_id: Uuid, row: impl Hash, amount: i64) {
        let key = self.key.clone();
        self.of_account(account_id).add_amount(&key, (account_id, row), amount);
    }

    /// The set that has the rows of an account.
    fn of_account(&mut self, account_id: Uuid) -> &mut RowSetHash {
        match &mut self.by_account {
            None => &mut self.rows,
            Some(by_account) => by_account.get_or_default(account_id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One expected account, number 1, with a final row 10 and an open row 20.
    fn expected(detail: Detail) -> ExpectedRows<Option<i64>> {
        let account_id = Uuid::from_u128(1);
        let mut expected = ExpectedRows::new(detail);
        *expected.accounts.get_or_default(account_id, None) = Some(20);
        let mut final_rows = RowSetHash::default();
        final_rows.add(&expected.key, (account_id, 10_i64));
        match &mut expected.by_account {
            None => expected.final_rows = final_rows,
            Some(accounts) => *accounts.get_or_default(account_id) = ExpectedOfAccount { final_rows, position: 7 },
        }
        expected
    }

    fn mismatch(detail: Detail, rows: &[(u128, i64)]) -> Option<Mismatch> {
        let expected = expected(detail);
        let mut actual = expected.actual_rows();
        rows.iter().for_each(|(account, row)| actual.add(Uuid::from_u128(*account), row));
        expected.mismatch(&actual, "rows", |row| *row)
    }

    #[test]
    fn equal_row_sets_match_in_any_order() {
        for detail in [Detail::Total, Detail::ByAccount] {
            assert_eq!(mismatch(detail, &[(1, 20), (1, 10)]), None);
        }
    }

    #[test]
    fn amounts_of_a_row_add_up_in_any_number_of_parts() {
        let account = Uuid::from_u128(1);
        for detail in [Detail::Total, Detail::ByAccount] {
            for (parts, matches) in [(&[3, 4][..], true), (&[7], true), (&[3, 5], false), (&[], false)] {
                let mut expected = expected(detail);
                parts.iter().for_each(|part| expected.add_amount(account, 5, *part));
                let mut actual = expected.actual_rows();
                [10_i64, 20].iter().for_each(|row| actual.add(account, row));
                actual.add_amount(account, 5, 7);
                assert_eq!(expected.mismatch(&actual, "rows", |row| *row).is_none(), matches, "{parts:?}");
            }
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
            let found = mismatch(Detail::ByAccount, rows).expect("a mismatch");
            assert!(found.position == 7 && found.message.ends_with(words), "{found:?}");
            assert!(mismatch(Detail::Total, rows).is_some(), "{rows:?}");
        }
        let surplus = &[(1, 10), (1, 20), (2, 10)];
        let unknown = mismatch(Detail::ByAccount, surplus).expect("a mismatch");
        assert!(unknown.position == 0 && unknown.message.ends_with("have no events in the log"), "{unknown:?}");
        assert!(mismatch(Detail::Total, surplus).is_some());
        // The total tells rows of different accounts apart.
        assert!(mismatch(Detail::Total, &[(1, 10), (2, 20)]).is_some());
    }
}
