//! Reversals: in part and whole, of every kind of movement, never more than the original in sum.

use passbook_domain::{
    AccountCommand, Currency, Event, Rejection,
    command::{Reverse, ReverseTransfer, ReversedSide},
    event::MovementReversed,
    money::MINOR_UNITS_MAX,
    reversal::{Effect, MovementKind, RecordedMovement},
};
use uuid::{Uuid, uuid};

use crate::{
    event_samples::one_of_each,
    fixtures::*,
    given_when_then::{fold, given},
};

const EVENT: Uuid = uuid!("01900000-0000-7000-8000-00000000000e");

fn original(event: &Event) -> RecordedMovement {
    RecordedMovement::of_event(event, 2, EVENT).unwrap()
}

/// A reversal of this event after `reversed` of it was reversed.
fn reverse(event: &Event, reversed: i64, minor_units: Option<i64>) -> AccountCommand {
    let (amount, reason) = (minor_units.map(amount), Some("returned".to_owned()));
    let original = Some(original(event));
    AccountCommand::Reverse(Reverse { version: 2, event_id: Some(EVENT), original, reversed, amount, reason })
}

fn reversed(effect: Effect, minor_units: i64) -> Event {
    Event::MovementReversed(MovementReversed {
        reverses_version: 2,
        reverses_event_id: EVENT,
        effect,
        amount: amount(minor_units),
        transfer_id: None,
        reason: Some("returned".into()),
    })
}

fn exceeds(reversible: i64, minor_units: i64) -> Rejection {
    Rejection::ExceedsReversible { reversible, amount: amount(minor_units), currency: Currency::EUR }
}

#[test]
fn every_kind_of_movement_of_one_account_is_reversed() {
    for (movement, effect) in [
        (opened(500), Effect::Debit),
        (deposited(500), Effect::Debit),
        (withdrawn(500), Effect::Credit),
        (captured(2, 500, true), Effect::Credit),
    ] {
        given([opened(500)]).when(reverse(&movement, 0, None)).then(reversed(effect, 500));
        given([opened(500)]).when(reverse(&movement, 0, Some(1))).then(reversed(effect, 1));
    }
}

#[test]
fn a_reversal_moves_the_balance_back() {
    let balance = |effect| fold([opened(500), reversed(effect, 100)]).opened().unwrap().balance;
    assert_eq!((balance(Effect::Credit), balance(Effect::Debit)), (600, 400));
}

#[test]
fn only_events_that_move_money_are_movements() {
    let moves = |event: &Event| RecordedMovement::of_event(event, 2, EVENT).is_some();
    for event in one_of_each() {
        assert_eq!(moves(&event), event.balance_change() != 0, "{event:?}");
    }
    assert!(!moves(&opened(0)), "an opening without a deposit");
    assert_eq!(original(&sent(5)).kind, MovementKind::Sent { transfer_id: TRANSFER, to: TO });
    assert_eq!(original(&received(5)).kind, MovementKind::Received { transfer_id: TRANSFER, from: FROM });
}

#[test]
fn reversals_are_never_more_than_the_original_in_sum() {
    let events = || [opened(5_000)];
    let deposit = deposited(500);
    given(events()).when(reverse(&deposit, 0, Some(501))).then_rejected(exceeds(500, 501));
    given(events()).when(reverse(&deposit, 300, Some(201))).then_rejected(exceeds(200, 201));
    given(events()).when(reverse(&deposit, 300, Some(200))).then(reversed(Effect::Debit, 200));
    given(events()).when(reverse(&deposit, 300, None)).then(reversed(Effect::Debit, 200));
    for wanted in [None, Some(1)] {
        given(events()).when(reverse(&deposit, 500, wanted)).then_rejected(Rejection::AlreadyReversed);
    }
}

#[test]
fn a_reversal_is_not_reversed() {
    let reversal = reversed(Effect::Debit, 5);
    given([opened(5)]).when(reverse(&reversal, 0, None)).then_rejected(Rejection::NotReversible);
}

#[test]
fn the_paying_account_needs_available_money_and_no_limits() {
    let deposit = deposited(500);
    given([opened(500), placed(2, 1)]).when(reverse(&deposit, 0, None)).then_rejected(not_available(500, 499, 500));
    let mut limits = overdraft(500);
    (limits.per_movement, limits.out_per_day, limits.out_per_month) = (Some(0), Some(0), Some(0));
    given([opened(0), limits_set(limits)]).when(reverse(&deposit, 0, None)).then(reversed(Effect::Debit, 500));
}

#[test]
fn the_credited_account_stays_within_the_maximum() {
    let withdrawal = withdrawn(5);
    given([opened(MINOR_UNITS_MAX - 4)])
        .when(reverse(&withdrawal, 0, None))
        .then_rejected(Rejection::BalanceLimitExceeded);
    given([opened(MINOR_UNITS_MAX - 4)]).when(reverse(&withdrawal, 0, Some(4))).then(reversed(Effect::Credit, 4));
}

#[test]
fn a_reversal_neither_counts_for_limits_nor_gives_back() {
    use passbook_domain::{LimitName, Limits};
    let limits = Limits { out_per_day: Some(100), ..Limits::default() };
    let used = |events: Vec<Event>| {
        let account = fold(events);
        account.opened().unwrap().limit_usage(LimitName::OutPerDay, noon()).unwrap().used
    };
    assert_eq!(used(vec![opened(500), limits_set(limits), reversed(Effect::Debit, 50)]), 0);
    assert_eq!(used(vec![opened(500), withdrawn(50), limits_set(limits), reversed(Effect::Credit, 50)]), 50);
}

#[test]
fn the_status_is_reported_before_the_original_and_that_before_funds() {
    let reversal = reversed(Effect::Debit, 5);
    for command in [reverse(&reversal, 0, None), reverse(&deposited(5), 5, None), reverse(&deposited(5), 0, Some(6))] {
        given([]).when(command.clone()).then_rejected(Rejection::AccountNotFound);
        given([opened(0), closed()]).when(command.clone()).then_rejected(Rejection::AccountClosed);
        given([opened(0), frozen()]).when(command).then_rejected(Rejection::AccountFrozen);
    }
    given([opened(0)]).when(reverse(&deposited(5), 0, Some(6))).then_rejected(exceeds(5, 6));
}

fn reverse_transfer(reversed: i64, minor_units: Option<i64>) -> ReverseTransfer {
    ReverseTransfer {
        account_id: TO,
        transfer_id: TRANSFER,
        sent: ReversedSide { account_id: FROM, version: 3, event_id: EVENT },
        received: ReversedSide { account_id: TO, version: 4, event_id: UNIQUE },
        original: amount(500),
        reversed,
        amount: minor_units.map(amount),
        reason: None,
    }
}

fn both_reversed(minor_units: i64) -> (Event, Event) {
    let side = |reverses_version, reverses_event_id, effect| {
        let (amount, transfer_id) = (amount(minor_units), Some(TRANSFER));
        let reason = None;
        Event::MovementReversed(MovementReversed {
            reverses_version,
            reverses_event_id,
            effect,
            amount,
            transfer_id,
            reason,
        })
    };
    (side(3, EVENT, Effect::Credit), side(4, UNIQUE, Effect::Debit))
}

#[test]
fn a_reversed_transfer_is_recorded_on_both_accounts() {
    let (sender, receiver) = (|| given([opened(0)]), || [opened(500)]);
    sender().and(receiver()).when_reversed(&reverse_transfer(0, None)).then(both_reversed(500));
    sender().and(receiver()).when_reversed(&reverse_transfer(200, None)).then(both_reversed(300));
    sender().and(receiver()).when_reversed(&reverse_transfer(0, Some(1))).then(both_reversed(1));
}

#[test]
fn a_transfer_is_reversed_up_to_its_amount() {
    let refused =
        |reversed, wanted| given([opened(0)]).and([opened(500)]).when_reversed(&reverse_transfer(reversed, wanted));
    refused(0, Some(501)).then_rejected(exceeds(500, 501));
    refused(500, None).then_rejected(Rejection::AlreadyReversed);
}

#[test]
fn either_account_can_refuse_the_reversal_of_a_transfer() {
    for (sender, receiver, rejection) in [
        (vec![], vec![opened(500)], Rejection::AccountNotFound),
        (vec![opened(0), closed()], vec![opened(500), frozen()], Rejection::AccountClosed),
        (vec![opened(0), frozen()], vec![opened(500)], Rejection::AccountFrozen),
        (vec![opened(0)], vec![opened(500), frozen()], Rejection::AccountFrozen),
        (vec![opened(0)], vec![opened(0), closed()], Rejection::AccountClosed),
        (vec![opened(0)], vec![opened(499)], insufficient_funds(499, 500)),
        (vec![opened(0)], vec![opened(500), placed(2, 1)], not_available(500, 499, 500)),
        (vec![opened(MINOR_UNITS_MAX)], vec![opened(500)], Rejection::BalanceLimitExceeded),
    ] {
        given(sender).and(receiver).when_reversed(&reverse_transfer(0, None)).then_rejected(rejection);
    }
}

#[test]
fn a_reversal_revives_no_hold() {
    let events = [opened(500), placed(2, 300), captured(2, 300, true), reversed(Effect::Credit, 300)];
    assert_eq!(fold(events).opened().unwrap().available(noon()), 500);
}
