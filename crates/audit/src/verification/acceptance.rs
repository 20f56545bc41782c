//! Checks that the log accepted only events that the state of their account allows: its status, what it can pay, its limits, the
//! number of its holds and the greatest balance.

use chrono::{DateTime, Utc};

use passbook_domain::{
    Account, Amount, Event, LimitName, OpenedAccount, Status,
    holds::ACTIVE_HOLDS_MAX,
    limits::LimitUsage,
    money::{MINOR_UNITS_MAX, in_major_units},
    reversal::Effect,
};

/// The amount that an event takes from an account.
struct Taken {
    amount: Amount,
    /// Whether it counts against the limits.
    is_limited: bool,
}

/// Checks that `account`, the state before `event`, has a status that allows the event.
pub(super) fn check_status(account: &Account, event: &Event) -> Result<(), String> {
    let is_opening = matches!(event, Event::AccountOpened(_));
    match account {
        Account::Unopened if is_opening => Ok(()),
        Account::Unopened => Err("has an event before its opening".to_owned()),
        Account::Opened(_) if is_opening => Err("is opened a second time".to_owned()),
        Account::Opened(OpenedAccount { status: Status::Closed, .. }) => {
            Err("has an event after its closing".to_owned())
        }
        Account::Opened(OpenedAccount { status, .. }) => match (*status, needed_status(event)) {
            (Status::Open, Some(Status::Frozen)) => Err("is unfrozen, but was not frozen".to_owned()),
            (Status::Frozen, Some(Status::Open)) => Err(format!("has the event {} while it is frozen", event.name())),
            (Status::Open | Status::Frozen | Status::Closed, _) => Ok(()),
        },
    }
}

/// The status that an event needs; `None` if it needs none.
fn needed_status(event: &Event) -> Option<Status> {
    match event {
        Event::MoneyDeposited(_)
        | Event::MoneyWithdrawn(_)
        | Event::TransferSent(_)
        | Event::TransferReceived(_)
        | Event::HoldPlaced(_)
        | Event::HoldCaptured(_)
        | Event::MovementReversed(_)
        | Event::AccountFrozen(_)
        | Event::AccountClosed(_) => Some(Status::Open),
        Event::AccountUnfrozen(_) => Some(Status::Frozen),
        Event::AccountOpened(_) | Event::HoldReleased(_) | Event::LimitsSet(_) => None,
    }
}

/// Checks that `account`, the state after `event`, is one that the event may lead to.
pub(super) fn check_acceptance(
    account: &OpenedAccount,
    event: &Event,
    recorded_at: DateTime<Utc>,
) -> Result<(), String> {
    let (balance, overdraft) = (account.balance, account.limits.overdraft);
    if balance < -MINOR_UNITS_MAX || i128::from(balance) + i128::from(overdraft) > i128::from(MINOR_UNITS_MAX) {
        let [balance, overdraft] = [balance, overdraft].map(|amount| in_major_units(amount, account.currency));
        return Err(format!("has the invalid balance {balance} with an overdraft of {overdraft}"));
    }
    if matches!(event, Event::AccountClosed(_)) && (balance != 0 || !account.holds.is_empty()) {
        let balance = in_major_units(balance, account.currency);
        return Err(format!("is closed with a balance of {balance} or with holds"));
    }
    if matches!(event, Event::HoldPlaced(_)) && account.holds.active(recorded_at).count() > ACTIVE_HOLDS_MAX {
        return Err(format!("has more than {ACTIVE_HOLDS_MAX} active holds"));
    }
    check_taken(account, event, recorded_at)
}

/// Checks that the account could pay for the event.
fn check_taken(account: &OpenedAccount, event: &Event, recorded_at: DateTime<Utc>) -> Result<(), String> {
    let Some(Taken { amount, is_limited }) = taken(event) else { return Ok(()) };
    let available = account.available(recorded_at);
    if available < 0 {
        let [available, amount] =
            [available, amount.minor_units()].map(|amount| in_major_units(amount, account.currency));
        return Err(format!("has {available} available after an accepted debit or hold of {amount}"));
    }
    if is_limited {
        for limit in LimitName::ALL {
            if let Some(LimitUsage { maximum, used, .. }) = account.limit_usage(limit, recorded_at)
                && used.max(if limit == LimitName::PerMovement { amount.minor_units() } else { 0 }) > maximum
            {
                return Err(format!("has exceeded its limit {} of {maximum}", limit.as_str()));
            }
        }
    }
    Ok(())
}

/// The amount that an event takes from the available money. A capture takes the money of its hold.
fn taken(event: &Event) -> Option<Taken> {
    match event {
        Event::MoneyWithdrawn(withdrawn) => Some(Taken { amount: withdrawn.amount, is_limited: true }),
        Event::TransferSent(sent) => sent.hold_id.is_none().then_some(Taken { amount: sent.amount, is_limited: true }),
        Event::HoldPlaced(placed) => Some(Taken { amount: placed.amount, is_limited: true }),
        Event::MovementReversed(reversed) => {
            let is_debit = reversed.effect == Effect::Debit;
            is_debit.then_some(Taken { amount: reversed.amount, is_limited: false })
        }
        Event::AccountOpened(_)
        | Event::MoneyDeposited(_)
        | Event::TransferReceived(_)
        | Event::HoldCaptured(_)
        | Event::HoldReleased(_)
        | Event::LimitsSet(_)
        | Event::AccountFrozen(_)
        | Event::AccountUnfrozen(_)
        | Event::AccountClosed(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use passbook_domain::holds::hold_id;
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;

    fn event(name: &str, data: Value) -> Event {
        Event::decode(name, 1, &data.to_string()).expect("an event")
    }

    fn opened(initial_deposit: i64) -> Event {
        let data = json!({"owner": "ada", "currency": "EUR", "initial_deposit": initial_deposit});
        event("AccountOpened", data)
    }

    fn moved(name: &str, amount: i64) -> Event {
        event(name, json!({"amount": amount}))
    }

    fn placed(version: i64) -> Event {
        let hold_id = hold_id(version, Uuid::nil());
        event("HoldPlaced", json!({"hold_id": hold_id, "amount": 1, "expires_at": "2027-01-01T00:00:00Z"}))
    }

    /// Checks these events of one account, recorded at the same moment, and returns the first finding.
    fn check(events: impl IntoIterator<Item = Event>) -> Result<(), String> {
        let recorded_at = "2026-01-01T00:00:00Z".parse().expect("a time");
        let mut account = Account::default();
        for event in events {
            check_status(&account, &event)?;
            account = account.evolve(&event, recorded_at);
            check_acceptance(account.opened().expect("an opened account"), &event, recorded_at)?;
        }
        Ok(())
    }

    #[track_caller]
    fn assert_found(events: Vec<Event>, reason: &str) {
        let found = check(events).expect_err("a finding");
        assert!(found.contains(reason), "{found}");
    }

    fn empty(name: &str) -> Event {
        event(name, json!({}))
    }

    #[test]
    fn events_that_the_status_refuses_are_found() {
        assert_found(vec![opened(0), opened(0)], "second time");
        assert_found(vec![opened(0), empty("AccountClosed"), moved("MoneyDeposited", 1)], "after its closing");
        assert_found(vec![opened(0), empty("AccountUnfrozen")], "not frozen");
        let frozen = |last: Event| vec![opened(5), empty("AccountFrozen"), last];
        for refused in [moved("MoneyDeposited", 1), moved("MoneyWithdrawn", 1), placed(3), empty("AccountFrozen")] {
            assert_found(frozen(refused), "while it is frozen");
        }
        for accepted in [empty("AccountUnfrozen"), event("LimitsSet", json!({"overdraft": 0}))] {
            assert_eq!(check(frozen(accepted)), Ok(()));
        }
    }

    #[test]
    fn accounts_that_are_closed_with_money_or_holds_are_found() {
        assert_found(vec![opened(5), empty("AccountClosed")], "closed with");
        let used = [opened(0), event("LimitsSet", json!({"overdraft": 5})), placed(3), empty("AccountClosed")];
        assert_found(used.into(), "closed with");
        assert_eq!(check([opened(0), empty("AccountClosed")]), Ok(()));
    }

    #[test]
    fn more_than_200_active_holds_are_found() {
        let holds =
            |count: i64| -> Vec<Event> { [opened(500)].into_iter().chain((2..2 + count).map(placed)).collect() };
        assert_eq!(check(holds(200)), Ok(()));
        assert_found(holds(201), "active holds");
    }

    #[test]
    fn balance_and_overdraft_above_the_maximum_are_found() {
        let limits = event("LimitsSet", json!({"overdraft": 10}));
        assert_eq!(check([opened(MINOR_UNITS_MAX - 10), limits.clone()]), Ok(()));
        assert_found(vec![opened(MINOR_UNITS_MAX - 9), limits.clone()], "invalid balance");
        assert_found(vec![opened(MINOR_UNITS_MAX - 10), limits, moved("MoneyDeposited", 1)], "invalid balance");
    }
}
