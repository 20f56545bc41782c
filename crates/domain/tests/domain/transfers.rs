//! A transfer records one event on each of two accounts, or none.

use passbook_domain::{
    Currency, Event, Rejection,
    command::Movement,
    event::{TransferReceived, TransferSent},
    money::MINOR_UNITS_MAX,
    transfer::Side,
};

use crate::{fixtures::*, given_when_then::given};

#[test]
fn a_transfer_is_recorded_on_both_sides() {
    given([opened(500)]).and([opened(0)]).when(transfer(movement(500))).then((sent(500), received(500)));
}

#[test]
fn both_events_have_the_reference_and_the_other_accounts_id() {
    let reference = Some("rent".to_owned());
    let rent = Movement { reference: reference.clone(), ..movement(5) };
    given([opened(5)]).and([opened(0)]).when(transfer(rent)).then((
        Event::TransferSent(TransferSent { reference: reference.clone(), ..sent_side(5) }),
        Event::TransferReceived(TransferReceived { reference, ..received_side(5) }),
    ));
}

#[test]
fn a_transfer_in_the_currency_of_both_accounts_is_recorded() {
    given([opened(5)]).and([opened(0)]).when(transfer(in_currency(Currency::EUR, 5))).then((sent(5), received(5)));
}

#[test]
fn a_transfer_above_the_senders_balance_is_rejected_with_the_balance() {
    given([opened(4)])
        .and([opened(9)])
        .when(transfer(movement(5)))
        .then_rejected(Side::Sender, insufficient_funds(4, 5));
}

#[test]
fn a_transfer_above_the_receivers_maximum_balance_is_rejected() {
    given([opened(5)])
        .and([opened(MINOR_UNITS_MAX - 4)])
        .when(transfer(movement(5)))
        .then_rejected(Side::Receiver, Rejection::BalanceLimitExceeded);
}

#[test]
fn a_transfer_up_to_the_receivers_maximum_balance_is_recorded() {
    given([opened(5)]).and([opened(MINOR_UNITS_MAX - 5)]).when(transfer(movement(5))).then((sent(5), received(5)));
}

#[test]
fn a_transfer_between_two_currencies_without_a_currency_is_rejected() {
    given([opened(5)])
        .and([opened_in(Currency::USD, 0)])
        .when(transfer(movement(5)))
        .then_rejected(Side::Receiver, Rejection::CurrencyMismatch);
}

#[test]
fn a_transfer_in_a_currency_of_neither_account_is_rejected() {
    given([opened(5)])
        .and([opened(0)])
        .when(transfer(in_currency(Currency::USD, 5)))
        .then_rejected(Side::Sender, Rejection::CurrencyMismatch);
}

/// Histories for which one side of a transfer of 100 EUR is rejected, in the order of precedence. The last one is specific
/// to the side.
fn rejected_histories(at_the_limit: (Event, Rejection)) -> Vec<(Vec<Event>, Rejection)> {
    vec![
        (vec![], Rejection::AccountNotFound),
        (vec![opened(0), closed()], Rejection::AccountClosed),
        (vec![opened(0), frozen()], Rejection::AccountFrozen),
        (vec![opened_in(Currency::USD, 1_000)], Rejection::CurrencyMismatch),
        (vec![at_the_limit.0], at_the_limit.1),
    ]
}

#[test]
fn of_two_rejections_the_one_with_precedence_is_returned() {
    let poor = (opened(99), insufficient_funds(99, 100));
    let full = (opened(MINOR_UNITS_MAX - 99), Rejection::BalanceLimitExceeded);
    for (sender_rank, (from, of_sender)) in rejected_histories(poor).into_iter().enumerate() {
        for (receiver_rank, (to, of_receiver)) in rejected_histories(full.clone()).into_iter().enumerate() {
            let is_senders = sender_rank <= receiver_rank;
            let (side, expected) = if is_senders { (Side::Sender, of_sender) } else { (Side::Receiver, of_receiver) };
            let hundred_euros = transfer(in_currency(Currency::EUR, 100));
            given(from.clone()).and(to).when(hundred_euros).then_rejected(side, expected);
        }
    }
}

#[test]
fn a_rejection_of_one_side_rejects_the_transfer() {
    let poor = (opened(99), insufficient_funds(99, 100));
    for (from, rejection) in rejected_histories(poor) {
        let outcome = given(from).and([opened(0)]).when(transfer(in_currency(Currency::EUR, 100)));
        outcome.then_rejected(Side::Sender, rejection);
    }
    let full = (opened(MINOR_UNITS_MAX - 99), Rejection::BalanceLimitExceeded);
    for (to, rejection) in rejected_histories(full) {
        let outcome = given([opened(100)]).and(to).when(transfer(in_currency(Currency::EUR, 100)));
        outcome.then_rejected(Side::Receiver, rejection);
    }
}
