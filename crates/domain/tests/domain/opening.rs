//! An account is opened once, and nothing happens to one that was not.

use passbook_domain::{Account, Currency, Rejection, Status};

use crate::{
    given::{fold, given},
    words::*,
};

#[test]
fn an_account_is_opened_for_its_owner_in_its_currency_with_its_initial_deposit() {
    given([]).when(open(10_000)).then(opened(10_000));
}

#[test]
fn an_account_may_be_opened_empty() {
    given([]).when(open(0)).then(opened(0));
}

#[test]
fn an_opened_account_is_open_and_holds_its_initial_deposit() {
    let account = fold([opened_in(Currency::JPY, 700)]);
    let book = account.book().unwrap();
    assert_eq!((&*book.owner, book.currency, book.status, book.balance), (OWNER, Currency::JPY, Status::Open, 700));
}

#[test]
fn an_account_is_not_opened_twice() {
    given([opened(0)]).when(open(0)).then_refused(Rejection::AccountExists);
}

#[test]
fn a_frozen_account_is_not_opened_again() {
    given([opened(0), frozen()]).when(open(0)).then_refused(Rejection::AccountExists);
}

#[test]
fn a_closed_account_is_not_opened_again() {
    given([opened(0), closed()]).when(open(0)).then_refused(Rejection::AccountExists);
}

#[test]
fn nothing_but_an_opening_is_accepted_of_an_account_that_was_never_opened() {
    for action in [deposit(1), withdraw(1), freeze(), unfreeze(), close()] {
        given([]).when(action).then_refused(Rejection::AccountNotFound);
    }
}

#[test]
fn an_account_without_events_has_no_book() {
    assert_eq!(Account::default().book(), Err(Rejection::AccountNotFound));
}

#[test]
fn a_second_opening_in_a_log_changes_nothing() {
    assert_eq!(fold([opened(5), opened_in(Currency::USD, 9)]), fold([opened(5)]));
}

#[test]
fn a_fact_before_the_opening_opens_nothing() {
    for event in [deposited(1), withdrawn(1), sent(1), received(1), frozen(), unfrozen(), closed()] {
        assert_eq!(fold([event]), Account::Unopened);
    }
}
