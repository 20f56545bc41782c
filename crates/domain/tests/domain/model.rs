//! A second, independent implementation of money, holds and limits, compared with the account under random commands and steps of
//! time. The model keeps the whole history and derives every figure from it; it has no counters and no sweeper.

use chrono::{DateTime, Datelike, TimeDelta, Utc};
use passbook_domain::{
    Account, AccountCommand, Event, LimitName, Limits, Rejection,
    command::{CaptureHold, PlaceHold, Reverse},
    money::MINOR_UNITS_MAX,
    reversal::RecordedMovement,
};
use proptest::{collection::vec, option, prelude::*};
use uuid::Uuid;

use crate::{fixtures, given_when_then::fold_at};

#[derive(Clone, Copy, Debug)]
enum Action {
    Deposit(i64),
    Withdraw(i64),
    Place { amount: i64, seconds: u32 },
    Capture { hold: usize, amount: Option<i64>, is_final: bool },
    Void(usize),
    Sweep(usize),
    Reverse { movement: usize, amount: Option<i64> },
    Set(Limits),
    Close,
}

fn action() -> impl Strategy<Value = Action> {
    let amount = || 1..=300i64;
    let limit = || option::weighted(0.4, 0..=900i64);
    // Holds of seconds, of hours, and up to an exact midnight: the first step begins an hour before one.
    let seconds = prop_oneof![1..=5u32, 3_000..=90_000u32, Just(3_600), Just(31_536_000)];
    let limits = (prop_oneof![Just(0), 0..=500i64], limit(), limit(), limit());
    prop_oneof![
        3 => amount().prop_map(Action::Deposit),
        3 => amount().prop_map(Action::Withdraw),
        4 => (amount(), seconds).prop_map(|(amount, seconds)| Action::Place { amount, seconds }),
        4 => (any::<usize>(), option::of(amount()), any::<bool>())
            .prop_map(|(hold, amount, is_final)| Action::Capture { hold, amount, is_final }),
        1 => any::<usize>().prop_map(Action::Void),
        1 => (0..3usize).prop_map(Action::Sweep),
        2 => (any::<usize>(), option::of(amount())).prop_map(|(movement, amount)| Action::Reverse { movement, amount }),
        1 => limits.prop_map(|(overdraft, per_movement, out_per_day, out_per_month)| {
            Action::Set(Limits { overdraft, per_movement, out_per_day, out_per_month })
        }),
        1 => Just(Action::Close),
    ]
}

/// Microseconds from one command to the next.
fn step() -> impl Strategy<Value = i64> {
    let seconds = prop_oneof![4 => 0..=3i64, 3 => 600..=90_000i64, 1 => 1_000_000..=3_000_000i64];
    prop_oneof![2 => Just(1), 3 => seconds.prop_map(|seconds| seconds * 1_000_000), 1 => Just(3_600_000_000)]
}

fn history() -> impl Strategy<Value = Vec<(i64, Action)>> {
    vec((step(), action()), 0..60)
}

/// An hour before the end of a day, a month and a year.
fn start() -> DateTime<Utc> {
    fixtures::time("2027-12-31T23:00:00Z")
}

struct ModelHold {
    placed_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    amount: i64,
    captured: i64,
    ended_at: Option<DateTime<Utc>>,
}

impl ModelHold {
    fn end(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.ended_at.or((self.expires_at <= now).then_some(self.expires_at))
    }
}

#[derive(Default)]
struct Model {
    balance: i64,
    limits: Limits,
    is_closed: bool,
    holds: Vec<ModelHold>,
    /// What left the account, without holds.
    spent: Vec<(DateTime<Utc>, i64)>,
    /// The amounts of movements that can be reversed, with their sign, and what was reversed of each.
    movements: Vec<(i64, i64)>,
}

impl Model {
    fn available(&self, now: DateTime<Utc>) -> i64 {
        let active = self.holds.iter().filter(|hold| hold.end(now).is_none());
        self.balance + self.limits.overdraft - active.map(|hold| hold.amount - hold.captured).sum::<i64>()
    }

    /// What counts in the period of `now`; a period is named by the beginning of a date's text.
    fn used(&self, now: DateTime<Utc>, characters: usize) -> i64 {
        let period = |at: DateTime<Utc>| at.to_rfc3339()[..characters].to_owned();
        let spent =
            self.spent.iter().filter(|(at, _)| period(*at) == period(now)).map(|(_, amount)| amount).sum::<i64>();
        let holds = self.holds.iter().filter(|hold| period(hold.placed_at) == period(now));
        let counted = holds.map(|hold| match hold.end(now) {
            Some(end) if period(end) == period(hold.placed_at) => hold.captured,
            Some(_) | None => hold.amount,
        });
        spent + counted.sum::<i64>()
    }

    fn may_leave(&self, amount: i64, now: DateTime<Utc>) -> bool {
        let Limits { per_movement, out_per_day, out_per_month, .. } = self.limits;
        let within = |limit: Option<i64>, used| limit.is_none_or(|limit| used + amount <= limit);
        amount <= self.available(now)
            && within(per_movement, 0)
            && within(out_per_day, self.used(now, "2027-12-31".len()))
            && within(out_per_month, self.used(now, "2027-12".len()))
    }

    /// Whether the action is accepted, and the state after it.
    fn apply(&mut self, action: Action, now: DateTime<Utc>) -> bool {
        let available = self.available(now);
        if self.is_closed {
            return matches!(action, Action::Sweep(_));
        }
        match action {
            Action::Deposit(amount) => {
                self.balance += amount;
                self.movements.push((amount, 0));
            }
            Action::Withdraw(amount) if self.may_leave(amount, now) => {
                self.balance -= amount;
                self.movements.push((-amount, 0));
                self.spent.push((now, amount));
            }
            Action::Place { amount, seconds } if self.may_leave(amount, now) => {
                let expires_at = now + TimeDelta::seconds(seconds.into());
                self.holds.push(ModelHold { placed_at: now, expires_at, amount, captured: 0, ended_at: None });
            }
            Action::Capture { hold, amount, is_final } => {
                let Some(hold) = self.holds.get_mut(hold).filter(|hold| hold.end(now).is_none()) else { return false };
                let left = hold.amount - hold.captured;
                let amount = amount.unwrap_or(left);
                if amount > left {
                    return false;
                }
                hold.captured += amount;
                hold.ended_at = (is_final || amount == left).then_some(now);
                self.balance -= amount;
                self.movements.push((-amount, 0));
            }
            Action::Void(hold) => {
                let Some(hold) = self.holds.get_mut(hold).filter(|hold| hold.end(now).is_none()) else { return false };
                hold.ended_at = Some(now);
            }
            Action::Sweep(_) => {}
            Action::Reverse { movement, amount } => {
                let Some((original, reversed)) = self.movements.get_mut(movement) else { return false };
                let left = original.abs() - *reversed;
                let amount = amount.unwrap_or(left);
                if left == 0 || amount > left || (*original > 0 && amount > available) {
                    return false;
                }
                *reversed += amount;
                self.balance -= amount * original.signum();
            }
            Action::Set(limits) => self.limits = limits,
            Action::Close => {
                if self.balance != 0 || self.holds.iter().any(|hold| hold.end(now).is_none()) {
                    return false;
                }
                self.is_closed = true;
            }
            Action::Withdraw(_) | Action::Place { .. } => return false,
        }
        true
    }
}

/// The account under test, with what its client remembers of it.
struct Client {
    account: Account,
    events: Vec<(DateTime<Utc>, Event)>,
    holds: Vec<Uuid>,
    movements: Vec<(RecordedMovement, i64)>,
}

impl Client {
    fn new() -> Self {
        let mut client = Self { account: Account::default(), events: vec![], holds: vec![], movements: vec![] };
        client.record(vec![fixtures::opened(0)], start());
        client
    }

    fn command(&self, action: Action) -> Option<AccountCommand> {
        let amount = |minor_units: Option<i64>| minor_units.map(fixtures::amount);
        Some(match action {
            Action::Deposit(amount) => fixtures::deposit(amount),
            Action::Withdraw(amount) => fixtures::withdraw(amount),
            Action::Place { amount, seconds } => {
                let (movement, expires_in_seconds) = (fixtures::movement(amount), seconds);
                AccountCommand::PlaceHold(PlaceHold { unique: fixtures::UNIQUE, movement, expires_in_seconds })
            }
            Action::Capture { hold, amount: wanted, is_final } => {
                let (hold_id, amount) = (*self.holds.get(hold)?, amount(wanted));
                AccountCommand::CaptureHold(CaptureHold {
                    hold_id,
                    was_placed: true,
                    amount,
                    is_final,
                    reference: None,
                })
            }
            Action::Void(hold) => {
                AccountCommand::VoidHold { hold_id: *self.holds.get(hold)?, was_placed: true, reason: None }
            }
            Action::Sweep(holds_max) => AccountCommand::ReleaseExpired { holds_max },
            Action::Reverse { movement, amount: wanted } => {
                let (original, reversed) = *self.movements.get(movement)?;
                AccountCommand::Reverse(Reverse {
                    version: original.version,
                    event_id: Some(original.event_id),
                    original: Some(original),
                    reversed,
                    amount: amount(wanted),
                    reason: None,
                })
            }
            Action::Set(limits) => AccountCommand::SetLimits(limits),
            Action::Close => fixtures::close(),
        })
    }

    fn execute(&mut self, action: Action, now: DateTime<Utc>) -> Result<(), Rejection> {
        let Some(command) = self.command(action) else { return Err(Rejection::HoldNotFound) };
        let events = self.account.decide(&command, now)?;
        self.record(events, now);
        Ok(())
    }

    fn record(&mut self, events: Vec<Event>, now: DateTime<Utc>) {
        for event in events {
            self.account = std::mem::take(&mut self.account).evolve(&event, now);
            match &event {
                Event::HoldPlaced(placed) => self.holds.push(placed.hold_id),
                Event::MovementReversed(reversed) => {
                    let is_original =
                        |(original, _): &&mut (RecordedMovement, i64)| original.version == reversed.reverses_version;
                    let original = self.movements.iter_mut().find(is_original).unwrap();
                    original.1 += reversed.amount.minor_units();
                }
                event => {
                    let version = self.account.opened().unwrap().version;
                    self.movements.extend(RecordedMovement::of_event(event, version, Uuid::nil()).map(|of| (of, 0)));
                }
            }
            self.events.push((now, event));
        }
    }

    fn used(&self, limit: LimitName, now: DateTime<Utc>) -> Option<i64> {
        self.account.opened().unwrap().limit_usage(limit, now).map(|usage| usage.used)
    }
}

/// Replaces random numbers by indexes of holds and movements that exist.
fn aimed(action: Action, holds: usize, movements: usize) -> Action {
    match action {
        Action::Capture { hold, amount, is_final } => Action::Capture { hold: hold % holds.max(1), amount, is_final },
        Action::Void(hold) => Action::Void(hold % holds.max(1)),
        Action::Reverse { movement, amount } => Action::Reverse { movement: movement % movements.max(1), amount },
        other => other,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_account_agrees_with_a_model_of_its_history(history in history()) {
        let (mut client, mut model, mut now) = (Client::new(), Model::default(), start());
        for (step, action) in history {
            now += TimeDelta::microseconds(step);
            let action = aimed(action, client.holds.len(), client.movements.len());
            let before = model.available(now);
            let executed = client.execute(action, now);
            prop_assert_eq!(executed.is_ok(), model.apply(action, now), "{:?} at {}: {:?}", action, now, executed);
            let account = client.account.opened().unwrap();
            prop_assert_eq!((account.balance, account.available(now)), (model.balance, model.available(now)));
            // The floor: no debit and no hold leaves less than nothing available.
            let is_debit = matches!(action, Action::Withdraw(_) | Action::Place { .. });
            prop_assert!(!is_debit || executed.is_err() || account.available(now) >= 0);
            let is_capture = matches!(action, Action::Capture { .. });
            prop_assert!(!is_capture || account.available(now) >= before);
            for (limit, characters, maximum) in
                [(LimitName::OutPerDay, 10, model.limits.out_per_day), (LimitName::OutPerMonth, 7, model.limits.out_per_month)]
            {
                prop_assert_eq!(client.used(limit, now), maximum.map(|_| model.used(now, characters)), "{}", now.day());
            }
            for (id, hold) in client.holds.iter().zip(&model.holds) {
                let active = account.holds.get(*id).filter(|hold| hold.is_active(now));
                let expected = hold.end(now).is_none().then_some(hold.amount - hold.captured);
                prop_assert_eq!(active.map(|hold| hold.remaining()), expected);
            }
        }
        // Σ: the balance is the sum of the events, and no reversed sum is above its original.
        let sum: i64 = client.events.iter().map(|(_, event)| event.balance_change()).sum();
        prop_assert_eq!(sum, client.account.opened().unwrap().balance);
        prop_assert!(client.movements.iter().all(|(original, reversed)| *reversed <= original.amount.minor_units()));
        prop_assert!(sum.abs() <= MINOR_UNITS_MAX);
    }

    #[test]
    fn a_recorded_expiry_changes_no_decision_and_no_figure(history in history()) {
        let (mut lazy, mut swept, mut now) = (Client::new(), Client::new(), start());
        for (step, action) in history {
            now += TimeDelta::microseconds(step);
            swept.execute(Action::Sweep(usize::MAX), now).unwrap();
            let action = match aimed(action, lazy.holds.len(), lazy.movements.len()) {
                Action::Sweep(_) => Action::Deposit(1),
                other => other,
            };
            prop_assert_eq!(lazy.execute(action, now), swept.execute(action, now), "{:?} at {}", action, now);
            let figures = |client: &Client| {
                let account = client.account.opened().unwrap();
                let used = [LimitName::OutPerDay, LimitName::OutPerMonth].map(|limit| client.used(limit, now));
                (account.status, account.balance, account.available(now), account.holds.active(now).count(), used)
            };
            prop_assert_eq!(figures(&lazy), figures(&swept));
        }
        // After the sweeper no expiry is left to record.
        lazy.execute(Action::Sweep(usize::MAX), now).unwrap();
        prop_assert_eq!(lazy.account.opened().unwrap().holds.over(now).count(), 0);
    }

    #[test]
    fn a_snapshot_with_holds_and_limits_resumes_the_fold(history in history(), cut in 0.0..=1.0) {
        let (mut client, mut now) = (Client::new(), start());
        for (step, action) in history {
            now += TimeDelta::microseconds(step);
            let _ = client.execute(aimed(action, client.holds.len(), client.movements.len()), now);
        }
        let cut = (client.events.len() as f64 * cut) as usize;
        let snapshot = serde_json::to_string(&fold_at(client.events[..cut].to_vec())).unwrap();
        let restored: Account = serde_json::from_str(&snapshot).unwrap();
        let later = client.events[cut..].iter();
        prop_assert_eq!(later.fold(restored, |account, (at, event)| account.evolve(event, *at)), client.account);
    }
}
