//! Money from one account to another, or nothing on either.

use passbook_domain::{
    Currency, Event, Rejection,
    command::Movement,
    event::{TransferReceived, TransferSent},
    money::MINOR_UNITS_MAX,
};

use crate::{given::given, words::*};

#[test]
fn a_transfer_is_recorded_on_both_sides() {
    given([opened(500)]).and([opened(0)]).when(transfer(movement(500))).then((sent(500), received(500)));
}

#[test]
fn both_sides_carry_the_reference_and_name_each_other() {
    let (amount, reference) = (amount(5), Some("rent".to_owned()));
    let rent = Movement { reference: reference.clone(), ..movement(5) };
    given([opened(5)]).and([opened(0)]).when(transfer(rent)).then((
        Event::TransferSent(TransferSent { transfer_id: TRANSFER, to: TO, amount, reference: reference.clone() }),
        Event::TransferReceived(TransferReceived { transfer_id: TRANSFER, from: FROM, amount, reference }),
    ));
}

#[test]
fn a_transfer_in_the_currency_of_both_accounts_is_recorded() {
    given([opened(5)]).and([opened(0)]).when(transfer(in_currency(Currency::EUR, 5))).then((sent(5), received(5)));
}

#[test]
fn a_transfer_above_the_senders_balance_is_refused_with_that_balance() {
    given([opened(4)]).and([opened(9)]).when(transfer(movement(5))).then_refused(insufficient_funds(4, 5));
}

#[test]
fn a_transfer_past_the_receivers_ceiling_is_refused() {
    given([opened(5)])
        .and([opened(MINOR_UNITS_MAX - 4)])
        .when(transfer(movement(5)))
        .then_refused(Rejection::BalanceLimitExceeded);
}

#[test]
fn a_transfer_up_to_the_receivers_ceiling_is_recorded() {
    given([opened(5)]).and([opened(MINOR_UNITS_MAX - 5)]).when(transfer(movement(5))).then((sent(5), received(5)));
}

#[test]
fn a_transfer_between_two_currencies_is_refused_even_if_none_is_named() {
    given([opened(5)])
        .and([opened_in(Currency::USD, 0)])
        .when(transfer(movement(5)))
        .then_refused(Rejection::CurrencyMismatch);
}

#[test]
fn a_transfer_in_a_currency_of_neither_account_is_refused() {
    given([opened(5)])
        .and([opened(0)])
        .when(transfer(in_currency(Currency::USD, 5)))
        .then_refused(Rejection::CurrencyMismatch);
}

/// What may be wrong with a side of a transfer of 100 EUR, highest rank first; the last is the side's own.
fn faults(at_the_limit: (Event, Rejection)) -> Vec<(Vec<Event>, Rejection)> {
    vec![
        (vec![], Rejection::AccountNotFound),
        (vec![opened(0), closed()], Rejection::AccountClosed),
        (vec![opened(0), frozen()], Rejection::AccountFrozen),
        (vec![opened_in(Currency::USD, 1_000)], Rejection::CurrencyMismatch),
        (vec![at_the_limit.0], at_the_limit.1),
    ]
}

#[test]
fn whatever_is_wrong_with_both_sides_the_highest_rank_is_the_answer() {
    let poor = (opened(99), insufficient_funds(99, 100));
    let full = (opened(MINOR_UNITS_MAX - 99), Rejection::BalanceLimitExceeded);
    for (sender_rank, (from, of_sender)) in faults(poor).into_iter().enumerate() {
        for (receiver_rank, (to, of_receiver)) in faults(full.clone()).into_iter().enumerate() {
            let expected = if sender_rank <= receiver_rank { of_sender } else { of_receiver };
            let hundred_euros = transfer(in_currency(Currency::EUR, 100));
            given(from.clone()).and(to).when(hundred_euros).then_refused(expected);
        }
    }
}

#[test]
fn a_fault_of_one_side_alone_refuses_the_transfer() {
    let poor = (opened(99), insufficient_funds(99, 100));
    for (from, refusal) in faults(poor) {
        given(from).and([opened(0)]).when(transfer(in_currency(Currency::EUR, 100))).then_refused(refusal);
    }
    let full = (opened(MINOR_UNITS_MAX - 99), Rejection::BalanceLimitExceeded);
    for (to, refusal) in faults(full) {
        given([opened(100)]).and(to).when(transfer(in_currency(Currency::EUR, 100))).then_refused(refusal);
    }
}
