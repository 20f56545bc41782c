//! What holds of every history, whatever is asked in whatever order.

use passbook_domain::{
    Account, Action, Channel, Currency, Event, Rejection, Status, command::Movement, money::MINOR_UNITS_MAX, transfer,
};
use proptest::{collection::vec, option, prelude::*};

use crate::{given::fold, words};

/// Everyday amounts, and those at the ceiling.
fn minor_units() -> impl Strategy<Value = i64> {
    prop_oneof![6 => 1..=1_000i64, 1 => 1..=MINOR_UNITS_MAX, 1 => MINOR_UNITS_MAX - 1_000..=MINOR_UNITS_MAX]
}

fn currency() -> impl Strategy<Value = Currency> {
    prop_oneof![4 => Just(Currency::EUR), 1 => Just(Currency::USD)]
}

fn movement() -> impl Strategy<Value = Movement> {
    (minor_units(), option::of(currency()), option::of("[a-zß\"\\\\]{0,8}")).prop_map(
        |(minor_units, currency, reference)| Movement { amount: words::amount(minor_units), currency, reference },
    )
}

fn channel() -> impl Strategy<Value = Option<Channel>> {
    option::of(prop_oneof![Just(Channel::Branch), Just(Channel::Atm), Just(Channel::Online)])
}

fn opening() -> impl Strategy<Value = Action> {
    (currency(), prop_oneof![Just(0), minor_units()]).prop_map(|(currency, initial_deposit)| Action::Open {
        owner: words::OWNER.into(),
        currency,
        initial_deposit,
    })
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        1 => opening(),
        8 => (movement(), channel()).prop_map(|(movement, channel)| Action::Deposit(movement, channel)),
        8 => (movement(), channel()).prop_map(|(movement, channel)| Action::Withdraw(movement, channel)),
        1 => Just(words::freeze()),
        2 => Just(words::unfreeze()),
        1 => Just(words::close()),
    ]
}

/// What is asked of one account in its life; most lives begin with an opening.
fn life() -> impl Strategy<Value = Vec<Action>> {
    (option::weighted(0.9, opening()), vec(action(), 0..60))
        .prop_map(|(opening, actions)| opening.into_iter().chain(actions).collect())
}

/// The facts of a life.
fn live(actions: &[Action]) -> Vec<Event> {
    let mut account = Account::default();
    let accepted = actions.iter().filter_map(|action| {
        let event = account.decide(action).ok()?;
        account = account.clone().evolve(&event);
        Some(event)
    });
    accepted.collect()
}

fn money_in(event: &Event) -> i128 {
    match event {
        Event::AccountOpened(opened) => opened.initial_deposit.into(),
        Event::MoneyDeposited(deposited) => deposited.amount.minor_units().into(),
        Event::MoneyWithdrawn(withdrawn) => -i128::from(withdrawn.amount.minor_units()),
        Event::TransferSent(sent) => -i128::from(sent.amount.minor_units()),
        Event::TransferReceived(received) => received.amount.minor_units().into(),
        Event::AccountFrozen(_) | Event::AccountUnfrozen(_) | Event::AccountClosed(_) => 0,
    }
}

fn channel_of(event: &Event) -> Option<Channel> {
    match event {
        Event::MoneyDeposited(moved) | Event::MoneyWithdrawn(moved) => moved.channel,
        _ => None,
    }
}

fn balance(account: &Account) -> i64 {
    account.book().map_or(0, |book| book.balance)
}

fn currency_of(account: &Account) -> Option<Currency> {
    account.book().ok().map(|book| book.currency)
}

/// The rules once more, told from the outside: what an account is after an action, or nothing if it is refused.
fn told_otherwise(account: &Account, action: &Action) -> Option<(Currency, Status, i128)> {
    let Account::Opened(book) = account else {
        return match action {
            Action::Open { currency, initial_deposit, .. } => {
                Some((*currency, Status::Open, i128::from(*initial_deposit)))
            }
            _ => None,
        };
    };
    let before = i128::from(book.balance);
    let status = match (book.status, action) {
        (Status::Open, Action::Deposit(..) | Action::Withdraw(..)) => Status::Open,
        (Status::Open, Action::Freeze { .. }) => Status::Frozen,
        (Status::Open, Action::Close { .. }) if before == 0 => Status::Closed,
        (Status::Frozen, Action::Unfreeze { .. }) => Status::Open,
        _ => return None,
    };
    let (movement, sign) = match action {
        Action::Deposit(movement, _) => (movement, 1),
        Action::Withdraw(movement, _) => (movement, -1),
        _ => return Some((book.currency, status, before)),
    };
    let after = before + sign * i128::from(movement.amount.minor_units());
    let possible = (0..=i128::from(MINOR_UNITS_MAX)).contains(&after);
    let same_currency = movement.currency.is_none_or(|currency| currency == book.currency);
    (possible && same_currency).then_some((book.currency, status, after))
}

proptest! {
    #[test]
    fn the_balance_is_the_sum_of_the_events(actions in life()) {
        let events = live(&actions);
        let sum: i128 = events.iter().map(money_in).sum();
        prop_assert_eq!(i128::from(balance(&fold(events))), sum);
    }

    #[test]
    fn a_balance_is_never_negative_and_never_above_the_ceiling(actions in life()) {
        let mut account = Account::default();
        for event in live(&actions) {
            account = account.evolve(&event);
            prop_assert!((0..=MINOR_UNITS_MAX).contains(&balance(&account)), "{:?}", account);
        }
    }

    #[test]
    fn what_decide_allows_is_what_evolve_does(actions in life()) {
        let mut account = Account::default();
        for action in &actions {
            let expected = told_otherwise(&account, action);
            let decided = account.decide(action);
            prop_assert_eq!(decided.is_ok(), expected.is_some(), "{:?} on {:?}", action, account);
            if let (Ok(event), Some(expected)) = (decided, expected) {
                account = account.evolve(&event);
                let book = account.book().unwrap();
                prop_assert_eq!((book.currency, book.status, i128::from(book.balance)), expected);
            }
        }
    }

    #[test]
    fn a_refusal_changes_nothing(actions in life()) {
        let mut account = Account::default();
        for action in &actions {
            let before = account.clone();
            let decided = account.decide(action);
            prop_assert_eq!(&account, &before);
            // Asked again, it is judged alike.
            prop_assert_eq!(&account.decide(action), &decided);
            account = decided.map_or(before, |event| account.evolve(&event));
        }
        let accepted = live(&actions);
        prop_assert_eq!(account, fold(accepted));
    }

    #[test]
    fn a_snapshot_and_the_tail_fold_to_the_same_account_as_all_events(actions in life(), cut in 0.0..=1.0) {
        let events = live(&actions);
        let cut = (events.len() as f64 * cut) as usize;
        let snapshot = serde_json::to_string(&fold(events[..cut].to_vec())).unwrap();
        let restored: Account = serde_json::from_str(&snapshot).unwrap();
        let resumed = events[cut..].iter().fold(restored, Account::evolve);
        prop_assert_eq!(resumed, fold(events));
    }

    #[test]
    fn an_event_written_and_read_is_the_same_event(actions in life()) {
        for event in live(&actions) {
            let data = serde_json::to_string(&event).unwrap();
            prop_assert_eq!(Event::decode(event.name(), event.schema_version(), &data).unwrap(), event);
        }
    }

    #[test]
    fn the_channel_said_is_the_channel_written_and_decides_nothing(
        actions in life(), movement in movement(), channel in channel()
    ) {
        let account = fold(live(&actions));
        for ask in [Action::Deposit, Action::Withdraw] {
            let silent = account.decide(&ask(movement.clone(), None));
            let decided = account.decide(&ask(movement.clone(), channel));
            prop_assert_eq!(decided.as_ref().err(), silent.as_ref().err());
            if let (Ok(event), Ok(silent)) = (decided, silent) {
                prop_assert_eq!(account.clone().evolve(&event), account.clone().evolve(&silent));
                prop_assert_eq!(channel_of(&event), channel);
            }
        }
    }

    #[test]
    fn an_event_as_version_1_had_it_means_the_same_without_a_channel(actions in life()) {
        for event in live(&actions) {
            // Version 1 is version 2 without the member that it added.
            let mut data = serde_json::to_value(&event).unwrap();
            data.as_object_mut().unwrap().remove("channel");
            let old = Event::decode(event.name(), 1, &data.to_string()).unwrap();
            prop_assert_eq!(channel_of(&old), None);
            prop_assert_eq!(serde_json::to_value(&old).unwrap(), data);
        }
    }

    #[test]
    fn a_transfer_keeps_the_sum_and_a_refused_one_is_refused_for_a_reason(
        payer in life(), paid in life(), movement in movement()
    ) {
        let (from, to) = (fold(live(&payer)), fold(live(&paid)));
        let sum = i128::from(balance(&from)) + i128::from(balance(&to));
        match transfer::decide(&from, &to, &words::transfer(movement.clone())) {
            Ok((sent, received)) => {
                let (from, to) = (from.evolve(&sent), to.evolve(&received));
                prop_assert_eq!(i128::from(balance(&from)) + i128::from(balance(&to)), sum);
                prop_assert!((0..=MINOR_UNITS_MAX).contains(&balance(&from)));
                prop_assert!((0..=MINOR_UNITS_MAX).contains(&balance(&to)));
            }
            Err(refusal) => {
                let of_the_payer = from.decide(&Action::Withdraw(movement.clone(), None)).err();
                let of_the_paid = to.decide(&Action::Deposit(movement, None)).err();
                let of_both = (currency_of(&from) != currency_of(&to)).then_some(Rejection::CurrencyMismatch);
                prop_assert_eq!(Some(refusal), [of_the_payer, of_the_paid, of_both].into_iter().flatten().min());
            }
        }
    }
}
