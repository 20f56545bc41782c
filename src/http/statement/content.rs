//! What every format of a statement contains besides its lines, and the texts that several formats share.

use chrono::{DateTime, NaiveDate, Utc};

pub(super) use crate::hledger::on_one_line;
use crate::journal::label;
use passbook_domain::money::{self, Currency};
use passbook_event_store::Position;
use passbook_read_model::transactions::{TransactionView, statement::Statement};

/// A statement without its lines.
pub(super) struct Content {
    pub statement: Statement,
    pub currency: Currency,
    pub owner: String,
    /// What debits and holds can use at the end of the period, or now if that is earlier, in minor units. 0 if the format does not
    /// contain it.
    pub available_balance: i64,
    pub position: Position,
    pub created_at: DateTime<Utc>,
}

impl Content {
    /// The last day of the period; the first day if the period is empty.
    pub(super) fn last_day(&self) -> NaiveDate {
        let period = self.statement.period;
        period.to.pred_opt().unwrap_or(period.to).max(period.from)
    }

    /// An amount in major units, such as `-12.50`.
    pub(super) fn decimal(&self, minor_units: impl Into<i128>) -> String {
        money::decimal(minor_units.into(), self.currency)
    }

    /// The account's id as 32 hexadecimal digits.
    pub(super) fn account(&self) -> String {
        self.statement.account_id.simple().to_string()
    }
}

/// The kind of a transaction in English.
pub(super) fn kind_label(line: &TransactionView) -> String {
    label(&line.kind)
}

/// The parts of a text with at most `length` characters each.
pub(super) fn parts(text: &str, length: usize) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    characters.chunks(length).map(|part| part.iter().collect()).collect()
}
