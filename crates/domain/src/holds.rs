//! Holds: money that is set aside for a payment. A hold lowers what is available, not the balance.
//!
//! A hold is over at the moment `expires_at`. From then on no decision counts it, whether its expiry is recorded or not. The
//! state contains only holds whose end is not recorded. The id of a hold contains the version at which it was placed, so one read
//! of the log distinguishes a hold that is over from one that was never placed.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, Serializer};
use uuid::Uuid;

use crate::{
    account::OpenedAccount,
    command::{CaptureHold, PlaceHold},
    event::{Event, HoldPlaced, HoldReleased, ReleaseCause},
    money::Amount,
    rejection::Rejection,
};

/// How many active holds an account has at most.
pub const ACTIVE_HOLDS_MAX: usize = 200;
/// How many expiries a placement records at most. One is enough to keep the list at [`ACTIVE_HOLDS_MAX`] holds, and more of them
/// shorten it. A batch of placements thus has few events.
pub const PLACEMENT_EXPIRIES_MAX: usize = 3;
/// The longest time from the placement of a hold to its expiry: 365 days.
pub const HOLD_SECONDS_MAX: u32 = 31_536_000;
/// The time from the placement of a hold to its expiry if the client names none: 7 days.
pub const HOLD_SECONDS_DEFAULT: u32 = 604_800;

/// The bits of a hold's id that contain the version: the first ones, which a UUID of version 8 leaves to its maker.
const VERSION_BITS: u32 = 48;

/// The id of a hold that is placed at this version of its account: a UUID of version 8 (RFC 9562, section 5.8) that begins with
/// the version. The other bits are those of `unique`, a random or time-ordered UUID.
pub fn hold_id(version: i64, unique: Uuid) -> Uuid {
    let below_version = u128::MAX >> VERSION_BITS;
    let version = u128::from(version.unsigned_abs()) << (u128::BITS - VERSION_BITS);
    let bits = version | (unique.as_u128() & below_version);
    let with_version_8 = (bits & !(0xf << 76)) | (0x8 << 76);
    Uuid::from_u128((with_version_8 & !(0b11 << 62)) | (0b10 << 62))
}

/// The version of the account at which a hold with this id was placed; `None` if the id cannot be that of a hold.
pub fn hold_version(hold_id: Uuid) -> Option<i64> {
    let is_version_8 = hold_id.get_version_num() == 8 && hold_id.get_variant() == uuid::Variant::RFC4122;
    let version = i64::try_from(hold_id.as_u128() >> (u128::BITS - VERSION_BITS)).ok()?;
    (is_version_8 && version > 0).then_some(version)
}

/// A hold whose end is not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Hold {
    /// The id, see [`hold_version`].
    pub hold_id: Uuid,
    /// The amount at the placement.
    pub amount: Amount,
    /// The sum of the captures so far, in minor units; always less than the amount.
    pub captured: i64,
    /// When the hold was placed.
    #[serde(with = "chrono::serde::ts_microseconds")]
    pub placed_at: DateTime<Utc>,
    /// When the hold is over, this moment included.
    #[serde(with = "chrono::serde::ts_microseconds")]
    pub expires_at: DateTime<Utc>,
}

/// How a hold stands or has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum HoldStatus {
    /// The hold lowers what is available.
    Active,
    /// The last capture ended it.
    Captured,
    /// A command ended it.
    Voided,
    /// Its time ended it.
    Expired,
}

impl HoldStatus {
    /// The name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Captured => "captured",
            Self::Voided => "voided",
            Self::Expired => "expired",
        }
    }

    /// The status with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [Self::Active, Self::Captured, Self::Voided, Self::Expired];
        all.into_iter().find(|status| status.as_str() == name)
    }
}

impl Hold {
    /// The hold that this event places.
    pub fn placed(event: &HoldPlaced, placed_at: DateTime<Utc>) -> Self {
        let HoldPlaced { hold_id, amount, expires_at, .. } = *event;
        Self { hold_id, amount, captured: 0, placed_at, expires_at }
    }

    /// What can still be captured, in minor units.
    pub fn remaining(&self) -> i64 {
        self.amount.minor_units() - self.captured
    }

    /// Whether the hold counts at `now`, if its end is not recorded.
    pub fn is_active(&self, now: DateTime<Utc>) -> bool {
        self.expires_at > now
    }

    /// The hold after one more of its events, and its status then. Other events change nothing.
    #[must_use]
    pub fn evolve(mut self, event: &Event) -> (Self, HoldStatus) {
        let (captured, is_final) = match event {
            Event::HoldCaptured(captured) => (captured.amount, captured.is_final),
            Event::TransferSent(sent) => (sent.amount, sent.is_final.unwrap_or_default()),
            Event::HoldReleased(released) => return (self, released.cause.status()),
            Event::AccountOpened(_)
            | Event::MoneyDeposited(_)
            | Event::MoneyWithdrawn(_)
            | Event::TransferReceived(_)
            | Event::HoldPlaced(_)
            | Event::MovementReversed(_)
            | Event::LimitsSet(_)
            | Event::AccountFrozen(_)
            | Event::AccountUnfrozen(_)
            | Event::AccountClosed(_) => return (self, HoldStatus::Active),
        };
        self.captured += captured.minor_units();
        let is_over = is_final || self.remaining() <= 0;
        (self, if is_over { HoldStatus::Captured } else { HoldStatus::Active })
    }

    fn release(&self, cause: ReleaseCause, reason: Option<String>) -> Option<Event> {
        let amount = Amount::try_from(self.remaining()).ok()?;
        Some(Event::HoldReleased(HoldReleased { hold_id: self.hold_id, amount, cause, reason }))
    }
}

/// The holds of an account whose end is not recorded, in the order of their placement: at most [`ACTIVE_HOLDS_MAX`], active or
/// over. Cloning it is cheap. Most accounts have none, and need no allocation for them: an empty list is always `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(from = "Vec<Hold>")]
pub struct Holds(Option<Arc<Vec<Hold>>>);

impl From<Vec<Hold>> for Holds {
    fn from(holds: Vec<Hold>) -> Self {
        Self((!holds.is_empty()).then(|| Arc::new(holds)))
    }
}

impl Serialize for Holds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.all().serialize(serializer)
    }
}

impl Holds {
    /// Whether there is no hold.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    fn all(&self) -> &[Hold] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }

    /// The hold with this id, active or over.
    pub fn get(&self, hold_id: Uuid) -> Option<&Hold> {
        self.all().iter().find(|hold| hold.hold_id == hold_id)
    }

    /// The holds that count at `now`.
    pub fn active(&self, now: DateTime<Utc>) -> impl Iterator<Item = &Hold> {
        self.all().iter().filter(move |hold| hold.is_active(now))
    }

    /// The holds that are over at `now` without a recorded expiry.
    pub fn over(&self, now: DateTime<Utc>) -> impl Iterator<Item = &Hold> {
        self.all().iter().filter(move |hold| !hold.is_active(now))
    }

    /// The sum that active holds set aside at `now`, in minor units.
    pub fn held(&self, now: DateTime<Utc>) -> i64 {
        self.active(now).map(Hold::remaining).sum()
    }

    /// The events that record the expiry of holds that are over at `now`, at most `holds_max`.
    pub(crate) fn expiries(&self, now: DateTime<Utc>, holds_max: usize) -> Vec<Event> {
        let released = self.over(now).filter_map(|hold| hold.release(ReleaseCause::Expired, None));
        released.take(holds_max).collect()
    }

    /// Applies an event of the account, which was recorded at `recorded_at`. Most events change no hold.
    pub fn evolve(&mut self, event: &Event, recorded_at: DateTime<Utc>) {
        match (event, event.own_hold()) {
            (Event::HoldPlaced(placed), _) => self.place(Hold::placed(placed, recorded_at)),
            (_, Some(hold_id)) => drop(self.apply(hold_id, event)),
            (_, None) => {}
        }
    }

    pub(crate) fn place(&mut self, hold: Hold) {
        Arc::make_mut(self.0.get_or_insert_default()).push(hold);
    }

    /// Applies an event of the hold with this id. Returns the hold before, and what the event releases, in minor units.
    pub(crate) fn apply(&mut self, hold_id: Uuid, event: &Event) -> Option<(Hold, i64)> {
        let index = self.all().iter().position(|hold| hold.hold_id == hold_id)?;
        let holds = Arc::make_mut(self.0.as_mut()?);
        let before = *holds.get(index)?;
        let (after, status) = before.evolve(event);
        match (status, holds.get_mut(index)) {
            (HoldStatus::Active, Some(hold)) => {
                *hold = after;
                Some((before, 0))
            }
            (HoldStatus::Active | HoldStatus::Captured | HoldStatus::Voided | HoldStatus::Expired, _) => {
                holds.remove(index);
                if holds.is_empty() {
                    self.0 = None;
                }
                Some((before, after.remaining()))
            }
        }
    }
}

impl OpenedAccount {
    /// The money that debits and holds can use at `now`: the balance, less active holds, plus the overdraft. It is negative if the
    /// overdraft was lowered below what is used.
    pub fn available(&self, now: DateTime<Utc>) -> i64 {
        self.balance - self.holds.held(now) + self.limits.overdraft
    }

    /// The event that places a hold, after expiries of holds that are over.
    pub(crate) fn place_hold(&self, place: &PlaceHold, now: DateTime<Utc>) -> Result<Vec<Event>, Rejection> {
        let PlaceHold { unique, movement, expires_in_seconds } = place;
        if self.holds.active(now).count() >= ACTIVE_HOLDS_MAX {
            return Err(Rejection::TooManyHolds);
        }
        self.pay_out(movement.amount, now)?;
        let mut events = self.holds.expiries(now, PLACEMENT_EXPIRIES_MAX);
        let version = self.version + events.len() as i64 + 1;
        events.push(Event::HoldPlaced(HoldPlaced {
            hold_id: hold_id(version, *unique),
            amount: movement.amount,
            expires_at: now + chrono::TimeDelta::seconds(i64::from(*expires_in_seconds)),
            reference: movement.reference.clone(),
            metadata: movement.metadata.clone(),
        }));
        Ok(events)
    }

    /// The amount that a capture takes from its hold, and whether it ends the hold.
    pub(crate) fn capture_hold(&self, capture: &CaptureHold, now: DateTime<Utc>) -> Result<(Amount, bool), Rejection> {
        self.must_have_placed(capture.hold_id, capture.was_placed)?;
        self.must_be_open()?;
        let hold = self.active_hold(capture.hold_id, now)?;
        let remaining = hold.remaining();
        let amount = match capture.amount {
            Some(amount) => amount,
            None => Amount::try_from(remaining).map_err(|_| Rejection::HoldNotActive)?,
        };
        if amount.minor_units() > remaining {
            return Err(Rejection::ExceedsHold { remaining, amount, currency: self.currency });
        }
        Ok((amount, capture.is_final || amount.minor_units() == remaining))
    }

    /// The event that voids a hold. A frozen account voids its holds, too.
    pub(crate) fn void_hold(
        &self,
        (hold_id, was_placed): (Uuid, bool),
        reason: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<Event, Rejection> {
        self.must_have_placed(hold_id, was_placed)?;
        self.not_closed()?;
        let hold = self.active_hold(hold_id, now)?;
        hold.release(ReleaseCause::Voided, reason.map(str::to_owned)).ok_or(Rejection::HoldNotActive)
    }

    /// Checks that no hold is active.
    pub(crate) fn no_active_hold(&self, now: DateTime<Utc>) -> Result<(), Rejection> {
        match self.holds.active(now).next() {
            None => Ok(()),
            Some(_) => Err(Rejection::HoldsActive),
        }
    }

    /// Checks that the account ever placed the hold: the state contains it, or the log has its placement.
    fn must_have_placed(&self, hold_id: Uuid, was_placed: bool) -> Result<(), Rejection> {
        match was_placed || self.holds.get(hold_id).is_some() {
            true => Ok(()),
            false => Err(Rejection::HoldNotFound),
        }
    }

    fn active_hold(&self, hold_id: Uuid, now: DateTime<Utc>) -> Result<&Hold, Rejection> {
        self.holds.get(hold_id).filter(|hold| hold.is_active(now)).ok_or(Rejection::HoldNotActive)
    }
}
