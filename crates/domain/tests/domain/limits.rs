//! The overdraft and the limits on money that leaves an account, in UTC days and months of the log.

use chrono::{DateTime, TimeDelta, Utc};
use passbook_domain::{
    Account, AccountCommand, Currency, Event, LimitName, Limits, Rejection, Status,
    event::{HoldPlaced, ReleaseCause, TransferSent},
    limits::LimitUsage,
    money::MINOR_UNITS_MAX,
    transfer::Side,
};

use crate::{
    fixtures::*,
    given_when_then::{fold, fold_at, given},
};

const LAST_OF_JANUARY: &str = "2026-01-31T23:59:59.999999Z";
const FIRST_OF_FEBRUARY: &str = "2026-02-01T00:00:00Z";

fn per_movement(maximum: i64) -> Limits {
    Limits { per_movement: Some(maximum), ..Limits::default() }
}

fn per_day(maximum: i64) -> Limits {
    Limits { out_per_day: Some(maximum), ..Limits::default() }
}

fn per_month(maximum: i64) -> Limits {
    Limits { out_per_month: Some(maximum), ..Limits::default() }
}

fn exceeded(limit: LimitName, usage: (i64, i64), resets_at: Option<&str>, minor_units: i64) -> Rejection {
    let ((maximum, used), resets_at) = (usage, resets_at.map(time));
    Rejection::LimitExceeded { limit, maximum, used, resets_at, amount: amount(minor_units), currency: Currency::EUR }
}

/// A hold that is placed at this time and lasts for `lasting`.
fn placed_for(version: i64, minor_units: i64, at: DateTime<Utc>, lasting: TimeDelta) -> Event {
    match placed(version, minor_units) {
        Event::HoldPlaced(hold) => Event::HoldPlaced(HoldPlaced { expires_at: at + lasting, ..hold }),
        other => other,
    }
}

fn used(account: &Account, limit: LimitName, now: DateTime<Utc>) -> i64 {
    account.opened().unwrap().limit_usage(limit, now).unwrap().used
}

fn both_limits() -> Limits {
    Limits { out_per_day: Some(1_000), out_per_month: Some(1_000), ..Limits::default() }
}

/// What counts for the day and for the month.
fn used_of_both(events: Vec<(DateTime<Utc>, Event)>, now: DateTime<Utc>) -> (i64, i64) {
    let start =
        [(time("2026-01-01T00:00:00Z"), opened(10_000)), (time("2026-01-01T00:00:00Z"), limits_set(both_limits()))];
    let account = fold_at(start.into_iter().chain(events));
    (used(&account, LimitName::OutPerDay, now), used(&account, LimitName::OutPerMonth, now))
}

#[test]
fn an_overdraft_lets_the_balance_go_down_to_its_negative() {
    let events = || [opened(100), limits_set(overdraft(50))];
    given(events()).when(withdraw(151)).then_rejected(not_available(100, 150, 151));
    given(events()).when(withdraw(150)).then(withdrawn(150));
    let overdrawn = fold(events().into_iter().chain([withdrawn(150)]));
    let account = overdrawn.opened().unwrap();
    assert_eq!((account.balance, account.available(noon())), (-50, 0));
}

#[test]
fn a_lowered_overdraft_stops_only_further_debits() {
    let events = || [opened(0), limits_set(overdraft(50)), withdrawn(50)];
    given(events()).when(AccountCommand::SetLimits(overdraft(0))).then(limits_set(overdraft(0)));
    let lowered = || events().into_iter().chain([limits_set(overdraft(0))]);
    assert_eq!(fold(lowered()).opened().unwrap().available(noon()), -50);
    given(lowered()).when(withdraw(1)).then_rejected(not_available(-50, -50, 1));
    given(lowered()).when(place(1)).then_rejected(not_available(-50, -50, 1));
    given(lowered()).when(deposit(1)).then(deposited(1));
}

#[test]
fn balance_and_overdraft_together_stay_within_the_maximum() {
    let set = |limits| AccountCommand::SetLimits(limits);
    given([opened(5)]).when(set(overdraft(MINOR_UNITS_MAX - 5))).then(limits_set(overdraft(MINOR_UNITS_MAX - 5)));
    given([opened(5)]).when(set(overdraft(MINOR_UNITS_MAX - 4))).then_rejected(Rejection::BalanceLimitExceeded);
    let full = || [opened(5), limits_set(overdraft(MINOR_UNITS_MAX - 10))];
    given(full()).when(deposit(5)).then(deposited(5));
    given(full()).when(deposit(6)).then_rejected(Rejection::BalanceLimitExceeded);
    given([opened(9)])
        .and(full())
        .when(transfer(movement(6)))
        .then_rejected(Side::Receiver, Rejection::BalanceLimitExceeded);
}

#[test]
fn an_overdrawn_account_is_not_closed() {
    given([opened(0), limits_set(overdraft(5)), withdrawn(5)]).when(close()).then_rejected(balance_not_zero(-5));
    given([opened(0), limits_set(overdraft(5))]).when(close()).then(closed());
}

#[test]
fn limits_are_set_on_open_and_frozen_accounts() {
    given([opened(0), frozen()]).when(AccountCommand::SetLimits(per_day(5))).then(limits_set(per_day(5)));
    given([opened(0), closed()]).when(AccountCommand::SetLimits(per_day(5))).then_rejected(Rejection::AccountClosed);
    given([]).when(AccountCommand::SetLimits(per_day(5))).then_rejected(Rejection::AccountNotFound);
    assert_eq!(fold([opened(0), frozen(), limits_set(per_day(5))]).opened().unwrap().status, Status::Frozen);
}

#[test]
fn setting_limits_replaces_all_of_them() {
    let account = fold([opened(0), limits_set(per_day(5)), limits_set(per_month(7))]);
    assert_eq!(account.opened().unwrap().limits, per_month(7));
    assert_eq!(account.opened().unwrap().limit_usage(LimitName::OutPerDay, noon()), None);
}

#[test]
fn a_single_movement_is_limited_if_money_leaves() {
    let events = || [opened(500), limits_set(per_movement(100))];
    let rejection = exceeded(LimitName::PerMovement, (100, 0), None, 101);
    given(events()).when(withdraw(101)).then_rejected(rejection);
    given(events()).when(place(101)).then_rejected(rejection);
    given(events()).and([opened(0)]).when(transfer(movement(101))).then_rejected(Side::Sender, rejection);
    given(events()).when(withdraw(100)).then(withdrawn(100));
    given(events()).when(deposit(101)).then(deposited(101));
    given([opened(500)]).and(events()).when(transfer(movement(101))).then((sent(101), received(101)));
}

#[test]
fn everything_that_leaves_counts_for_the_day_and_the_month() {
    let events = [withdrawn(1), sent(10), placed(5, 100), deposited(1_000), received(1_000)];
    assert_eq!(used_of_both(events.map(|event| (noon(), event)).into(), noon()), (111, 111));
}

#[test]
fn a_limit_counts_from_the_start_of_its_period_even_if_it_is_set_later() {
    let events = [opened(500), withdrawn(60), limits_set(per_day(100))];
    let usage = fold(events.clone()).opened().unwrap().limit_usage(LimitName::OutPerDay, noon()).unwrap();
    let resets_at = Some(time(FIRST_OF_FEBRUARY));
    assert_eq!(usage, LimitUsage { maximum: 100, used: 60, remaining: 40, resets_at });
    given(events.clone()).when(withdraw(40)).then(withdrawn(40));
    let rejection = exceeded(LimitName::OutPerDay, (100, 60), Some(FIRST_OF_FEBRUARY), 41);
    given(events).when(withdraw(41)).then_rejected(rejection);
}

#[test]
fn counters_start_at_zero_at_midnight_and_at_the_end_of_a_month() {
    let spent = || vec![(time("2026-01-30T10:00:00Z"), withdrawn(100)), (noon(), withdrawn(10))];
    assert_eq!(used_of_both(spent(), time("2026-01-30T23:59:59.999999Z")).1, 110);
    assert_eq!(used_of_both(spent(), time(LAST_OF_JANUARY)), (10, 110));
    assert_eq!(used_of_both(spent(), time(FIRST_OF_FEBRUARY)), (0, 0));
    let later = spent().into_iter().chain([(time(FIRST_OF_FEBRUARY), withdrawn(1))]).collect();
    assert_eq!(used_of_both(later, time("2026-02-01T12:00:00Z")), (1, 1));
}

#[test]
fn a_limit_of_zero_lets_nothing_leave() {
    let rejection = exceeded(LimitName::OutPerMonth, (0, 0), Some(FIRST_OF_FEBRUARY), 1);
    given([opened(5), limits_set(per_month(0))]).when(withdraw(1)).then_rejected(rejection);
}

#[test]
fn funds_are_reported_before_limits_and_limits_in_their_order() {
    let all = Limits { overdraft: 0, per_movement: Some(1), out_per_day: Some(1), out_per_month: Some(1) };
    given([opened(1), limits_set(all)]).when(withdraw(2)).then_rejected(insufficient_funds(1, 2));
    let resets_at = Some(FIRST_OF_FEBRUARY);
    let mut limits = all;
    given([opened(9), limits_set(limits)]).when(withdraw(2)).then_rejected(exceeded(
        LimitName::PerMovement,
        (1, 0),
        None,
        2,
    ));
    limits.per_movement = None;
    given([opened(9), limits_set(limits)]).when(withdraw(2)).then_rejected(exceeded(
        LimitName::OutPerDay,
        (1, 0),
        resets_at,
        2,
    ));
    limits.out_per_day = Some(2);
    given([opened(9), limits_set(limits)]).when(withdraw(2)).then_rejected(exceeded(
        LimitName::OutPerMonth,
        (1, 0),
        resets_at,
        2,
    ));
}

#[test]
fn a_capture_does_not_count_again() {
    let captured_sent = TransferSent { hold_id: Some(hold_at(3)), is_final: Some(false), ..sent_side(40) };
    let events = [placed(3, 100), captured(3, 20, false), Event::TransferSent(captured_sent)];
    assert_eq!(used_of_both(events.map(|event| (noon(), event)).into(), noon()), (100, 100));
}

#[test]
fn the_end_of_a_hold_gives_back_what_it_releases() {
    let ends: [(Event, i64); 4] = [
        (released(3, 100, ReleaseCause::Voided), 0),
        (released(3, 100, ReleaseCause::Expired), 0),
        (captured(3, 30, true), 30),
        (Event::TransferSent(TransferSent { hold_id: Some(hold_at(3)), is_final: Some(true), ..sent_side(40) }), 40),
    ];
    for (end, left) in ends {
        let events = vec![(noon(), placed(3, 100)), (noon(), end)];
        assert_eq!(used_of_both(events, noon()), (left, left));
    }
}

#[test]
fn a_hold_gives_back_only_in_the_period_of_its_placement() {
    let placed_at = |at: &str| (time(at), placed_for(3, 100, time(at), TimeDelta::days(60)));
    let voided_at = |at: &str| (time(at), released(3, 100, ReleaseCause::Voided));
    let spent_at = |at: &str| (time(at), withdrawn(7));
    // The day before: the month only.
    let events = vec![placed_at("2026-01-30T23:59:59Z"), spent_at("2026-01-31T01:00:00Z"), voided_at(LAST_OF_JANUARY)];
    assert_eq!(used_of_both(events, time(LAST_OF_JANUARY)), (7, 7));
    // The month before: neither.
    let events =
        vec![placed_at(LAST_OF_JANUARY), spent_at(FIRST_OF_FEBRUARY), voided_at("2026-02-01T00:00:00.000001Z")];
    assert_eq!(used_of_both(events, time("2026-02-01T12:00:00Z")), (7, 7));
    // The same month a year later: neither.
    let events =
        vec![placed_at("2025-01-31T12:00:00Z"), spent_at("2026-01-31T11:00:00Z"), voided_at("2026-01-31T12:00:00Z")];
    assert_eq!(used_of_both(events, time(LAST_OF_JANUARY)), (7, 7));
}

#[test]
fn a_hold_that_is_over_is_given_back_before_its_expiry_is_recorded() {
    let hold = || (noon(), placed_for(3, 100, noon(), TimeDelta::hours(1)));
    assert_eq!(used_of_both(vec![hold()], expiry() - TimeDelta::microseconds(1)), (100, 100));
    assert_eq!(used_of_both(vec![hold()], expiry()), (0, 0));
    let recorded = (expiry(), released(3, 100, ReleaseCause::Expired));
    assert_eq!(used_of_both(vec![hold(), recorded], expiry()), (0, 0));
    // A hold of the day before counts for the month only.
    let yesterday = time("2026-01-30T12:00:00Z");
    let hold = || (yesterday, placed_for(3, 100, yesterday, TimeDelta::days(1)));
    assert_eq!(used_of_both(vec![hold()], noon() - TimeDelta::microseconds(1)), (0, 100));
    assert_eq!(used_of_both(vec![hold()], noon()), (0, 0));
}

#[test]
fn a_counter_beyond_64_bits_neither_panics_nor_wraps() {
    let pairs = (0..1_100).flat_map(|_| [(noon(), withdrawn(MINOR_UNITS_MAX)), (noon(), deposited(MINOR_UNITS_MAX))]);
    let start = [(noon(), opened(MINOR_UNITS_MAX)), (noon(), limits_set(per_day(5)))];
    let account = fold_at(start.into_iter().chain(pairs));
    assert_eq!(used(&account, LimitName::OutPerDay, noon()), MINOR_UNITS_MAX);
    let snapshot = serde_json::to_string(&account).unwrap();
    assert_eq!(serde_json::from_str::<Account>(&snapshot).unwrap(), account);
}
