//! The summary of a chaos test: faults, commands and their outcomes, for a person to read.

use std::{collections::BTreeMap, fmt, time::Duration};

use passbook_testkit::log::Event;

use crate::{
    client::{CommandRecord, Outcome},
    fault::Fault,
};

#[derive(Default)]
pub struct Report {
    pub rounds: u64,
    pub faults: BTreeMap<Fault, u64>,
    pub commands: u64,
    pub acknowledged: u64,
    pub rejected: u64,
    /// Commands without a key whose outcome stays unknown.
    pub unknown: u64,
    pub retries: u64,
    /// Commands with at least one attempt whose outcome was unknown.
    pub with_unknown_attempt: u64,
    /// Rejected commands that were sent once more, and got the same rejection as a replay.
    pub replayed_rejections: u64,
    /// First attempts that arrived and were answered after their retry.
    pub late_attempts: u64,
    /// Batches of which all or none was executed, and those that were executed.
    pub batches: u64,
    pub executed_batches: u64,
    /// Commands that one request sent together, each executed by itself.
    pub in_requests: u64,
    pub reads: u64,
    /// The number of events of each type in the log.
    pub events: BTreeMap<String, u64>,
    /// The longest time that the views took to reach the log head after the testbed was restored.
    pub caught_up_in: Duration,
}

impl Report {
    pub fn count(&mut self, records: &[CommandRecord]) {
        for record in records {
            self.commands += 1;
            self.retries += record.attempts - 1;
            self.with_unknown_attempt += u64::from(record.had_unknown_attempt);
            self.replayed_rejections += u64::from(record.is_replayed && matches!(record.outcome, Outcome::Rejected(_)));
            self.batches += u64::from(!record.command.items.is_empty());
            let is_recorded = matches!(record.outcome, Outcome::Recorded(_));
            self.executed_batches += u64::from(!record.command.items.is_empty() && is_recorded);
            self.in_requests += u64::from(record.command.request.is_some());
            match record.outcome {
                Outcome::Recorded(_) => self.acknowledged += 1,
                Outcome::Rejected(_) => self.rejected += 1,
                Outcome::Unknown => self.unknown += 1,
            }
        }
    }

    /// Counts the events of the whole log.
    pub fn count_events(&mut self, events: &[Event]) {
        self.events.clear();
        for event in events {
            *self.events.entry(event.event_type.clone()).or_default() += 1;
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: &dyn fmt::Display| writeln!(f, "  {name:<32}{value:>10}");
        row("rounds", &self.rounds)?;
        for (fault, times) in &self.faults {
            row(&format!("{fault:?}"), times)?;
        }
        row("commands", &self.commands)?;
        row("  acknowledged", &self.acknowledged)?;
        row("  rejected", &self.rejected)?;
        row("  outcome unknown", &self.unknown)?;
        row("  with an unknown attempt", &self.with_unknown_attempt)?;
        row("  rejected and replayed", &self.replayed_rejections)?;
        row("late first attempts", &self.late_attempts)?;
        row("batches", &self.batches)?;
        row("  executed", &self.executed_batches)?;
        row("commands of shared requests", &self.in_requests)?;
        // `Rounds::check_invariants` has found none.
        row("recorded after a rejection", &0)?;
        row("retries", &self.retries)?;
        row("probe reads", &self.reads)?;
        row("events in the log", &self.events.values().sum::<u64>())?;
        for (event_type, count) in &self.events {
            row(&format!("  {event_type}"), count)?;
        }
        row("slowest view catch-up (s)", &format!("{:.2}", self.caught_up_in.as_secs_f64()))
    }
}
