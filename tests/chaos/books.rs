//! The books: every account folded from the log, without any code of the service. They judge each event: a status that allows it,
//! money that was available, holds, limits, and reversals that never exceed their movement.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Datelike, NaiveDate, Utc};
use passbook_testkit::{audit::balance_change, log::Event};
use serde_json::Value;
use uuid::Uuid;

/// All accounts at the end of the log, and what each event left.
pub struct Books {
    pub accounts: BTreeMap<Uuid, Account>,
    after: HashMap<(Uuid, i64), After>,
}

/// An account after the last event of a command, at the time of that event.
#[derive(Clone, Debug, PartialEq)]
pub struct After {
    pub status: &'static str,
    pub balance: i64,
    pub available: i64,
    /// The hold of the event, also if the event ends it.
    pub hold: Option<Hold>,
}

#[derive(Clone, Debug, Default)]
pub struct Account {
    pub status: &'static str,
    pub balance: i64,
    pub version: i64,
    /// The data of the last `LimitsSet`.
    limits: Value,
    /// The holds whose end is not recorded.
    holds: BTreeMap<Uuid, Hold>,
    /// What left the account in each day and in each month, less what its holds released.
    out_per_day: BTreeMap<NaiveDate, i64>,
    out_per_month: BTreeMap<NaiveDate, i64>,
    /// The event and the change of the balance of each movement, and the sum of its reversals.
    movements: HashMap<i64, (Uuid, i64, i64)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Hold {
    pub id: Uuid,
    pub status: String,
    pub amount: i64,
    pub captured: i64,
    pub placed_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
    pub version: i64,
}

impl Books {
    /// Folds the log, and asserts that the state allows each event.
    pub fn from_log(events: &[Event]) -> Self {
        let mut books = Self { accounts: BTreeMap::new(), after: HashMap::new() };
        for event in events {
            let account = books.accounts.entry(event.stream_id).or_default();
            let hold = account.apply(event);
            let Account { status, balance, .. } = *account;
            let after = After { status, balance, available: account.available(event.recorded_at), hold };
            books.after.insert((event.stream_id, event.version), after);
        }
        books
    }

    pub fn after(&self, event: &Event) -> &After {
        &self.after[&(event.stream_id, event.version)]
    }
}

impl Account {
    /// Applies an event, and returns its hold.
    fn apply(&mut self, event: &Event) -> Option<Hold> {
        let (data, now) = (event.json(), event.recorded_at);
        let amount = data["amount"].as_i64().unwrap_or_default();
        let (allowed, next): (&[&str], _) = match event.event_type.as_str() {
            "AccountOpened" => (&[""], "open"),
            "AccountFrozen" => (&["open"], "frozen"),
            "AccountUnfrozen" => (&["frozen"], "open"),
            "AccountClosed" => (&["open"], "closed"),
            "HoldReleased" | "LimitsSet" => (&["open", "frozen"], self.status),
            _ => (&["open"], "open"),
        };
        assert!(allowed.contains(&self.status), "{event:?} is not allowed in this status: {self:?}");
        let is_empty = self.balance == 0 && self.holds.is_empty();
        assert!(next != "closed" || is_empty, "{event:?} closes an account with money or holds: {self:?}");
        let mut hold = None;
        match event.event_type.as_str() {
            "MoneyWithdrawn" => self.pay_out(amount, now),
            "TransferSent" if data["hold_id"].is_null() => self.pay_out(amount, now),
            "TransferSent" | "HoldCaptured" => hold = Some(self.capture(&data, now)),
            "HoldPlaced" => {
                self.pay_out(amount, now);
                hold = Some(self.place(event, &data));
            }
            "HoldReleased" => hold = Some(self.release(&data, now)),
            "MovementReversed" => self.reverse(event, &data),
            "LimitsSet" => self.limits = data,
            _ => {}
        }
        let change = balance_change(event);
        if change != 0 {
            let reversed = if event.event_type == "MovementReversed" { change.abs() } else { 0 };
            self.movements.insert(event.version, (event.id, change, reversed));
        }
        (self.status, self.balance, self.version) = (next, self.balance + change, event.version);
        hold
    }

    pub fn has_limits(&self) -> bool {
        !self.limits.is_null()
    }

    pub fn overdraft(&self) -> i64 {
        self.limits["overdraft"].as_i64().unwrap_or_default()
    }

    /// The sum of the holds that are active at `now`.
    pub fn held(&self, now: DateTime<Utc>) -> i64 {
        self.holds.values().filter(|hold| hold.expires_at > now).map(Hold::remaining).sum()
    }

    pub fn available(&self, now: DateTime<Utc>) -> i64 {
        self.balance - self.held(now) + self.overdraft()
    }

    /// The limit and what counts against it at `now`, for the limits of a period. `None` if the limit is not set.
    pub fn limit_usage(&self, name: &str, now: DateTime<Utc>) -> Option<(i64, i64)> {
        let maximum = self.limits[name].as_i64()?;
        let (period, out): (fn(DateTime<Utc>) -> NaiveDate, _) = match name {
            "out_per_day" => (day, &self.out_per_day),
            _ => (month, &self.out_per_month),
        };
        let is_over = |hold: &&Hold| hold.expires_at <= now && period(hold.placed_at) == period(now);
        let released: i64 = self.holds.values().filter(is_over).map(Hold::remaining).sum();
        Some((maximum, out.get(&period(now)).copied().unwrap_or_default() - released))
    }

    /// Asserts that `amount` is available and within the limits, and counts it.
    fn pay_out(&mut self, amount: i64, now: DateTime<Utc>) {
        assert!(amount <= self.available(now), "{amount} is not available at {now}: {self:?}");
        let maximum = self.limits["per_movement"].as_i64().unwrap_or(i64::MAX);
        assert!(amount <= maximum, "{amount} exceeds the limit of a movement: {self:?}");
        for name in ["out_per_day", "out_per_month"] {
            let (maximum, used) = self.limit_usage(name, now).unwrap_or((i64::MAX, 0));
            assert!(amount <= maximum - used, "{amount} at {now} exceeds {name}, of which {used} is used: {self:?}");
        }
        *self.out_per_day.entry(day(now)).or_default() += amount;
        *self.out_per_month.entry(month(now)).or_default() += amount;
    }

    fn place(&mut self, event: &Event, data: &Value) -> Hold {
        let hold = Hold {
            id: data["hold_id"].as_str().unwrap().parse().unwrap(),
            status: "active".to_owned(),
            amount: data["amount"].as_i64().unwrap(),
            captured: 0,
            placed_at: event.recorded_at,
            expires_at: data["expires_at"].as_str().unwrap().parse().unwrap(),
            version: event.version,
        };
        assert!(self.holds.insert(hold.id, hold.clone()).is_none(), "{hold:?} is placed twice");
        hold
    }

    fn capture(&mut self, data: &Value, now: DateTime<Utc>) -> Hold {
        let (mut hold, amount) = self.take_hold(data);
        assert!(now < hold.expires_at && amount <= hold.remaining(), "{hold:?} does not allow {data} at {now}");
        hold.captured += amount;
        if data["final"] == true || hold.remaining() == 0 {
            self.give_back(&hold, now);
            hold.status = "captured".to_owned();
        } else {
            self.holds.insert(hold.id, hold.clone());
        }
        hold
    }

    fn release(&mut self, data: &Value, now: DateTime<Utc>) -> Hold {
        let (mut hold, amount) = self.take_hold(data);
        assert_eq!(amount, hold.remaining(), "captured and released money is the amount of {hold:?}");
        let cause = if now < hold.expires_at { "voided" } else { "expired" };
        assert_eq!(data["cause"], cause, "{hold:?} is released at {now}");
        self.give_back(&hold, now);
        hold.status = cause.to_owned();
        hold
    }

    /// Removes the hold that an event names. Returns it and the amount of the event.
    fn take_hold(&mut self, data: &Value) -> (Hold, i64) {
        let id: Uuid = data["hold_id"].as_str().unwrap().parse().unwrap();
        let hold = self.holds.remove(&id).unwrap_or_else(|| panic!("the account has no such hold: {data}"));
        (hold, data["amount"].as_i64().unwrap())
    }

    /// The limits of the periods in which the hold was placed get back what it releases now.
    fn give_back(&mut self, hold: &Hold, now: DateTime<Utc>) {
        if day(hold.placed_at) == day(now) {
            *self.out_per_day.get_mut(&day(now)).unwrap() -= hold.remaining();
        }
        if month(hold.placed_at) == month(now) {
            *self.out_per_month.get_mut(&month(now)).unwrap() -= hold.remaining();
        }
    }

    fn reverse(&mut self, event: &Event, data: &Value) {
        let (change, available) = (balance_change(event), self.available(event.recorded_at));
        assert!(change > 0 || change.abs() <= available, "{event:?} takes money that is not available: {self:?}");
        let original = self.movements.get_mut(&data["reverses_version"].as_i64().unwrap());
        let (id, moved, reversed) = original.unwrap_or_else(|| panic!("{event:?} reverses no movement"));
        assert_eq!(data["reverses_event_id"], id.to_string(), "{event:?} names another event");
        assert_eq!(moved.signum(), -change.signum(), "{event:?} has the effect of its movement");
        *reversed += change.abs();
        assert!(*reversed <= moved.abs(), "{event:?} reverses more than was moved: {moved}");
    }
}

impl Hold {
    pub fn remaining(&self) -> i64 {
        self.amount - self.captured
    }
}

fn day(time: DateTime<Utc>) -> NaiveDate {
    time.date_naive()
}

/// The first day of the month.
fn month(time: DateTime<Utc>) -> NaiveDate {
    time.date_naive().with_day(1).unwrap()
}
