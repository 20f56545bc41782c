//! Holds: placing, capturing, voiding, and their end at `expires_at` whether it is recorded or not.

use chrono::{TimeDelta, Utc};
use passbook_domain::{
    AccountCommand, Currency, Event, Hold, HoldStatus, Rejection,
    command::{CaptureHold, CaptureTo, PlaceHold},
    event::{HoldCaptured, HoldPlaced, ReleaseCause, TransferReceived, TransferSent},
    holds::{ACTIVE_HOLDS_MAX, PLACEMENT_EXPIRIES_MAX},
    money::MINOR_UNITS_MAX,
    transfer::{self, Side, TransferRejection},
};

use crate::{
    fixtures::*,
    given_when_then::{fold, fold_at, given},
};

fn available(events: impl IntoIterator<Item = Event>, now: chrono::DateTime<Utc>) -> i64 {
    fold(events).opened().unwrap().available(now)
}

fn just_before_expiry() -> chrono::DateTime<Utc> {
    expiry() - TimeDelta::microseconds(1)
}

/// An open account with 200 active holds of 1 each, placed at versions 2 to 201.
fn with_many_holds(balance: i64) -> Vec<Event> {
    let holds = (2..).map(|version| placed(version, 1)).take(ACTIVE_HOLDS_MAX);
    [opened(balance)].into_iter().chain(holds).collect()
}

#[test]
fn a_hold_lowers_what_is_available_and_not_the_balance() {
    let account = fold([opened(500), placed(2, 300)]);
    let account = account.opened().unwrap();
    assert_eq!((account.balance, account.available(noon()), account.holds.held(noon())), (500, 200, 300));
    given([opened(500), placed(2, 300)]).when(withdraw(201)).then_rejected(not_available(500, 200, 201));
    given([opened(500), placed(2, 300)]).when(withdraw(200)).then(withdrawn(200));
}

#[test]
fn a_hold_is_placed_with_its_expiry_and_the_version_in_its_id() {
    given([opened(500)]).when(place(500)).then(placed(2, 500));
    given([opened(500), deposited(1)]).when(place(500)).then(placed(3, 500));
}

#[test]
fn a_hold_records_reference_and_metadata() {
    let mut movement = movement(5);
    (movement.reference, movement.metadata) = (Some("booking 9".into()), metadata(&[("room", "12")]));
    let place = AccountCommand::PlaceHold(PlaceHold { unique: UNIQUE, movement, expires_in_seconds: HOLD_SECONDS });
    given([opened(5)]).when(place).then(Event::HoldPlaced(HoldPlaced {
        hold_id: hold_at(2),
        amount: amount(5),
        expires_at: expiry(),
        reference: Some("booking 9".into()),
        metadata: metadata(&[("room", "12")]),
    }));
}

#[test]
fn a_hold_above_what_is_available_is_rejected() {
    given([opened(500), placed(2, 300)]).when(place(201)).then_rejected(not_available(500, 200, 201));
}

#[test]
fn of_six_holds_of_1000_on_5000_five_are_accepted() {
    let mut account = fold([opened(5_000)]);
    let mut accepted = 0;
    for _ in 0..6 {
        if let Ok(events) = account.decide(&place(1_000), noon()) {
            accepted += 1;
            account = events.iter().fold(account, |account, event| account.evolve(event, noon()));
        }
    }
    assert_eq!((accepted, account.opened().unwrap().available(noon())), (5, 0));
}

#[test]
fn a_capture_lowers_the_balance_and_its_hold() {
    let events = [opened(500), placed(2, 300), captured(2, 100, false)];
    let account = fold(events.clone());
    let account = account.opened().unwrap();
    assert_eq!((account.balance, account.available(noon()), account.holds.held(noon())), (400, 200, 200));
    given(events).when(capture(2, None, true)).then(captured(2, 200, true));
}

#[test]
fn a_final_capture_releases_what_is_left() {
    let account = fold([opened(500), placed(2, 300), captured(2, 100, true)]);
    let account = account.opened().unwrap();
    assert_eq!((account.balance, account.available(noon())), (400, 400));
    assert!(account.holds.is_empty());
}

#[test]
fn a_capture_of_all_that_is_left_ends_the_hold() {
    given([opened(500), placed(2, 300)]).when(capture(2, Some(300), false)).then(captured(2, 300, true));
    // Also if an event says otherwise.
    let account = fold([opened(500), placed(2, 300), captured(2, 300, false)]);
    assert!(account.opened().unwrap().holds.is_empty());
}

#[test]
fn a_capture_records_its_own_reference() {
    let mut capture = capture_of(2, Some(5), true);
    capture.reference = Some("meal".into());
    given([opened(5), placed(2, 5)]).when(AccountCommand::CaptureHold(capture)).then(Event::HoldCaptured(
        HoldCaptured { hold_id: hold_at(2), amount: amount(5), is_final: true, reference: Some("meal".into()) },
    ));
}

#[test]
fn a_capture_above_what_is_left_is_rejected_with_the_rest() {
    let exceeds = |remaining, minor_units| Rejection::ExceedsHold {
        remaining,
        amount: amount(minor_units),
        currency: Currency::EUR,
    };
    given([opened(500), placed(2, 300)]).when(capture(2, Some(301), true)).then_rejected(exceeds(300, 301));
    given([opened(500), placed(2, 300), captured(2, 100, false)])
        .when(capture(2, Some(201), false))
        .then_rejected(exceeds(200, 201));
}

#[test]
fn a_capture_needs_neither_available_money_nor_limits() {
    let mut limits = overdraft(300);
    let overdrawn = [opened(0), limits_set(limits), placed(3, 300), limits_set(overdraft(0))];
    assert_eq!(available(overdrawn.clone(), noon()), -300);
    given(overdrawn).when(capture(3, None, true)).then(captured(3, 300, true));
    (limits.per_movement, limits.out_per_day, limits.out_per_month) = (Some(0), Some(0), Some(0));
    given([opened(300), placed(2, 300), limits_set(limits)]).when(capture(2, None, true)).then(captured(2, 300, true));
}

#[test]
fn a_hold_ends_once() {
    let holds = [opened(500), placed(2, 300)];
    for end in [captured(2, 10, true), captured(2, 300, true), released(2, 300, ReleaseCause::Voided)] {
        for command in [capture(2, Some(1), true), void(2)] {
            let ended = holds.iter().cloned().chain([end.clone()]);
            given(ended).when(command).then_rejected(Rejection::HoldNotActive);
        }
    }
}

#[test]
fn a_hold_that_was_never_placed_is_not_found() {
    let unplaced = [hold_at(3), UNIQUE, uuid::Uuid::nil()];
    for hold_id in unplaced {
        let mut capture = capture_of(2, None, true);
        (capture.hold_id, capture.was_placed) = (hold_id, false);
        let void = AccountCommand::VoidHold { hold_id, was_placed: false, reason: None };
        for command in [AccountCommand::CaptureHold(capture), void] {
            given([opened(5), placed(2, 5)]).when(command).then_rejected(Rejection::HoldNotFound);
        }
    }
}

#[test]
fn a_void_releases_all_that_is_left() {
    let events = [opened(500), placed(2, 300), captured(2, 100, false)];
    given(events.clone()).when(void(2)).then(released(2, 200, ReleaseCause::Voided));
    let voided = events.into_iter().chain([released(2, 200, ReleaseCause::Voided)]);
    assert_eq!(available(voided, noon()), 400);
}

#[test]
fn a_hold_counts_until_the_microsecond_before_its_expiry() {
    let events = || [opened(500), placed(2, 500)];
    assert_eq!(available(events(), just_before_expiry()), 0);
    assert_eq!(available(events(), expiry()), 500);
    given(events()).at(just_before_expiry()).when(withdraw(1)).then_rejected(not_available(500, 0, 1));
    given(events()).at(expiry()).when(withdraw(500)).then(withdrawn(500));
    given(events()).at(just_before_expiry()).when(capture(2, None, true)).then(captured(2, 500, true));
    given(events()).at(expiry()).when(capture(2, None, true)).then_rejected(Rejection::HoldNotActive);
    given(events()).at(just_before_expiry()).when(void(2)).then(released(2, 500, ReleaseCause::Voided));
    given(events()).at(expiry()).when(void(2)).then_rejected(Rejection::HoldNotActive);
}

#[test]
fn placing_a_hold_first_records_the_expiry_of_holds_that_are_over() {
    let later = match placed(4, 500) {
        Event::HoldPlaced(hold) => {
            Event::HoldPlaced(HoldPlaced { expires_at: expiry() + TimeDelta::seconds(HOLD_SECONDS.into()), ..hold })
        }
        other => other,
    };
    given([opened(500), placed(2, 400)])
        .at(expiry())
        .when(place(500))
        .then([released(2, 400, ReleaseCause::Expired), later]);
}

#[test]
fn expiries_are_recorded_up_to_the_wanted_number() {
    let release = |holds_max| AccountCommand::ReleaseExpired { holds_max };
    let events = || [opened(500), placed(2, 1), placed(3, 2), captured(3, 1, false), placed(5, 3), frozen()];
    given(events()).at(just_before_expiry()).when(release(9)).then([]);
    let expired = |version, left| released(version, left, ReleaseCause::Expired);
    given(events()).at(expiry()).when(release(2)).then([expired(2, 1), expired(3, 1)]);
    given(events()).at(expiry()).when(release(9)).then([expired(2, 1), expired(3, 1), expired(5, 3)]);
    given([]).when(release(9)).then_rejected(Rejection::AccountNotFound);
}

#[test]
fn an_account_has_at_most_200_active_holds() {
    given(with_many_holds(500)).when(place(1)).then_rejected(Rejection::TooManyHolds);
    given(with_many_holds(200)).when(place(1)).then_rejected(Rejection::TooManyHolds);
    let one_less = with_many_holds(500).into_iter().chain([captured(100, 1, true)]);
    given(one_less).when(place(1)).then(placed(203, 1));
}

#[test]
fn holds_that_are_over_do_not_count_against_the_maximum() {
    let mut account = fold(with_many_holds(200));
    for number in 1..=ACTIVE_HOLDS_MAX {
        let events = account.decide(&place(1), expiry()).unwrap();
        assert!(events.len() <= PLACEMENT_EXPIRIES_MAX + 1, "a placement records few expiries");
        account = events.iter().fold(account, |account, event| account.evolve(event, expiry()));
        let opened = account.opened().unwrap();
        let [active, over] = [opened.holds.active(expiry()).count(), opened.holds.over(expiry()).count()];
        assert_eq!((active, over), (number, ACTIVE_HOLDS_MAX.saturating_sub(number * PLACEMENT_EXPIRIES_MAX)));
        assert!(opened.holds.get(hold_at(opened.version)).is_some(), "the id contains the version of its own event");
    }
    assert_eq!(account.decide(&place(1), expiry()), Err(Rejection::TooManyHolds));
}

#[test]
fn an_account_with_active_holds_is_not_closed() {
    given([opened(0), limits_set(overdraft(5)), placed(3, 5)]).when(close()).then_rejected(Rejection::HoldsActive);
    given([opened(5), placed(2, 5)]).when(close()).then_rejected(Rejection::HoldsActive);
}

#[test]
fn closing_first_records_the_expiry_of_holds_that_are_over() {
    given([opened(5), placed(2, 5), withdrawn(5)])
        .at(expiry())
        .when(close())
        .then([released(2, 5, ReleaseCause::Expired), closed()]);
}

#[test]
fn a_frozen_account_voids_holds_and_neither_places_nor_captures() {
    let events = || [opened(500), placed(2, 300), frozen()];
    given(events()).when(place(1)).then_rejected(Rejection::AccountFrozen);
    given(events()).when(capture(2, None, true)).then_rejected(Rejection::AccountFrozen);
    given(events()).when(void(2)).then(released(2, 300, ReleaseCause::Voided));
}

fn never_placed() -> AccountCommand {
    AccountCommand::CaptureHold(CaptureHold { was_placed: false, ..capture_of(2, None, true) })
}

#[test]
fn the_first_refusal_of_a_hold_is_reported() {
    let dollars = || {
        let (movement, expires_in_seconds) = (in_currency(Currency::USD, 1_000), HOLD_SECONDS);
        AccountCommand::PlaceHold(PlaceHold { unique: UNIQUE, movement, expires_in_seconds })
    };
    given([]).when(dollars()).then_rejected(Rejection::AccountNotFound);
    given([opened(0), closed()]).when(dollars()).then_rejected(Rejection::AccountClosed);
    given([opened(0), frozen()]).when(dollars()).then_rejected(Rejection::AccountFrozen);
    given(with_many_holds(500)).when(dollars()).then_rejected(Rejection::CurrencyMismatch);
    given([opened(5), closed()]).when(never_placed()).then_rejected(Rejection::HoldNotFound);
    given([opened(5), closed()]).when(capture(2, None, true)).then_rejected(Rejection::AccountClosed);
    given([opened(5), closed()]).when(void(2)).then_rejected(Rejection::AccountClosed);
}

fn capture_to(minor_units: Option<i64>, is_final: bool) -> CaptureTo {
    CaptureTo { transfer_id: TRANSFER, from: FROM, to: TO, capture: capture_of(2, minor_units, is_final) }
}

fn both_sides(minor_units: i64, is_final: bool) -> (Event, Event) {
    let (hold_id, is_final) = (Some(hold_at(2)), Some(is_final));
    (
        Event::TransferSent(TransferSent { hold_id, is_final, ..sent_side(minor_units) }),
        Event::TransferReceived(TransferReceived { hold_id, ..received_side(minor_units) }),
    )
}

#[test]
fn a_capture_to_another_account_is_a_transfer_that_names_the_hold() {
    let holder = || given([opened(500), placed(2, 300)]);
    holder().and([opened(0)]).when_captured(&capture_to(None, true)).then(both_sides(300, true));
    holder().and([opened(0)]).when_captured(&capture_to(Some(100), false)).then(both_sides(100, false));
    holder().and([opened(0)]).when_captured(&capture_to(Some(300), false)).then(both_sides(300, true));

    let (sent, received) = both_sides(100, false);
    let holder = fold([opened(500), placed(2, 300), sent]);
    let holder = holder.opened().unwrap();
    assert_eq!((holder.balance, holder.holds.held(noon()), holder.available(noon())), (400, 200, 200));
    assert_eq!(available([opened(0), received], noon()), 100);
}

#[test]
fn a_capture_to_another_account_is_refused_by_either_account() {
    let holder = || given([opened(500), placed(2, 300)]);
    for (receiver, rejection) in [
        (vec![], Rejection::AccountNotFound),
        (vec![opened(0), closed()], Rejection::AccountClosed),
        (vec![opened(0), frozen()], Rejection::AccountFrozen),
        (vec![opened_in(Currency::USD, 0)], Rejection::CurrencyMismatch),
        (vec![opened(MINOR_UNITS_MAX - 299)], Rejection::BalanceLimitExceeded),
    ] {
        holder().and(receiver).when_captured(&capture_to(None, true)).then_rejected(rejection);
    }
    let of_holder = [
        (vec![], Rejection::AccountNotFound),
        (vec![opened(500), placed(2, 300), frozen()], Rejection::AccountFrozen),
        (vec![opened(500), placed(2, 300), captured(2, 1, true)], Rejection::HoldNotActive),
    ];
    for (holder, rejection) in of_holder {
        given(holder).and([opened(0)]).when_captured(&capture_to(None, true)).then_rejected(rejection);
    }
}

#[test]
fn what_a_capture_does_not_find_ranks_before_all_else() {
    let mut unplaced = capture_to(None, true);
    unplaced.capture.was_placed = false;
    let refused = |holder: Vec<Event>, receiver: Vec<Event>| {
        let refused = transfer::decide_capture(&fold(holder), &fold(receiver), &unplaced, noon());
        refused.map_err(|TransferRejection { rejection, side }| (rejection, side)).unwrap_err()
    };
    assert_eq!(refused(vec![], vec![]), (Rejection::AccountNotFound, Side::Sender));
    assert_eq!(refused(vec![opened(500)], vec![]), (Rejection::AccountNotFound, Side::Receiver));
    assert_eq!(
        refused(vec![opened(500), frozen()], vec![opened(0), closed()]),
        (Rejection::HoldNotFound, Side::Sender)
    );
}

#[test]
fn the_status_of_a_hold_says_how_it_ended() {
    let Event::HoldPlaced(event) = placed(2, 300) else { unreachable!() };
    let hold = Hold::placed(&event, noon());
    let (sent, _) = both_sides(300, true);
    for (event, captured_sum, status) in [
        (captured(2, 100, false), 100, HoldStatus::Active),
        (captured(2, 100, true), 100, HoldStatus::Captured),
        (captured(2, 300, false), 300, HoldStatus::Captured),
        (sent, 300, HoldStatus::Captured),
        (released(2, 300, ReleaseCause::Voided), 0, HoldStatus::Voided),
        (released(2, 300, ReleaseCause::Expired), 0, HoldStatus::Expired),
    ] {
        let (after, found) = hold.evolve(&event);
        assert_eq!((after.captured, found), (captured_sum, status), "{event:?}");
        assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
    }
}

#[test]
fn an_event_of_an_unknown_hold_moves_only_the_balance() {
    let account = fold_at([(noon(), opened(500)), (noon(), captured(9, 100, true))]);
    assert_eq!(account.opened().unwrap().available(noon()), 400);
}
