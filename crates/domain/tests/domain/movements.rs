//! Deposits and withdrawals.

use passbook_domain::{
    AccountCommand, Channel, Currency, Event, Rejection, command::Movement, event::MoneyMoved, money::MINOR_UNITS_MAX,
};

use crate::{fixtures::*, given_when_then::given};

fn referenced(minor_units: i64) -> Movement {
    Movement { reference: Some("invoice 2026-17".into()), ..movement(minor_units) }
}

#[test]
fn a_deposit_is_recorded_with_its_reference() {
    given([opened(0)])
        .when(AccountCommand::Deposit(referenced(500), None))
        .then(Event::MoneyDeposited(MoneyMoved { reference: Some("invoice 2026-17".into()), ..moved(500) }));
}

#[test]
fn a_withdrawal_is_recorded_with_its_reference() {
    given([opened(500)])
        .when(AccountCommand::Withdraw(referenced(500), None))
        .then(Event::MoneyWithdrawn(MoneyMoved { reference: Some("invoice 2026-17".into()), ..moved(500) }));
}

#[test]
fn the_channel_is_recorded() {
    for channel in [Channel::Branch, Channel::Atm, Channel::Online] {
        let moved = MoneyMoved { channel: Some(channel), ..moved(5) };
        let (deposit, withdrawal) =
            (AccountCommand::Deposit(movement(5), Some(channel)), AccountCommand::Withdraw(movement(5), Some(channel)));
        given([opened(5)]).when(deposit).then(Event::MoneyDeposited(moved.clone()));
        given([opened(5)]).when(withdrawal).then(Event::MoneyWithdrawn(moved));
    }
}

#[test]
fn a_withdrawal_may_empty_the_account() {
    given([opened(0), deposited(300), received(200)]).when(withdraw(500)).then(withdrawn(500));
}

#[test]
fn a_withdrawal_above_the_balance_is_rejected_with_the_balance() {
    given([opened(500)]).when(withdraw(501)).then_rejected(insufficient_funds(500, 501));
}

#[test]
fn withdrawn_money_cannot_be_withdrawn_again() {
    given([opened(500), withdrawn(400)]).when(withdraw(101)).then_rejected(insufficient_funds(100, 101));
}

#[test]
fn transferred_money_cannot_be_withdrawn() {
    given([opened(500), sent(500)]).when(withdraw(1)).then_rejected(insufficient_funds(0, 1));
}

#[test]
fn a_deposit_up_to_the_maximum_balance_is_accepted() {
    given([opened(1)]).when(deposit(MINOR_UNITS_MAX - 1)).then(deposited(MINOR_UNITS_MAX - 1));
}

#[test]
fn a_deposit_above_the_maximum_balance_is_rejected() {
    given([opened(1)]).when(deposit(MINOR_UNITS_MAX)).then_rejected(Rejection::BalanceLimitExceeded);
}

#[test]
fn a_movement_in_the_accounts_currency_is_accepted() {
    let euros = || in_currency(Currency::EUR, 100);
    given([opened(100)]).when(AccountCommand::Deposit(euros(), None)).then(deposited(100));
    given([opened(100)]).when(AccountCommand::Withdraw(euros(), None)).then(withdrawn(100));
}

#[test]
fn a_movement_in_another_currency_is_rejected() {
    let dollars = || in_currency(Currency::USD, 100);
    given([opened(100)]).when(AccountCommand::Deposit(dollars(), None)).then_rejected(Rejection::CurrencyMismatch);
    given([opened(100)]).when(AccountCommand::Withdraw(dollars(), None)).then_rejected(Rejection::CurrencyMismatch);
}

#[test]
fn movements_on_a_frozen_account_are_rejected() {
    for command in [deposit(1), withdraw(1)] {
        given([opened(100), frozen()]).when(command).then_rejected(Rejection::AccountFrozen);
    }
}

#[test]
fn movements_on_a_closed_account_are_rejected() {
    for command in [deposit(1), withdraw(1)] {
        given([opened(0), closed()]).when(command).then_rejected(Rejection::AccountClosed);
    }
}

#[test]
fn movements_on_an_unfrozen_account_are_accepted() {
    given([opened(100), frozen(), unfrozen()]).when(withdraw(100)).then(withdrawn(100));
}

#[test]
fn a_closed_account_is_reported_before_currency_and_funds() {
    let dollars = AccountCommand::Withdraw(in_currency(Currency::USD, 100), None);
    given([opened(0), closed()]).when(dollars).then_rejected(Rejection::AccountClosed);
}

#[test]
fn a_frozen_account_is_reported_before_currency_and_funds() {
    let dollars = AccountCommand::Withdraw(in_currency(Currency::USD, 100), None);
    given([opened(0), frozen()]).when(dollars).then_rejected(Rejection::AccountFrozen);
}

#[test]
fn a_currency_mismatch_is_reported_before_insufficient_funds() {
    let dollars = AccountCommand::Withdraw(in_currency(Currency::USD, 100), None);
    given([opened(0)]).when(dollars).then_rejected(Rejection::CurrencyMismatch);
}

#[test]
fn a_currency_mismatch_is_reported_before_the_maximum_balance() {
    let dollars = AccountCommand::Deposit(in_currency(Currency::USD, 100), None);
    given([opened(MINOR_UNITS_MAX)]).when(dollars).then_rejected(Rejection::CurrencyMismatch);
}
