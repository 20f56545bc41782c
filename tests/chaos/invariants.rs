//! Compares the responses that clients got with the event log. Each acknowledged command is recorded exactly once, each rejected
//! command is not recorded, and each receipt matches its events.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use passbook_event_store::{Partitions, Position};
use passbook_testkit::log::{Event, Log};
use serde_json::{Value, json};

use crate::{
    books::{Books, Hold},
    client::{CommandRecord, Outcome, account_id, accounts_of, receipts_of},
    settings::Settings,
};

/// The caller that records expiries of holds.
const EXPIRY_CALLER: &str = "passbook:expiry";

/// Returns the commands that are recorded although their last attempt was rejected. There must be none: a rejection is recorded
/// under the command's key, so that an earlier attempt that is still in flight cannot succeed.
pub fn recorded_after_rejection<'a>(records: &'a [CommandRecord], log: &Log) -> Vec<&'a CommandRecord> {
    let recorded: HashSet<String> = log.events.iter().map(command_key).collect();
    let is_recorded_after_rejection = |record: &&CommandRecord| {
        matches!(record.outcome, Outcome::Rejected(_)) && recorded.contains(&record.command.key)
    };
    records.iter().filter(is_recorded_after_rejection).collect()
}

/// Asserts that the log matches the outcome of every command, and that it holds no other events than those of holds that expired.
pub fn check(records: &[CommandRecord], log: &Log, books: &Books) {
    let partitions = Partitions::new(i16::try_from(log.heads.len()).unwrap()).unwrap();
    let mut by_command: HashMap<String, Vec<&Event>> = HashMap::new();
    for event in &log.events {
        if metadata(event)["user_id"] == EXPIRY_CALLER {
            assert!(is_expiry(event), "the task that records expiries recorded {event:?}");
        } else {
            by_command.entry(command_key(event)).or_default().push(event);
        }
    }
    for record in records {
        let recorded = match &record.command.request {
            Some(request) => by_command.get_mut(request).map(|events| take_named(&record.outcome, events)),
            None => by_command.remove(&record.command.key),
        };
        let recorded = recorded.unwrap_or_default();
        match &record.outcome {
            Outcome::Unknown => assert!(
                recorded.is_empty() || records_once(record, &recorded),
                "{record:?} must be recorded at most once, but the log holds {recorded:?}"
            ),
            Outcome::Recorded(receipt) => check_receipt(record, receipt, &recorded, books, partitions),
            Outcome::Rejected(_) => assert!(recorded.is_empty(), "{record:?} was rejected but recorded: {recorded:?}"),
        }
    }
    by_command.retain(|_, events| !events.is_empty());
    assert!(by_command.is_empty(), "no client received a response for these events: {by_command:?}");
}

/// Takes the events that a receipt names out of those of its request. Those that no receipt of the request names stay.
fn take_named<'e>(outcome: &Outcome, events: &mut Vec<&'e Event>) -> Vec<&'e Event> {
    let Outcome::Recorded(receipt) = outcome else { return vec![] };
    let named = event_ids(receipt);
    events.extract_if(.., |event| named.contains(&event.id.to_string())).collect()
}

/// The ids of the events that a receipt names.
fn event_ids(receipt: &Value) -> HashSet<String> {
    let accounts = receipts_of(receipt).into_iter().flat_map(accounts_of);
    let facts = accounts.flat_map(|account| account["events"].as_array().unwrap());
    facts.map(|fact| fact["id"].as_str().unwrap().to_owned()).collect()
}

fn metadata(event: &Event) -> Value {
    serde_json::from_str(&event.metadata).unwrap()
}

/// The key of the command that caused an event: its correlation id.
fn command_key(event: &Event) -> String {
    metadata(event)["correlation_id"].as_str().unwrap().to_owned()
}

fn is_expiry(event: &Event) -> bool {
    event.event_type == "HoldReleased" && event.json()["cause"] == "expired"
}

/// Whether these are the events of one execution of the command, in any order. Expiries may precede it.
fn records_once(record: &CommandRecord, events: &[&Event]) -> bool {
    let own = events.iter().filter(|event| !is_expiry(event));
    let mut types: Vec<&str> = own.map(|event| event.event_type.as_str()).collect();
    if !record.command.items.is_empty() {
        return record.command.records_all(&types);
    }
    // Events in two partitions have no order. This one puts TransferSent before TransferReceived.
    types.sort_unstable_by(|one, other| other.cmp(one));
    record.command.records(&types)
}

/// Asserts that a command, or each command of a batch, is recorded once and that each value of its receipt matches the recorded events.
fn check_receipt(record: &CommandRecord, receipt: &Value, recorded: &[&Event], books: &Books, partitions: Partitions) {
    if record.command.items.is_empty() {
        return check_command(record, receipt, recorded, books, partitions);
    }
    let (items, results) = (&record.command.items, receipts_of(receipt));
    assert_eq!(items.len(), results.len(), "{record:?}");
    let mut unnamed = recorded.to_vec();
    let mut positions = Vec::new();
    for (item, result) in items.iter().zip(results) {
        let outcome = Outcome::Recorded(result.clone());
        let named = take_named(&outcome, &mut unnamed);
        let of_item = CommandRecord { command: item.clone(), outcome, ..record.clone() };
        check_command(&of_item, result, &named, books, partitions);
        positions.push(result["position"].as_str().unwrap().parse::<Position>().unwrap());
    }
    assert!(unnamed.is_empty(), "{record:?} also recorded {unnamed:?}");
    let merged = positions.into_iter().reduce(Position::merge).unwrap();
    assert_eq!(receipt["position"], merged.to_string(), "{record:?}");
    let batch_ids: HashSet<Value> = recorded.iter().map(|event| metadata(event)["batch_id"].clone()).collect();
    assert_eq!(batch_ids, HashSet::from([receipt["batch_id"].clone()]), "{record:?}");
    let times: HashSet<DateTime<Utc>> = recorded.iter().map(|event| event.recorded_at).collect();
    assert_eq!(times.len(), 1, "{record:?} is recorded at several times");
}

/// Asserts that a command is recorded once and that each value of its receipt matches the recorded events.
fn check_command(record: &CommandRecord, receipt: &Value, recorded: &[&Event], books: &Books, partitions: Partitions) {
    let position_of = |event: &Event| partitions.position_in(event.partition, event.position);
    let mut last_events = Vec::new();
    for account in accounts_of(receipt) {
        let own: Vec<&Event> =
            recorded.iter().copied().filter(|event| event.stream_id == account_id(account)).collect();
        assert_eq!(account["events"], own.iter().map(|event| fact(event)).collect::<Value>(), "{record:?}");
        let (last, expiries) = own.split_last().unwrap_or_else(|| panic!("{record:?} is not recorded"));
        assert!(expiries.iter().all(|event| is_expiry(event)), "{record:?} is recorded as {own:?}");
        assert_eq!(account["position"], position_of(last).to_string(), "{record:?}");
        let after = books.after(last);
        // The previous release, if it takes part, does not know what is available.
        let is_of_previous = account.get("available").is_none() && Settings::read().previous.is_some();
        let available = if is_of_previous { Value::Null } else { json!(after.available) };
        let expected = json!([last.version, after.status, after.balance, available]);
        let found = ["version", "status", "balance", "available"].map(|member| &account[member]);
        assert_eq!(json!(found), expected, "version, status, balance and available of {record:?}");
        last_events.push(*last);
    }
    let event_count: usize =
        accounts_of(receipt).iter().map(|account| account["events"].as_array().unwrap().len()).sum();
    assert_eq!(recorded.len(), event_count, "{record:?} is recorded as {recorded:?}");
    let types: Vec<&str> = last_events.iter().map(|event| event.event_type.as_str()).collect();
    assert!(record.command.records(&types), "{record:?} is recorded as {recorded:?}");
    let hold = books.after(last_events[0]).hold.as_ref();
    let hold = hold.map_or(Value::Null, |hold| hold_receipt(hold, last_events[0]));
    assert_eq!(receipt["hold"], hold, "{record:?}");
    let last = last_events.iter().map(|event| position_of(event)).reduce(Position::merge).unwrap();
    assert_eq!(receipt["position"], last.to_string(), "{record:?}");
}

/// An event as a receipt names it.
fn fact(event: &Event) -> Value {
    json!({
        "id": event.id,
        "type": event.event_type,
        "version": event.version,
        "recorded_at": time(event.recorded_at),
    })
}

/// The hold of a receipt after `event` of its account.
fn hold_receipt(hold: &Hold, event: &Event) -> Value {
    json!({
        "hold_id": hold.id,
        "account_id": event.stream_id,
        "status": hold.status,
        "amount": hold.amount,
        "captured": hold.captured,
        "remaining": if hold.status == "active" { hold.remaining() } else { 0 },
        "placed_at": time(hold.placed_at),
        "expires_at": time(hold.expires_at),
        "version": hold.version,
    })
}

fn time(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}
