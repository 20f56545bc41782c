//! Fills the log with deposits in batches. The accounts follow from a fixed seed, so that every run writes the same log.

use std::time::Instant;

use anyhow::Result;

use crate::each_batches::{self, CONCURRENT_BATCHES};
use crate::harness::Harness;
use crate::result_row::ResultRow;
use crate::seed::account_id;
use crate::service::Service;
use crate::table::grouped;

const SEED: u64 = 0x7061_7373_626f_6f6b;

/// The accounts of the deposits.
#[derive(Clone, Copy, Debug)]
pub enum Spread {
    /// The account to which `deposits_to_one.lua` deposits.
    One,
    /// Random accounts among the first of this number.
    Over(u32),
    /// The first accounts of this number, one after the other and again from the first.
    InTurn(u32),
}

impl Spread {
    fn name(self) -> &'static str {
        match self {
            Self::One => "fill in batches of 1 000, one account",
            Self::Over(_) => "fill in batches of 1 000, all accounts",
            Self::InTurn(_) => "fill in batches of 1 000, accounts in turn",
        }
    }

    /// The account of the n-th deposit.
    fn account(self, n: u64) -> u32 {
        match self {
            Self::One => 1,
            Self::Over(accounts) => (random(n) % u64::from(accounts)) as u32 + 1,
            Self::InTurn(accounts) => (n % u64::from(accounts)) as u32 + 1,
        }
    }
}

/// Executes deposits until the log's head is at position `until`, or somewhat beyond it after a retry. Returns the row of these
/// deposits; `None` if the log is long enough.
pub async fn fill(harness: &Harness, service: &mut Service, spread: Spread, until: u64) -> Result<Option<ResultRow>> {
    let head = harness.passbook.head().await?;
    let missing = until.saturating_sub(head);
    if missing == 0 {
        return Ok(None);
    }
    eprintln!("{}: {} events", spread.name(), grouped(missing));
    let passbook = harness.passbook.clone();
    let load = async move {
        let started = Instant::now();
        let deposits = (head..until).map(|n| deposit(&account_id(spread.account(n))));
        each_batches::execute(&passbook, deposits, None).await?;
        Ok(started.elapsed().as_secs_f64())
    };
    harness.measure_commands(spread.name(), CONCURRENT_BATCHES as u32, missing, service, load).await.map(Some)
}

fn deposit(account: &str) -> String {
    format!("{{\"command\":\"deposit\",\"account_id\":\"{account}\",\"amount\":1}}")
}

/// The n-th number of a pseudorandom sequence (SplitMix64).
fn random(n: u64) -> u64 {
    let mut mixed = SEED.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::Spread;

    #[test]
    fn the_accounts_of_a_fill_are_the_same_in_every_run() {
        let accounts: Vec<u32> = (0..4).map(|n| Spread::Over(1_000_000).account(n)).collect();
        assert_eq!(accounts, [946_001, 369_175, 213_962, 140_554]);
        assert_eq!(Spread::One.account(7), 1);
        assert_eq!([0, 4, 5].map(|n| Spread::InTurn(5).account(n)), [1, 5, 1]);
    }

    #[test]
    fn a_fill_reaches_nearly_every_account() {
        let accounts: HashSet<u32> = (0..10_000).map(|n| Spread::Over(1_000).account(n)).collect();
        assert!(accounts.iter().all(|account| (1..=1_000).contains(account)));
        assert!(accounts.len() > 990);
    }
}
