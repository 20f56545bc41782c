//! The result of a verification, as text and as JSON: a report of a consistent log, or the first finding.

use std::{collections::BTreeMap, error, fmt};

use serde::Serialize;

use crate::event_log::LogHead;
use passbook_domain::{
    Event,
    money::{Currency, decimal},
    reversal::Effect,
};
use passbook_event_store::Partitions;

/// Why the log could not be verified.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log, or something derived from it, is inconsistent.
    #[error(transparent)]
    Inconsistent(#[from] Finding),
    /// The database failed.
    #[error("the log could not be read: {0}")]
    Storage(#[from] sqlx::Error),
}

/// The first inconsistency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The partition; `None` if the log has only one, or if the finding concerns all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<i16>,
    /// The position of the inconsistent event. For derived data, the position of the last event that it depends on.
    pub position: i64,
    /// What is inconsistent.
    #[serde(rename = "finding")]
    pub message: String,
}

impl Finding {
    pub(super) fn in_partition(partitions: Partitions, partition: i16, position: i64, message: String) -> Self {
        Self { partition: partitions.is_partitioned().then_some(partition), position, message }
    }

    /// One line of JSON.
    pub fn to_json(&self) -> String {
        to_json_line(&Verdict { verified: false, body: self })
    }
}

impl error::Error for Finding {}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(partition) = self.partition {
            write!(f, "partition {partition}, ")?;
        }
        write!(f, "position {}: {}", self.position, self.message)
    }
}

/// The report of a consistent log.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The head of the log, if it has one partition.
    #[serde(flatten)]
    pub head: Option<LogHead>,
    /// The head of each partition, if there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<LogHead>,
    /// The number of events.
    pub events: i64,
    /// The number of accounts.
    pub accounts: usize,
    /// The number of snapshots that were compared.
    pub snapshots: u64,
    /// The number of receipts of idempotency keys that were compared.
    pub receipts: u64,
    /// Money by currency (ISO 4217), in minor units.
    pub money: BTreeMap<&'static str, Money>,
    /// The duration of the verification, in seconds.
    pub seconds: f64,
}

impl Report {
    /// The heads, to be saved outside the database and passed to `passbook verify --expect-head` later.
    pub fn heads_to_pin(&self) -> String {
        if let Some(LogHead { position, hash, .. }) = &self.head {
            return format!("{position}-{hash}");
        }
        let started = self.partitions.iter().filter(|head| head.position.in_partition(head.partition) > 0);
        let heads: Vec<String> = started.map(|LogHead { position, hash, .. }| format!("{position}-{hash}")).collect();
        heads.join(",")
    }

    /// One line of JSON.
    pub fn to_json(&self) -> String {
        to_json_line(&Verdict { verified: true, body: self })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = self.events as f64 / self.seconds.max(0.001);
        writeln!(f, "The log is consistent.")?;
        writeln!(f)?;
        writeln!(f, "  events     {} of {} accounts, all hashes recomputed", self.events, self.accounts)?;
        if !self.partitions.is_empty() {
            writeln!(f, "  partitions {}, both sides of every transfer compared", self.partitions.len())?;
        }
        writeln!(f, "  compared   all rows of the views, {} snapshots, {} receipts", self.snapshots, self.receipts)?;
        for (currency, money) in &self.money {
            let [paid_in, paid_out, balances] = money.in_major_units(currency);
            writeln!(f, "  {currency}        {paid_in} paid in - {paid_out} paid out = {balances} in balances")?;
        }
        write!(f, "  duration   {:.1} s, {rate:.0} events/s", self.seconds)?;
        if self.events == 0 {
            return Ok(());
        }
        writeln!(f, "\n")?;
        writeln!(f, "Save this head outside the database. Later, check that the log still contains the same events:")?;
        write!(f, "  passbook verify --expect-head {}", self.heads_to_pin())
    }
}

/// The money of one currency, in minor units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Money {
    /// Deposits, including initial deposits.
    pub paid_in: i128,
    /// Withdrawals.
    pub paid_out: i128,
    /// The sum of all balances.
    pub balances: i128,
}

impl Money {
    /// The money paid in, paid out and in balances, in major units of a currency (ISO 4217).
    pub(super) fn in_major_units(&self, currency: &str) -> [String; 3] {
        let currency = Currency::from_code(currency);
        [self.paid_in, self.paid_out, self.balances]
            .map(|sum| currency.map_or_else(|| sum.to_string(), |currency| decimal(sum, currency)))
    }

    /// Adds the deposit or withdrawal of an event. Transfers stay inside the bank.
    pub(super) fn add_event(&mut self, event: &Event) {
        match event {
            Event::AccountOpened(opened) => self.paid_in += i128::from(opened.initial_deposit),
            Event::MoneyDeposited(deposited) => self.paid_in += i128::from(deposited.amount.minor_units()),
            Event::MoneyWithdrawn(withdrawn) => self.paid_out += i128::from(withdrawn.amount.minor_units()),
            Event::HoldCaptured(captured) => self.paid_out += i128::from(captured.amount.minor_units()),
            Event::MovementReversed(reversed) if reversed.transfer_id.is_none() => match reversed.effect {
                Effect::Credit => self.paid_in += i128::from(reversed.amount.minor_units()),
                Effect::Debit => self.paid_out += i128::from(reversed.amount.minor_units()),
            },
            Event::TransferSent(_)
            | Event::TransferReceived(_)
            | Event::MovementReversed(_)
            | Event::HoldPlaced(_)
            | Event::HoldReleased(_)
            | Event::LimitsSet(_)
            | Event::AccountFrozen(_)
            | Event::AccountUnfrozen(_)
            | Event::AccountClosed(_) => {}
        }
    }

    /// Adds the money of another partition.
    pub(super) fn add(&mut self, other: Self) {
        self.paid_in += other.paid_in;
        self.paid_out += other.paid_out;
        self.balances += other.balances;
    }

    /// Whether the balances equal deposits minus withdrawals.
    pub(super) fn is_balanced(&self) -> bool {
        self.balances == self.paid_in - self.paid_out
    }
}

/// The JSON of a result: whether the log is consistent, and the members of the report or the finding.
#[derive(Serialize)]
struct Verdict<'a, T> {
    verified: bool,
    #[serde(flatten)]
    body: &'a T,
}

fn to_json_line<T: Serialize>(verdict: &Verdict<'_, T>) -> String {
    // Serialization cannot fail: all map keys are strings.
    serde_json::to_string(verdict).map(|line| line + "\n").unwrap_or_default()
}
