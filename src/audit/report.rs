//! What a verification says.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use crate::domain::Event;

/// The first thing found that is not in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("position {position}: {sentence}")]
pub struct Finding {
    /// The event at which it shows; for what is kept beside the log, the last event that it should rest on.
    pub position: i64,
    /// What is wrong, in plain words.
    #[serde(rename = "finding")]
    pub sentence: String,
}

/// Books in order.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The log's partition.
    pub partition: i16,
    /// The last position; all events up to it were read.
    pub position: i64,
    /// The last event's hash, in hexadecimal digits.
    pub hash: String,
    /// How many accounts there are.
    pub accounts: usize,
    /// How many snapshots were compared.
    pub snapshots: u64,
    /// How many idempotency keys' receipts were compared.
    pub receipts: u64,
    /// Money by currency (ISO 4217), in minor units.
    pub money: BTreeMap<&'static str, Money>,
    /// How long it took.
    pub seconds: f64,
}

/// The money of one currency, in minor units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Money {
    /// Paid in from outside, initial deposits among it.
    pub paid_in: i128,
    /// Paid out.
    pub paid_out: i128,
    /// What the accounts hold.
    pub balances: i128,
}

impl Money {
    /// Counts what comes in and goes out; a transfer does neither.
    pub(super) fn record(&mut self, event: &Event) {
        match event {
            Event::AccountOpened(opened) => self.paid_in += i128::from(opened.initial_deposit),
            Event::MoneyDeposited(deposited) => self.paid_in += i128::from(deposited.amount.minor_units()),
            Event::MoneyWithdrawn(withdrawn) => self.paid_out += i128::from(withdrawn.amount.minor_units()),
            Event::TransferSent(_)
            | Event::TransferReceived(_)
            | Event::AccountFrozen(_)
            | Event::AccountUnfrozen(_)
            | Event::AccountClosed(_) => {}
        }
    }

    /// Whether what is held is what came in and did not go out.
    pub(super) fn adds_up(&self) -> bool {
        self.balances == self.paid_in - self.paid_out
    }
}

/// Whether the books are in order, beside what else there is to say.
#[derive(Serialize)]
struct Verdict<'a, T> {
    verified: bool,
    #[serde(flatten)]
    told: &'a T,
}

impl Finding {
    /// One line of JSON.
    pub fn to_json(&self) -> String {
        json(&Verdict { verified: false, told: self })
    }
}

impl Report {
    /// One line of JSON.
    pub fn to_json(&self) -> String {
        json(&Verdict { verified: true, told: self })
    }
}

fn json<T: Serialize>(verdict: &Verdict<'_, T>) -> String {
    // Nothing here can fail to be written: no map has other keys than texts.
    serde_json::to_string(verdict).map(|line| line + "\n").unwrap_or_default()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = self.position as f64 / self.seconds.max(0.001);
        writeln!(f, "The books are in order.")?;
        writeln!(f)?;
        writeln!(f, "  events     {} of {} accounts, each hash recomputed", self.position, self.accounts)?;
        writeln!(f, "  compared   every row of the views, {} snapshots, {} receipts", self.snapshots, self.receipts)?;
        for (currency, Money { paid_in, paid_out, balances }) in &self.money {
            writeln!(f, "  {currency}        {paid_in} in - {paid_out} out = {balances} held")?;
        }
        write!(f, "  took       {:.1} s, {rate:.0} events/s", self.seconds)?;
        if self.position == 0 {
            return Ok(());
        }
        writeln!(f, "\n")?;
        writeln!(f, "A witness may write this down, and ask later whether the log still contains it:")?;
        write!(f, "  passbook verify --witness {}-{}", self.position, self.hash)
    }
}
