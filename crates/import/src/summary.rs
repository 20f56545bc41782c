//! Reports on an import: its progress, and the counts of its results.

use std::{collections::BTreeMap, time::Duration};

/// The number of line numbers that are kept of each code.
const LINES_KEPT_MAX: usize = 5;

/// Progress of an import.
#[derive(Debug)]
pub enum Event<'a> {
    /// Results have arrived.
    Progress {
        /// The number of commands with a result.
        commands: u64,
        /// The number of bytes read from the file, before decompression.
        bytes_read: u64,
    },
    /// A request was interrupted; another one continues after the wait.
    Retry {
        /// The reason of the interruption.
        reason: &'a str,
        /// The number of attempts in a row without a result.
        attempts: u32,
        /// The wait.
        wait: Duration,
    },
}

/// The results so far.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Commands that succeeded in this run.
    pub executed: u64,
    /// Commands that an earlier request executed, whose receipt was returned again.
    pub replayed: u64,
    /// The refused commands, by code.
    pub refusals: BTreeMap<String, Refusals>,
    /// How often an interrupted request was continued by another one.
    pub retries: u64,
}

/// The commands that were refused with one code.
#[derive(Clone, Debug, Default)]
pub struct Refusals {
    /// Their number.
    pub count: u64,
    /// The numbers of the first lines.
    pub first_lines: Vec<u64>,
}

impl Summary {
    /// The number of commands with a result.
    pub fn commands(&self) -> u64 {
        self.executed + self.replayed + self.refused()
    }

    /// The number of refused commands.
    pub fn refused(&self) -> u64 {
        self.refusals.values().map(|refusals| refusals.count).sum()
    }

    pub(crate) fn count_refusal(&mut self, code: &str, line: u64) {
        if !self.refusals.contains_key(code) {
            self.refusals.insert(code.to_owned(), Refusals::default());
        }
        if let Some(refusals) = self.refusals.get_mut(code) {
            refusals.count += 1;
            if refusals.first_lines.len() < LINES_KEPT_MAX {
                refusals.first_lines.push(line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_by_code_with_their_first_lines() {
        let mut summary = Summary { executed: 2, replayed: 1, ..Summary::default() };
        (1..=7).for_each(|line| summary.count_refusal("insufficient_funds", line));
        summary.count_refusal("account_not_found", 9);
        assert_eq!((summary.commands(), summary.refused()), (11, 8));
        let funds = &summary.refusals["insufficient_funds"];
        assert_eq!((funds.count, &funds.first_lines[..]), (7, &[1, 2, 3, 4, 5][..]));
    }
}
