//! Adds a statement up while it is read: no version is missing, each balance follows from the one before, and together
//! they lead from the opening balance to the closing one.

use std::ops::Range;

use super::{Kind, TransactionView};

/// What a statement's lines come to, in minor units. Only balances have a ceiling: of turnovers there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// What came in.
    pub total_in: i128,
    /// What went out.
    pub total_out: i128,
}

/// A statement that is being added up.
#[derive(Debug)]
pub(super) struct Reckoning {
    version: i64,
    last: i64,
    balance: i64,
    opening: i64,
    closing: i64,
    totals: Totals,
}

impl Reckoning {
    /// Of the versions after the range's start, its end included.
    pub(super) fn new(versions: Range<i64>, opening: i64, closing: i64) -> Self {
        let totals = Totals::default();
        Self { version: versions.start, last: versions.end, balance: opening, opening, closing, totals }
    }

    /// The versions that are still to be read: those after the range's start, its end included.
    pub(super) fn left(&self) -> Range<i64> {
        self.version..self.last
    }

    pub(super) fn is_over(&self) -> bool {
        self.version >= self.last
    }

    pub(super) fn totals(&self) -> Totals {
        self.totals
    }

    /// The next rows of the history; the sentence that says what does not add up.
    pub(super) fn add(&mut self, rows: &[TransactionView]) -> Result<(), String> {
        if rows.is_empty() && !self.is_over() {
            return Err(format!("version {} is missing", self.version + 1));
        }
        for row in rows {
            self.follow(row)?;
        }
        match self.is_over() {
            true => self.close(),
            false => Ok(()),
        }
    }

    fn follow(&mut self, row: &TransactionView) -> Result<(), String> {
        if row.version != self.version + 1 {
            return Err(format!("version {} follows version {}", row.version, self.version));
        }
        let came_in =
            [Kind::OpeningDeposit, Kind::Deposit, Kind::TransferIn].iter().any(|kind| kind.as_str() == row.kind);
        let went_out = [Kind::Withdrawal, Kind::TransferOut].iter().any(|kind| kind.as_str() == row.kind);
        let after = match (came_in, went_out) {
            (true, _) => self.balance.checked_add(row.amount),
            (_, true) => self.balance.checked_sub(row.amount),
            // Nothing else moves money.
            (false, false) => Some(self.balance).filter(|_| row.amount == 0),
        };
        if after != Some(row.balance_after) {
            let Self { balance, .. } = self;
            let TransactionView { version, kind, amount, balance_after, .. } = row;
            return Err(format!("at version {version} {balance} becomes {balance_after} by the {kind} of {amount}"));
        }
        let total = if came_in { &mut self.totals.total_in } else { &mut self.totals.total_out };
        *total += i128::from(row.amount);
        (self.version, self.balance) = (row.version, row.balance_after);
        Ok(())
    }

    fn close(&self) -> Result<(), String> {
        let Self { opening, closing, totals: Totals { total_in, total_out }, .. } = self;
        match i128::from(*opening) + total_in - total_out == i128::from(*closing) {
            true => Ok(()),
            false => Err(format!("{opening} + {total_in} - {total_out} is not {closing}")),
        }
    }
}
