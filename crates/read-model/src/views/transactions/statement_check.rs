//! Checks a statement while it is read. No version may be missing, and each balance must follow from the previous one. The
//! opening balance and the totals must give the closing balance.

use std::ops::Range;

use super::view::{Direction, Kind, TransactionView};

/// The totals of a statement's lines in minor units. Only balances have a limit, so a total can exceed 64 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// The sum of the amounts that increased the balance.
    pub total_in: i128,
    /// The sum of the amounts that decreased the balance.
    pub total_out: i128,
}

/// The state of the check after the lines read so far.
#[derive(Debug)]
pub(super) struct RunningBalance {
    version: i64,
    last: i64,
    balance: i64,
    opening: i64,
    closing: i64,
    totals: Totals,
}

impl RunningBalance {
    /// Expects the versions after the start of the range, including its end.
    pub(super) fn new(versions: Range<i64>, opening: i64, closing: i64) -> Self {
        let totals = Totals::default();
        Self { version: versions.start, last: versions.end, balance: opening, opening, closing, totals }
    }

    /// The versions that are not read yet: those after the start of the range, including its end.
    pub(super) fn remaining(&self) -> Range<i64> {
        self.version..self.last
    }

    pub(super) fn is_finished(&self) -> bool {
        self.version >= self.last
    }

    pub(super) fn totals(&self) -> Totals {
        self.totals
    }

    /// Adds the next rows of the history. The error says what is inconsistent.
    pub(super) fn add(&mut self, rows: &[TransactionView]) -> Result<(), String> {
        if rows.is_empty() && !self.is_finished() {
            return Err(format!("version {} is missing", self.version + 1));
        }
        for row in rows {
            self.add_row(row)?;
        }
        match self.is_finished() {
            true => self.check_totals(),
            false => Ok(()),
        }
    }

    fn add_row(&mut self, row: &TransactionView) -> Result<(), String> {
        if row.version != self.version + 1 {
            return Err(format!("version {} follows version {}", row.version, self.version));
        }
        let direction = Kind::direction(&row.kind);
        let after = match direction {
            Some(Direction::In) => self.balance.checked_add(row.amount),
            Some(Direction::Out) => self.balance.checked_sub(row.amount),
            // Other events do not move money.
            None => Some(self.balance).filter(|_| row.amount == 0),
        };
        if after != Some(row.balance_after) {
            let Self { balance, .. } = self;
            let TransactionView { version, kind, amount, balance_after, .. } = row;
            return Err(format!(
                "at version {version} the balance changes from {balance} to {balance_after} by a {kind} of {amount}"
            ));
        }
        match direction {
            Some(Direction::In) => self.totals.total_in += i128::from(row.amount),
            Some(Direction::Out) => self.totals.total_out += i128::from(row.amount),
            None => {}
        }
        (self.version, self.balance) = (row.version, row.balance_after);
        Ok(())
    }

    fn check_totals(&self) -> Result<(), String> {
        let Self { opening, closing, totals: Totals { total_in, total_out }, .. } = self;
        match i128::from(*opening) + total_in - total_out == i128::from(*closing) {
            true => Ok(()),
            false => Err(format!(
                "opening balance {opening} + credits {total_in} - debits {total_out} is not closing balance {closing}"
            )),
        }
    }
}
