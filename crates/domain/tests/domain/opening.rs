//! An account is opened exactly once, and an account that was not opened accepts no other command.

use passbook_domain::{Account, Currency, Rejection, Status};

use crate::{
    fixtures::*,
    given_when_then::{fold, given},
};

#[test]
fn an_opening_records_owner_currency_and_initial_deposit() {
    given([]).when(open(10_000)).then(opened(10_000));
}

#[test]
fn an_account_may_be_opened_empty() {
    given([]).when(open(0)).then(opened(0));
}

#[test]
fn an_opened_account_is_open_and_holds_its_initial_deposit() {
    let account = fold([opened_in(Currency::JPY, 700)]);
    let opened = account.opened().unwrap();
    assert_eq!(
        (&*opened.owner, opened.currency, opened.status, opened.balance),
        (OWNER, Currency::JPY, Status::Open, 700)
    );
}

#[test]
fn an_account_is_not_opened_twice() {
    given([opened(0)]).when(open(0)).then_rejected(Rejection::AccountExists);
}

#[test]
fn a_frozen_account_is_not_opened_again() {
    given([opened(0), frozen()]).when(open(0)).then_rejected(Rejection::AccountExists);
}

#[test]
fn a_closed_account_is_not_opened_again() {
    given([opened(0), closed()]).when(open(0)).then_rejected(Rejection::AccountExists);
}

#[test]
fn an_unopened_account_accepts_only_an_opening() {
    for action in [deposit(1), withdraw(1), freeze(), unfreeze(), close()] {
        given([]).when(action).then_rejected(Rejection::AccountNotFound);
    }
}

#[test]
fn an_account_without_events_has_no_book() {
    assert_eq!(Account::default().opened(), Err(Rejection::AccountNotFound));
}

#[test]
fn evolve_ignores_a_second_opening() {
    assert_eq!(fold([opened(5), opened_in(Currency::USD, 9)]), fold([opened(5)]));
}

#[test]
fn evolve_ignores_events_before_the_opening() {
    for event in [deposited(1), withdrawn(1), sent(1), received(1), frozen(), unfrozen(), closed()] {
        assert_eq!(fold([event]), Account::Unopened);
    }
}
