//! Checks the arithmetic of every hold without the fold of the domain: what was captured, what was released and what remains make up
//! its amount, and nothing happens to a hold that is over.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use passbook_domain::{Event, event::ReleaseCause, holds::hold_version};
use passbook_event_store::RecordedEvent;

/// The holds without a recorded end, by their id.
#[derive(Default)]
pub(super) struct HoldArithmetic(HashMap<Uuid, OpenHold>);

struct OpenHold {
    account_id: Uuid,
    /// In minor units.
    remaining: i64,
    expires_at: DateTime<Utc>,
}

/// What an event does to a hold of its own account.
enum Change {
    Placed { amount: i64, expires_at: DateTime<Utc> },
    Captured { amount: i64, is_final: bool },
    Released { amount: i64, cause: ReleaseCause },
}

impl HoldArithmetic {
    /// Checks and applies the next event.
    pub(super) fn apply(&mut self, recorded: &RecordedEvent, event: &Event) -> Result<(), String> {
        let Some((hold_id, change)) = change(event) else { return Ok(()) };
        let (account_id, now) = (recorded.stream_id, recorded.recorded_at);
        if let Change::Placed { amount, expires_at } = change {
            if hold_version(hold_id) != Some(recorded.version) || expires_at <= now {
                return Err(format!("hold {hold_id} does not match the version or the time of its placement"));
            }
            let hold = OpenHold { account_id, remaining: amount, expires_at };
            return match self.0.insert(hold_id, hold) {
                None => Ok(()),
                Some(_) => Err(format!("hold {hold_id} is placed a second time")),
            };
        }
        let Some(hold) = self.0.get_mut(&hold_id).filter(|hold| hold.account_id == account_id) else {
            return Err(format!("account {account_id} captures or releases hold {hold_id}, which it does not have"));
        };
        let (is_over, fits, is_in_time) = match change {
            Change::Placed { .. } => return Ok(()),
            Change::Captured { amount, is_final } => {
                hold.remaining -= amount;
                (is_final || hold.remaining == 0, hold.remaining >= 0, now < hold.expires_at)
            }
            Change::Released { amount, cause } => {
                let has_expired = now >= hold.expires_at;
                (true, hold.remaining == amount, has_expired == (cause == ReleaseCause::Expired))
            }
        };
        if !fits {
            return Err(format!("captures, releases and the rest of hold {hold_id} do not make up its amount"));
        }
        if !is_in_time {
            return Err(format!("hold {hold_id} is captured, voided or expired at the wrong time"));
        }
        if is_over {
            self.0.remove(&hold_id);
        }
        Ok(())
    }
}

fn change(event: &Event) -> Option<(Uuid, Change)> {
    match event {
        Event::HoldPlaced(placed) => {
            let (amount, expires_at) = (placed.amount.minor_units(), placed.expires_at);
            Some((placed.hold_id, Change::Placed { amount, expires_at }))
        }
        Event::HoldCaptured(captured) => {
            let (amount, is_final) = (captured.amount.minor_units(), captured.is_final);
            Some((captured.hold_id, Change::Captured { amount, is_final }))
        }
        Event::TransferSent(sent) => {
            let (amount, is_final) = (sent.amount.minor_units(), sent.is_final.unwrap_or_default());
            Some((sent.hold_id?, Change::Captured { amount, is_final }))
        }
        Event::HoldReleased(released) => {
            let (amount, cause) = (released.amount.minor_units(), released.cause);
            Some((released.hold_id, Change::Released { amount, cause }))
        }
        Event::AccountOpened(_)
        | Event::MoneyDeposited(_)
        | Event::MoneyWithdrawn(_)
        | Event::TransferReceived(_)
        | Event::MovementReversed(_)
        | Event::LimitsSet(_)
        | Event::AccountFrozen(_)
        | Event::AccountUnfrozen(_)
        | Event::AccountClosed(_) => None,
    }
}
