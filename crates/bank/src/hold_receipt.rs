//! The hold in the receipt of a command that places, captures or voids it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use passbook_domain::{
    Account, Amount, Event, Hold, HoldStatus,
    event::ReleaseCause,
    holds::{Holds, hold_version},
};
use passbook_event_store::timestamp;

/// A hold after a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HoldReceipt {
    /// The id of the hold.
    pub hold_id: Uuid,
    /// The account that the hold is on.
    pub account_id: Uuid,
    /// Whether the hold is active, or how it ended.
    pub status: HoldStatus,
    /// The amount at the placement, in minor units.
    #[schema(value_type = i64, example = 500, minimum = 1, maximum = 9007199254740991i64)]
    pub amount: Amount,
    /// The sum of the captures, in minor units.
    #[schema(example = 200, minimum = 0, maximum = 9007199254740991i64)]
    pub captured: i64,
    /// What can still be captured, in minor units; 0 once the hold is over.
    #[schema(example = 300, minimum = 0, maximum = 9007199254740991i64)]
    pub remaining: i64,
    /// When the hold was placed.
    #[serde(with = "timestamp")]
    pub placed_at: DateTime<Utc>,
    /// When the hold is over at the latest, this moment included.
    #[serde(with = "timestamp")]
    pub expires_at: DateTime<Utc>,
    /// The version of the account at which the hold was placed.
    #[schema(example = 2, minimum = 1)]
    pub version: i64,
}

impl HoldReceipt {
    /// The hold that the events of a command place, capture or void. `None` if there is none: expiries that precede a command, or
    /// are recorded by themselves, are no part of a receipt.
    pub fn of(account_id: Uuid, before: &Account, events: &[Event], now: DateTime<Utc>) -> Option<Self> {
        let event = events.last()?;
        let holds = before.opened().map(|opened| &opened.holds);
        let evolved = |hold_id| holds.ok().and_then(|holds: &Holds| holds.get(hold_id)).map(|hold| hold.evolve(event));
        let (hold, status) = match event {
            Event::HoldPlaced(placed) => Some((Hold::placed(placed, now), HoldStatus::Active)),
            Event::HoldCaptured(captured) => evolved(captured.hold_id),
            Event::TransferSent(sent) => sent.hold_id.and_then(evolved),
            Event::HoldReleased(released) => match released.cause {
                ReleaseCause::Voided => evolved(released.hold_id),
                ReleaseCause::Expired => None,
            },
            Event::AccountOpened(_)
            | Event::MoneyDeposited(_)
            | Event::MoneyWithdrawn(_)
            | Event::TransferReceived(_)
            | Event::MovementReversed(_)
            | Event::LimitsSet(_)
            | Event::AccountFrozen(_)
            | Event::AccountUnfrozen(_)
            | Event::AccountClosed(_) => None,
        }?;
        let remaining = match status {
            HoldStatus::Active => hold.remaining(),
            HoldStatus::Captured | HoldStatus::Voided | HoldStatus::Expired => 0,
        };
        let Hold { hold_id, amount, captured, placed_at, expires_at } = hold;
        let version = hold_version(hold_id)?;
        Some(Self { hold_id, account_id, status, amount, captured, remaining, placed_at, expires_at, version })
    }
}
