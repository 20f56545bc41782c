//! The postings of events: each event is balanced by itself, and together they give the balances of customers.

use std::collections::BTreeMap;

use passbook_domain::{
    Channel, Event, EventType,
    books::{LedgerAccount, OriginalRequired, Postings, postings, reversed_version},
    event::{AccountOpened, HoldCaptured, MoneyMoved, MovementReversed, TransferReceived, TransferSent},
    reversal::Effect,
};
use proptest::{collection::vec, option, prelude::*};

use crate::{event_samples::one_of_each, fixtures::*};

const CASH: LedgerAccount = LedgerAccount::Cash(Some(Channel::Branch));

fn reversed(effect: Effect, minor_units: i64, is_of_transfer: bool) -> MovementReversed {
    MovementReversed {
        reverses_version: 2,
        reverses_event_id: UNIQUE,
        effect,
        amount: amount(minor_units),
        transfer_id: is_of_transfer.then_some(TRANSFER),
        reason: None,
    }
}

/// The debited and the credited account, and the amount.
fn sides(postings: Postings) -> (LedgerAccount, LedgerAccount, i64) {
    let [one, other] = postings;
    assert_eq!(one.amount + other.amount, 0);
    let (debited, credited) = if one.amount > 0 { (one, other) } else { (other, one) };
    assert_eq!((debited.debit(), debited.credit()), (credited.credit(), credited.debit()));
    (debited.account, credited.account, debited.amount)
}

fn posted(event: &Event) -> Option<(LedgerAccount, LedgerAccount, i64)> {
    postings(event, Some(CASH)).unwrap().map(sides)
}

#[test]
fn every_event_type_is_balanced_and_posts_exactly_if_it_moves_money() {
    for event in one_of_each() {
        let is_posted = postings(&event, Some(CASH)).unwrap().is_some_and(|posted| {
            assert_eq!(posted[0].amount, -event.balance_change(), "{event:?}");
            sides(posted).2 > 0
        });
        assert_eq!(is_posted, event.balance_change() != 0, "{event:?}");
    }
}

#[test]
fn each_movement_has_its_debited_and_its_credited_account() {
    use LedgerAccount::{Captures, Cash, CustomerDeposits, TransfersInTransit};
    let through = |channel| MoneyMoved { channel, ..moved(5) };
    let atm = Some(Channel::Atm);
    let expected = [
        (opened(5), Cash(None), CustomerDeposits),
        (Event::MoneyDeposited(through(None)), Cash(None), CustomerDeposits),
        (Event::MoneyDeposited(through(atm)), Cash(atm), CustomerDeposits),
        (Event::MoneyWithdrawn(through(atm)), CustomerDeposits, Cash(atm)),
        (sent(5), CustomerDeposits, TransfersInTransit),
        (received(5), TransfersInTransit, CustomerDeposits),
        (captured(2, 5, false), CustomerDeposits, Captures),
        // The original is a deposit in a branch, then a withdrawal there.
        (Event::MovementReversed(reversed(Effect::Debit, 5, false)), CustomerDeposits, CASH),
        (Event::MovementReversed(reversed(Effect::Credit, 5, false)), CASH, CustomerDeposits),
        (Event::MovementReversed(reversed(Effect::Credit, 5, true)), TransfersInTransit, CustomerDeposits),
        (Event::MovementReversed(reversed(Effect::Debit, 5, true)), CustomerDeposits, TransfersInTransit),
    ];
    for (event, debited, credited) in expected {
        assert_eq!(posted(&event), Some((debited, credited, 5)), "{event:?}");
    }
    for event in [opened(0), placed(2, 5), frozen(), unfrozen(), closed()] {
        assert_eq!(posted(&event), None, "{event:?}");
    }
}

#[test]
fn only_reversals_outside_transfers_need_their_original() {
    for event in one_of_each() {
        assert_eq!(reversed_version(&event), None, "{event:?}");
        assert_eq!(postings(&event, None), postings(&event, Some(CASH)), "{event:?}");
    }
    let event = Event::MovementReversed(reversed(Effect::Debit, 5, false));
    assert_eq!(reversed_version(&event), Some(2));
    assert_eq!(postings(&event, None), Err(OriginalRequired(2)));
}

#[test]
fn movements_of_every_type_have_the_ledger_account_of_their_postings() {
    for event in one_of_each().filter(|event| event.event_type() != EventType::MovementReversed) {
        let channel = match &event {
            Event::MoneyDeposited(moved) | Event::MoneyWithdrawn(moved) => moved.channel,
            _ => None,
        };
        let other = postings(&event, None).unwrap().map(|[_, other]| other.account);
        assert_eq!(LedgerAccount::of_movement(event.event_type(), channel), other, "{event:?}");
    }
    assert_eq!(LedgerAccount::of_movement(EventType::MovementReversed, None), None);
}

#[test]
fn ledger_accounts_are_found_by_their_names() {
    let names = LedgerAccount::ALL.map(LedgerAccount::name);
    assert!(names.is_sorted_by(|one, other| one < other), "{names:?}");
    assert_eq!(names.map(LedgerAccount::from_name), LedgerAccount::ALL.map(Some));
    assert_eq!(LedgerAccount::from_name("assets"), None);
}

fn any_channel() -> impl Strategy<Value = Option<Channel>> {
    option::of(prop_oneof![Just(Channel::Branch), Just(Channel::Atm), Just(Channel::Online)])
}

/// Any event that an account can have, with the ledger account of the movement that it may reverse.
fn any_event() -> impl Strategy<Value = (Event, LedgerAccount)> {
    let minor_units = || prop_oneof![3 => 1..=1_000i64, 1 => Just(9_007_199_254_740_991i64)];
    let others: Vec<Event> = one_of_each().filter(|event| event.balance_change() == 0).collect();
    let effect = prop_oneof![Just(Effect::Credit), Just(Effect::Debit)];
    let is_other_side = |account: &LedgerAccount| *account != LedgerAccount::CustomerDeposits;
    let originals: Vec<LedgerAccount> = LedgerAccount::ALL.into_iter().filter(is_other_side).collect();
    let original = prop::sample::select(originals);
    let event = prop_oneof![
        (0..=1_000i64).prop_map(|initial_deposit| {
            let Event::AccountOpened(opening) = opened(0) else { unreachable!("an opening") };
            Event::AccountOpened(AccountOpened { initial_deposit, ..opening })
        }),
        (minor_units(), any_channel())
            .prop_map(|(n, channel)| Event::MoneyDeposited(MoneyMoved { channel, ..moved(n) })),
        (minor_units(), any_channel())
            .prop_map(|(n, channel)| Event::MoneyWithdrawn(MoneyMoved { channel, ..moved(n) })),
        minor_units().prop_map(|n| Event::TransferSent(TransferSent { hold_id: Some(hold_at(3)), ..sent_side(n) })),
        minor_units().prop_map(|n| Event::TransferReceived(TransferReceived { hold_id: None, ..received_side(n) })),
        minor_units().prop_map(|n| {
            Event::HoldCaptured(HoldCaptured {
                hold_id: hold_at(3),
                amount: amount(n),
                is_final: true,
                reference: None,
            })
        }),
        (effect, minor_units(), any::<bool>())
            .prop_map(|(effect, n, is_of_transfer)| Event::MovementReversed(reversed(effect, n, is_of_transfer))),
        prop::sample::select(others),
    ];
    (event, original)
}

proptest! {
    #[test]
    fn books_of_any_history_are_balanced_and_give_the_balances(history in vec(any_event(), 0..80)) {
        let mut books: BTreeMap<&str, i128> = BTreeMap::new();
        for (event, original) in &history {
            let posted = postings(event, Some(*original)).unwrap();
            let sum: i64 = posted.iter().flatten().map(|posting| posting.amount).sum();
            prop_assert_eq!(sum, 0, "{:?}", event);
            for posting in posted.iter().flatten() {
                prop_assert_ne!(posting.amount, 0);
                *books.entry(posting.account.name()).or_default() += i128::from(posting.amount);
            }
        }
        let balances: i128 = history.iter().map(|(event, _)| i128::from(event.balance_change())).sum();
        let owed = -books.get(LedgerAccount::CustomerDeposits.name()).copied().unwrap_or(0);
        prop_assert_eq!(owed, balances);
        prop_assert_eq!(books.values().sum::<i128>(), 0);
    }
}
