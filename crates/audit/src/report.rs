//! What a verification says.

use std::{collections::BTreeMap, error, fmt};

use serde::Serialize;

use super::LogHead;
use passbook_domain::Event;
use passbook_event_store::Partitions;

/// The first thing found that is not in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// In which partition, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<i16>,
    /// The event at which it shows; for what is kept beside the log, the last event that it should rest on.
    pub position: i64,
    /// What is wrong, in plain words.
    #[serde(rename = "finding")]
    pub sentence: String,
}

impl Finding {
    pub(super) fn in_partition(partitions: Partitions, partition: i16, position: i64, sentence: String) -> Self {
        Self { partition: partitions.are_several().then_some(partition), position, sentence }
    }
}

impl error::Error for Finding {}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(partition) = self.partition {
            write!(f, "partition {partition}, ")?;
        }
        write!(f, "position {}: {}", self.position, self.sentence)
    }
}

/// Books in order.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Where the log ends, if it has one partition.
    #[serde(flatten)]
    pub head: Option<LogHead>,
    /// Where each partition ends, if there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<LogHead>,
    /// How many events were read.
    pub events: i64,
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

    /// This and that of another partition.
    pub(super) fn add(&mut self, other: Self) {
        self.paid_in += other.paid_in;
        self.paid_out += other.paid_out;
        self.balances += other.balances;
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
    /// What a witness writes down.
    pub fn witness(&self) -> String {
        if let Some(LogHead { position, hash, .. }) = &self.head {
            return format!("{position}-{hash}");
        }
        let place = |head: &LogHead| format!("{}:{}-{}", head.partition, head.position, head.hash);
        let places: Vec<String> = self.partitions.iter().filter(|head| head.position > 0).map(place).collect();
        places.join(",")
    }

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
        let rate = self.events as f64 / self.seconds.max(0.001);
        writeln!(f, "The books are in order.")?;
        writeln!(f)?;
        writeln!(f, "  events     {} of {} accounts, each hash recomputed", self.events, self.accounts)?;
        if !self.partitions.is_empty() {
            writeln!(f, "  partitions {}, and both sides of every transfer", self.partitions.len())?;
        }
        writeln!(f, "  compared   every row of the views, {} snapshots, {} receipts", self.snapshots, self.receipts)?;
        for (currency, Money { paid_in, paid_out, balances }) in &self.money {
            writeln!(f, "  {currency}        {paid_in} in - {paid_out} out = {balances} held")?;
        }
        write!(f, "  took       {:.1} s, {rate:.0} events/s", self.seconds)?;
        if self.events == 0 {
            return Ok(());
        }
        writeln!(f, "\n")?;
        writeln!(f, "A witness may write this down, and ask later whether the log still contains it:")?;
        write!(f, "  passbook verify --witness {}", self.witness())
    }
}
