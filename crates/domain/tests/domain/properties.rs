//! Properties of the account that hold for every sequence of commands.

use passbook_domain::{
    Account, AccountCommand, Channel, Currency, Event, Metadata, Rejection, Status,
    command::Movement,
    money::MINOR_UNITS_MAX,
    transfer::{self, Side},
};
use proptest::{collection::vec, option, prelude::*};

use crate::{fixtures, given_when_then::fold};

/// Everyday amounts, and amounts near the maximum.
fn minor_units() -> impl Strategy<Value = i64> {
    prop_oneof![6 => 1..=1_000i64, 1 => 1..=MINOR_UNITS_MAX, 1 => MINOR_UNITS_MAX - 1_000..=MINOR_UNITS_MAX]
}

fn currency() -> impl Strategy<Value = Currency> {
    prop_oneof![4 => Just(Currency::EUR), 1 => Just(Currency::USD)]
}

fn movement() -> impl Strategy<Value = Movement> {
    (minor_units(), option::of(currency()), option::of("[a-zß\"\\\\]{0,8}")).prop_map(
        |(minor_units, currency, reference)| Movement { currency, reference, ..fixtures::movement(minor_units) },
    )
}

fn channel() -> impl Strategy<Value = Option<Channel>> {
    option::of(prop_oneof![Just(Channel::Branch), Just(Channel::Atm), Just(Channel::Online)])
}

fn opening() -> impl Strategy<Value = AccountCommand> {
    (currency(), prop_oneof![Just(0), minor_units()]).prop_map(|(currency, initial_deposit)| AccountCommand::Open {
        owner: fixtures::OWNER.into(),
        currency,
        initial_deposit,
        metadata: Metadata::default(),
    })
}

fn command() -> impl Strategy<Value = AccountCommand> {
    prop_oneof![
        1 => opening(),
        8 => (movement(), channel()).prop_map(|(movement, channel)| AccountCommand::Deposit(movement, channel)),
        8 => (movement(), channel()).prop_map(|(movement, channel)| AccountCommand::Withdraw(movement, channel)),
        1 => Just(fixtures::freeze()),
        2 => Just(fixtures::unfreeze()),
        1 => Just(fixtures::close()),
    ]
}

/// A sequence of commands on one account. Most sequences begin with an opening.
fn actions_of_account() -> impl Strategy<Value = Vec<AccountCommand>> {
    (option::weighted(0.9, opening()), vec(command(), 0..60))
        .prop_map(|(opening, actions)| opening.into_iter().chain(actions).collect())
}

/// Decides a command that causes one event, at noon.
fn decide(account: &Account, command: &AccountCommand) -> Result<Event, Rejection> {
    let events = account.decide(command, fixtures::noon())?;
    assert_eq!(events.len(), 1);
    Ok(events.into_iter().next().unwrap())
}

fn evolve(account: Account, event: &Event) -> Account {
    account.evolve(event, fixtures::noon())
}

/// The events of the accepted commands.
fn accepted_events(actions: &[AccountCommand]) -> Vec<Event> {
    let mut account = Account::default();
    let accepted = actions.iter().filter_map(|command| {
        let event = decide(&account, command).ok()?;
        account = evolve(account.clone(), &event);
        Some(event)
    });
    accepted.collect()
}

fn balance_change(event: &Event) -> i128 {
    match event {
        Event::AccountOpened(opened) => opened.initial_deposit.into(),
        Event::MoneyDeposited(deposited) => deposited.amount.minor_units().into(),
        Event::MoneyWithdrawn(withdrawn) => -i128::from(withdrawn.amount.minor_units()),
        Event::AccountFrozen(_) | Event::AccountUnfrozen(_) | Event::AccountClosed(_) => 0,
        event => unreachable!("no command of these sequences causes {event:?}"),
    }
}

fn channel_of(event: &Event) -> Option<Channel> {
    match event {
        Event::MoneyDeposited(moved) | Event::MoneyWithdrawn(moved) => moved.channel,
        _ => None,
    }
}

fn balance(account: &Account) -> i64 {
    account.opened().map_or(0, |opened| opened.balance)
}

fn currency_of(account: &Account) -> Option<Currency> {
    account.opened().ok().map(|opened| opened.currency)
}

/// A second, independent implementation of the rules: the account's state after a command, or `None` if the command must be
/// rejected.
fn expected_state(account: &Account, command: &AccountCommand) -> Option<(Currency, Status, i128)> {
    let Account::Opened(opened) = account else {
        return match command {
            AccountCommand::Open { currency, initial_deposit, .. } => {
                Some((*currency, Status::Open, i128::from(*initial_deposit)))
            }
            _ => None,
        };
    };
    let before = i128::from(opened.balance);
    let status = match (opened.status, command) {
        (Status::Open, AccountCommand::Deposit(..) | AccountCommand::Withdraw(..)) => Status::Open,
        (Status::Open, AccountCommand::Freeze { .. }) => Status::Frozen,
        (Status::Open, AccountCommand::Close { .. }) if before == 0 => Status::Closed,
        (Status::Frozen, AccountCommand::Unfreeze { .. }) => Status::Open,
        _ => return None,
    };
    let (movement, sign) = match command {
        AccountCommand::Deposit(movement, _) => (movement, 1),
        AccountCommand::Withdraw(movement, _) => (movement, -1),
        _ => return Some((opened.currency, status, before)),
    };
    let after = before + sign * i128::from(movement.amount.minor_units());
    let possible = (0..=i128::from(MINOR_UNITS_MAX)).contains(&after);
    let same_currency = movement.currency.is_none_or(|currency| currency == opened.currency);
    (possible && same_currency).then_some((opened.currency, status, after))
}

proptest! {
    #[test]
    fn the_balance_equals_the_sum_of_the_events(actions in actions_of_account()) {
        let events = accepted_events(&actions);
        let sum: i128 = events.iter().map(balance_change).sum();
        prop_assert_eq!(i128::from(balance(&fold(events))), sum);
    }

    #[test]
    fn a_balance_is_between_zero_and_the_maximum(actions in actions_of_account()) {
        let mut account = Account::default();
        for event in accepted_events(&actions) {
            account = evolve(account, &event);
            prop_assert!((0..=MINOR_UNITS_MAX).contains(&balance(&account)), "{:?}", account);
        }
    }

    #[test]
    fn decide_and_evolve_agree_with_an_independent_implementation(actions in actions_of_account()) {
        let mut account = Account::default();
        for command in &actions {
            let expected = expected_state(&account, command);
            let decided = decide(&account, command);
            prop_assert_eq!(decided.is_ok(), expected.is_some(), "{:?} on {:?}", command, account);
            if let (Ok(event), Some(expected)) = (decided, expected) {
                account = evolve(account, &event);
                let opened = account.opened().unwrap();
                prop_assert_eq!((opened.currency, opened.status, i128::from(opened.balance)), expected);
            }
        }
    }

    #[test]
    fn a_rejection_changes_nothing(actions in actions_of_account()) {
        let mut account = Account::default();
        for command in &actions {
            let before = account.clone();
            let decided = decide(&account, command);
            prop_assert_eq!(&account, &before);
            // The same command on the same state gets the same decision.
            prop_assert_eq!(&decide(&account, command), &decided);
            account = decided.map_or(before, |event| evolve(account, &event));
        }
        let accepted = accepted_events(&actions);
        prop_assert_eq!(account, fold(accepted));
    }

    #[test]
    fn a_snapshot_plus_later_events_equals_the_fold_of_all_events(actions in actions_of_account(), cut in 0.0..=1.0) {
        let events = accepted_events(&actions);
        let cut = (events.len() as f64 * cut) as usize;
        let snapshot = serde_json::to_string(&fold(events[..cut].to_vec())).unwrap();
        let restored: Account = serde_json::from_str(&snapshot).unwrap();
        let resumed = events[cut..].iter().fold(restored, evolve);
        prop_assert_eq!(resumed, fold(events));
    }

    #[test]
    fn an_encoded_and_decoded_event_is_unchanged(actions in actions_of_account()) {
        for event in accepted_events(&actions) {
            let data = serde_json::to_string(&event).unwrap();
            prop_assert_eq!(Event::decode(event.name(), event.schema_version(), &data).unwrap(), event);
        }
    }

    #[test]
    fn the_channel_is_recorded_and_does_not_affect_the_decision(
        actions in actions_of_account(), movement in movement(), channel in channel()
    ) {
        let account = fold(accepted_events(&actions));
        for command in [AccountCommand::Deposit, AccountCommand::Withdraw] {
            let without_channel = decide(&account, &command(movement.clone(), None));
            let decided = decide(&account, &command(movement.clone(), channel));
            prop_assert_eq!(decided.as_ref().err(), without_channel.as_ref().err());
            if let (Ok(event), Ok(without_channel)) = (decided, without_channel) {
                prop_assert_eq!(evolve(account.clone(), &event), evolve(account.clone(), &without_channel));
                prop_assert_eq!(channel_of(&event), channel);
            }
        }
    }

    #[test]
    fn a_version_1_event_decodes_to_the_same_event_without_channel(actions in actions_of_account()) {
        for event in accepted_events(&actions) {
            // Version 2 added only the member `channel`.
            let mut data = serde_json::to_value(&event).unwrap();
            data.as_object_mut().unwrap().remove("channel");
            let old = Event::decode(event.name(), 1, &data.to_string()).unwrap();
            prop_assert_eq!(channel_of(&old), None);
            prop_assert_eq!(serde_json::to_value(&old).unwrap(), data);
        }
    }

    #[test]
    fn a_transfer_preserves_the_sum_or_returns_the_first_rejection(
        sender in actions_of_account(), receiver in actions_of_account(), movement in movement()
    ) {
        let (from, to) = (fold(accepted_events(&sender)), fold(accepted_events(&receiver)));
        let sum = i128::from(balance(&from)) + i128::from(balance(&to));
        match transfer::decide(&from, &to, &fixtures::transfer(movement.clone()), fixtures::noon()) {
            Ok((sent, received)) => {
                let (from, to) = (evolve(from, &sent), evolve(to, &received));
                prop_assert_eq!(i128::from(balance(&from)) + i128::from(balance(&to)), sum);
                prop_assert!((0..=MINOR_UNITS_MAX).contains(&balance(&from)));
                prop_assert!((0..=MINOR_UNITS_MAX).contains(&balance(&to)));
            }
            Err(rejection) => {
                let of_sender = decide(&from, &AccountCommand::Withdraw(movement.clone(), None)).err();
                let of_receiver = decide(&to, &AccountCommand::Deposit(movement, None)).err();
                let of_both = (currency_of(&from) != currency_of(&to)).then_some(Rejection::CurrencyMismatch);
                let all = [(of_sender, Side::Sender), (of_receiver, Side::Receiver), (of_both, Side::Receiver)];
                let all = all.into_iter().filter_map(|(rejection, side)| rejection.map(|rejection| (rejection, side)));
                prop_assert_eq!(Some((rejection.rejection, rejection.side)), all.min());
            }
        }
    }
}
