//! What was done to the bank and what it did, for a person to read.

use std::{collections::BTreeMap, fmt, time::Duration};

use crate::{
    crowd::{Answer, Told},
    fault::Fault,
};

#[derive(Default)]
pub struct Tally {
    pub rounds: u64,
    pub faults: BTreeMap<Fault, u64>,
    pub commands: u64,
    pub acknowledged: u64,
    pub refused: u64,
    /// Without a key, and nobody knows.
    pub unknown: u64,
    pub retries: u64,
    /// Commands that were left in doubt at least once.
    pub in_doubt: u64,
    /// Commands that were recorded after their last attempt had been refused.
    pub overtaken: u64,
    pub reads: u64,
    pub events: usize,
    /// The longest time that the views took to reach the head once everything was up again.
    pub caught_up_in: Duration,
}

impl Tally {
    pub fn count(&mut self, told: &[Told]) {
        for one in told {
            self.commands += 1;
            self.retries += one.attempts - 1;
            self.in_doubt += u64::from(one.was_in_doubt);
            match one.answer {
                Answer::Recorded(_) => self.acknowledged += 1,
                Answer::Refused(_) => self.refused += 1,
                Answer::Unknown => self.unknown += 1,
            }
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: &dyn fmt::Display| writeln!(f, "  {name:<24}{value:>10}");
        row("rounds", &self.rounds)?;
        for (fault, times) in &self.faults {
            row(&format!("{fault:?}"), times)?;
        }
        row("commands", &self.commands)?;
        row("  acknowledged", &self.acknowledged)?;
        row("  refused", &self.refused)?;
        row("  never known", &self.unknown)?;
        row("  in doubt for a while", &self.in_doubt)?;
        row("  refused too early", &self.overtaken)?;
        row("retries", &self.retries)?;
        row("reads of the probe", &self.reads)?;
        row("events in the log", &self.events)?;
        row("views caught up in (s)", &format!("{:.2}", self.caught_up_in.as_secs_f64()))
    }
}
