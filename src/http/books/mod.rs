//! The books of the bank: the trial balance, and the journal.

pub mod journal;
pub mod trial_balance;
