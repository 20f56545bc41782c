//! The shapes that events had in older versions, and the pure functions that lead from each version to the next.
//!
//! A shape and its function stay as long as a log may hold that version: for ever. A version is read into its own
//! struct, and goes from struct to struct up to today's: no JSON tree stands between, which would cost more than all the
//! rest of decoding.

use serde::Deserialize;

use super::{event::MoneyMoved, money::Amount};

/// `MoneyDeposited` and `MoneyWithdrawn`, version 1: nobody asked where.
#[derive(Deserialize)]
pub(super) struct MoneyMovedV1 {
    amount: Amount,
    reference: Option<String>,
}

/// Version 1 to 2: the channel is unknown.
pub(super) fn money_moved_v1_to_v2(old: MoneyMovedV1) -> MoneyMoved {
    MoneyMoved { amount: old.amount, reference: old.reference, channel: None }
}
