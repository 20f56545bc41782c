//! Compares the responses that clients got with the event log. Each acknowledged command is recorded exactly once, each rejected
//! command is not recorded, and each receipt matches its events.

use std::collections::{BTreeMap, HashMap, HashSet};

use passbook_event_store::{Partitions, Position};
use passbook_testkit::log::{Event, Log};
use serde_json::Value;
use uuid::Uuid;

use crate::workload::{CommandRecord, Outcome, account_id, accounts_of};

/// An account after one of its events.
#[derive(Clone, Debug, Default, PartialEq)]
struct State {
    balance: i64,
    status: &'static str,
}

/// Returns the commands that are recorded although their last attempt was rejected. There must be none: a rejection is recorded
/// under the command's key, so that an earlier attempt that is still in flight cannot succeed.
pub fn recorded_after_rejection<'a>(records: &'a [CommandRecord], log: &Log) -> Vec<&'a CommandRecord> {
    let recorded: HashSet<String> = log.events.iter().map(command_key).collect();
    let is_recorded_after_rejection = |record: &&CommandRecord| {
        matches!(record.outcome, Outcome::Rejected(_)) && recorded.contains(&record.command.key)
    };
    records.iter().filter(is_recorded_after_rejection).collect()
}

/// Asserts that the log matches the outcome of every command, and that it holds no other events.
pub fn check(records: &[CommandRecord], log: &Log) {
    let partitions = Partitions::new(i16::try_from(log.heads.len()).unwrap()).unwrap();
    let states = states(&log.events);
    let mut by_command: HashMap<String, Vec<&Event>> = HashMap::new();
    for event in &log.events {
        by_command.entry(command_key(event)).or_default().push(event);
    }
    for record in records {
        let recorded = by_command.remove(&record.command.key).unwrap_or_default();
        match &record.outcome {
            Outcome::Unknown => assert!(
                recorded.is_empty() || has_types(&recorded, record.command.event_types),
                "{record:?} must be recorded at most once, but the log holds {recorded:?}"
            ),
            Outcome::Recorded(receipt) => check_receipt(record, receipt, &recorded, &states, partitions),
            Outcome::Rejected(_) => assert!(recorded.is_empty(), "{record:?} was rejected but recorded: {recorded:?}"),
        }
    }
    assert!(by_command.is_empty(), "no client received a response for these events: {by_command:?}");
}

/// The key of the command that caused an event: its correlation id.
fn command_key(event: &Event) -> String {
    let metadata: Value = serde_json::from_str(&event.metadata).unwrap();
    metadata["correlation_id"].as_str().unwrap().to_owned()
}

/// Whether the events have exactly these types, in any order.
fn has_types(events: &[&Event], expected: &[&str]) -> bool {
    let (mut recorded, mut expected) = (types(events), expected.to_vec());
    recorded.sort_unstable();
    expected.sort_unstable();
    recorded == expected
}

fn types<'a>(events: &[&'a Event]) -> Vec<&'a str> {
    events.iter().map(|event| event.event_type.as_str()).collect()
}

/// Asserts that a command is recorded once and that each value of its receipt matches the recorded events.
fn check_receipt(
    record: &CommandRecord,
    receipt: &Value,
    recorded: &[&Event],
    states: &HashMap<(Uuid, i64), State>,
    partitions: Partitions,
) {
    let accounts = accounts_of(receipt);
    assert_eq!(accounts.len(), recorded.len(), "{record:?}");
    // Events in two partitions have no order, so each event is found by its account.
    let event_of = |account: &&Value| *recorded.iter().find(|event| event.stream_id == account_id(account)).unwrap();
    let recorded = &accounts.iter().map(event_of).collect::<Vec<_>>();
    assert_eq!(types(recorded), record.command.event_types, "{record:?} is recorded as {recorded:?}");
    let position_of = |event: &Event| partitions.position_in(event.partition, event.position);
    for (account, event) in accounts.into_iter().zip(recorded) {
        let reported = &account["events"][0];
        let ids = (account_id(account), account["version"].as_i64(), reported["id"].as_str().unwrap().to_owned());
        assert_eq!(ids, (event.stream_id, Some(event.version), event.id.to_string()), "{record:?}");
        assert_eq!(account["position"], position_of(event).to_string(), "{record:?}");
        let recorded_at: chrono::DateTime<chrono::Utc> = reported["recorded_at"].as_str().unwrap().parse().unwrap();
        assert_eq!(recorded_at, event.recorded_at, "{record:?}");
        let state = &states[&(event.stream_id, event.version)];
        assert_eq!(account["balance"].as_i64(), Some(state.balance), "{record:?}");
        assert_eq!(account["status"], state.status, "{record:?}");
    }
    let last = recorded.iter().map(|event| position_of(event)).reduce(Position::merge).unwrap();
    assert_eq!(receipt["position"], last.to_string(), "{record:?}");
}

/// Folds the log into the state of each account after each event. Asserts that the state allows each event.
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
            other => panic!("unknown event type {other}"),
        };
        assert_eq!(state.status, needed, "{event:?} is not allowed in this status");
        assert!(status != "closed" || state.balance == 0, "{event:?} closes an account with balance {}", state.balance);
        *state = State { balance: state.balance + moved, status };
        assert!(state.balance >= 0, "{event:?} makes the balance negative");
        states.insert((event.stream_id, event.version), state.clone());
    }
    states
}
