//! Freezing, unfreezing and closing an account: the allowed transitions of its status.

use passbook_domain::{Event, Rejection, Status};

use crate::{
    fixtures::*,
    given_when_then::{fold, given},
};

#[test]
fn an_open_account_can_be_frozen() {
    given([opened(5)]).when(freeze()).then(frozen());
}

#[test]
fn a_frozen_account_is_not_frozen_again() {
    given([opened(5), frozen()]).when(freeze()).then_rejected(Rejection::AccountFrozen);
}

#[test]
fn an_account_can_be_frozen_again_after_it_was_unfrozen() {
    given([opened(5), frozen(), unfrozen()]).when(freeze()).then(frozen());
}

#[test]
fn a_frozen_account_can_be_unfrozen() {
    given([opened(5), frozen()]).when(unfreeze()).then(unfrozen());
}

#[test]
fn an_open_account_is_not_unfrozen() {
    given([opened(5)]).when(unfreeze()).then_rejected(Rejection::AccountNotFrozen);
}

#[test]
fn an_empty_account_can_be_closed() {
    given([opened(5), withdrawn(5)]).when(close()).then(closed());
}

#[test]
fn an_account_with_money_is_not_closed() {
    given([opened(5)]).when(close()).then_rejected(balance_not_zero(5));
}

#[test]
fn a_frozen_account_is_not_closed_even_if_it_is_empty() {
    given([opened(0), frozen()]).when(close()).then_rejected(Rejection::AccountFrozen);
}

#[test]
fn a_frozen_account_is_reported_before_a_non_zero_balance() {
    given([opened(5), frozen()]).when(close()).then_rejected(Rejection::AccountFrozen);
}

#[test]
fn a_closed_account_stays_closed() {
    for action in [freeze(), unfreeze(), close()] {
        given([opened(0), closed()]).when(action).then_rejected(Rejection::AccountClosed);
    }
}

#[test]
fn the_events_determine_the_status() {
    let status = |events: Vec<Event>| fold(events).opened().unwrap().status;
    assert_eq!(status(vec![opened(0)]), Status::Open);
    assert_eq!(status(vec![opened(0), frozen()]), Status::Frozen);
    assert_eq!(status(vec![opened(0), frozen(), unfrozen()]), Status::Open);
    assert_eq!(status(vec![opened(0), closed()]), Status::Closed);
}

#[test]
fn a_status_has_the_same_name_in_json_and_in_the_read_tables() {
    for status in [Status::Open, Status::Frozen, Status::Closed] {
        assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
    }
}
