//! What the clients were told, compared with what is recorded.

use std::collections::{BTreeMap, HashMap, HashSet};

use passbook::event_store::{Partitions, Position};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    crowd::{Answer, Told, accounts_of, id_of},
    support::log::{Event, Log},
};

/// An account after one of its events.
#[derive(Clone, Debug, Default, PartialEq)]
struct State {
    balance: i64,
    status: &'static str,
}

/// Commands that are recorded although their last attempt was refused: an attempt before it, which had been left without
/// an answer, was still under way, and succeeded after the refusal. Where no attempt was left so, that cannot be.
pub fn overtaken<'a>(told: &'a mut [Told], log: &Log) -> Vec<&'a mut Told> {
    let recorded: HashSet<String> = log.events.iter().map(command_of).collect();
    let is_overtaken = |one: &&mut Told| {
        matches!(one.answer, Answer::Refused(_)) && one.was_in_doubt && recorded.contains(&one.command.key)
    };
    told.iter_mut().filter(is_overtaken).collect()
}

/// Everything that must hold between the two.
pub fn compare(told: &[Told], log: &Log) {
    let partitions = Partitions::new(i16::try_from(log.heads.len()).unwrap()).unwrap();
    let states = states(&log.events);
    let mut by_command: HashMap<String, Vec<&Event>> = HashMap::new();
    for event in &log.events {
        by_command.entry(command_of(event)).or_default().push(event);
    }
    for one in told {
        let recorded = by_command.remove(&one.command.key).unwrap_or_default();
        match &one.answer {
            // At most once.
            Answer::Unknown => {
                assert!(recorded.is_empty() || is_of(&recorded, one.command.facts), "{one:?}: {recorded:?}")
            }
            Answer::Recorded(receipt) => is_what_was_told(one, receipt, &recorded, &states, partitions),
            Answer::Refused(_) => assert!(recorded.is_empty(), "{one:?} was refused and is recorded: {recorded:?}"),
        }
    }
    assert!(by_command.is_empty(), "nobody was told of {by_command:?}");
}

fn command_of(event: &Event) -> String {
    let metadata: Value = serde_json::from_str(&event.metadata).unwrap();
    metadata["correlation_id"].as_str().unwrap().to_owned()
}

/// Whether these facts are recorded, in whichever order.
fn is_of(events: &[&Event], facts: &[&str]) -> bool {
    let (mut recorded, mut facts) = (types(events), facts.to_vec());
    recorded.sort_unstable();
    facts.sort_unstable();
    recorded == facts
}

fn types<'a>(events: &[&'a Event]) -> Vec<&'a str> {
    events.iter().map(|event| event.event_type.as_str()).collect()
}

/// Recorded once, and as the receipt says.
fn is_what_was_told(
    told: &Told,
    receipt: &Value,
    recorded: &[&Event],
    states: &HashMap<(Uuid, i64), State>,
    partitions: Partitions,
) {
    let accounts = accounts_of(receipt);
    assert_eq!(accounts.len(), recorded.len(), "{told:?}");
    // Of two that happened at once in two partitions neither is the first.
    let of = |account: &&Value| *recorded.iter().find(|event| event.stream_id == id_of(account)).unwrap();
    let recorded = &accounts.iter().map(of).collect::<Vec<_>>();
    assert_eq!(types(recorded), told.command.facts, "{told:?} is recorded as {recorded:?}");
    let place = |event: &Event| partitions.position(event.partition, event.position);
    for (account, event) in accounts.into_iter().zip(recorded) {
        let fact = &account["events"][0];
        let told_of = (id_of(account), account["version"].as_i64(), fact["id"].as_str().unwrap().to_owned());
        assert_eq!(told_of, (event.stream_id, Some(event.version), event.id.to_string()), "{told:?}");
        assert_eq!(account["position"], place(event).to_string(), "{told:?}");
        let at: chrono::DateTime<chrono::Utc> = fact["recorded_at"].as_str().unwrap().parse().unwrap();
        assert_eq!(at, event.recorded_at, "{told:?}");
        let state = &states[&(event.stream_id, event.version)];
        assert_eq!(account["balance"].as_i64(), Some(state.balance), "{told:?}");
        assert_eq!(account["status"], state.status, "{told:?}");
    }
    let last = recorded.iter().map(|event| place(event)).reduce(Position::and).unwrap();
    assert_eq!(receipt["position"], last.to_string(), "{told:?}");
}

/// Each account after each of its events, none of which may happen to it in another state.
fn states(events: &[Event]) -> HashMap<(Uuid, i64), State> {
    let mut now: BTreeMap<Uuid, State> = BTreeMap::new();
    let mut states = HashMap::new();
    for event in events {
        let state = now.entry(event.stream_id).or_default();
        let amount = |name: &str| event.json()[name].as_i64().unwrap();
        let (needed, moved, status) = match event.event_type.as_str() {
            "AccountOpened" => ("", amount("initial_deposit"), "open"),
            "MoneyDeposited" | "TransferReceived" => ("open", amount("amount"), "open"),
            "MoneyWithdrawn" | "TransferSent" => ("open", -amount("amount"), "open"),
            "AccountFrozen" => ("open", 0, "frozen"),
            "AccountUnfrozen" => ("frozen", 0, "open"),
            "AccountClosed" => ("open", 0, "closed"),
            other => panic!("{other} is no type of event"),
        };
        assert_eq!(state.status, needed, "{event:?} happens to an account that is not so");
        assert!(status != "closed" || state.balance == 0, "{event:?} closes an account with {}", state.balance);
        *state = State { balance: state.balance + moved, status };
        assert!(state.balance >= 0, "{event:?} makes the balance negative");
        states.insert((event.stream_id, event.version), state.clone());
    }
    states
}
