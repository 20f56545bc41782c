//! Benchmarks of the pure functions that a command calls before the database: decide, evolve, hash, encode and decode.
//! Run them with `cargo bench --package bench`.

use std::hint::black_box;

use chrono::DateTime;
use divan::{Bencher, counter::ItemsCount};
use passbook_domain::account::Account;
use passbook_domain::command::{AccountCommand, Movement, PlaceHold};
use passbook_domain::event::Event;
use passbook_domain::money::{Amount, Currency};
use passbook_domain::{Channel, Metadata};
use passbook_event_store::hash_chain::{HashedFields, hash};
use passbook_telemetry::metrics::METRICS;
use uuid::Uuid;

const FOLDED_EVENTS: usize = 1_000;
const METADATA: &str = r#"{"user_id":"teller-7","correlation_id":"018f2f3a-0000-7000-8000-000000000001","causation_id":"018f2f3a-0000-7000-8000-000000000002"}"#;

fn opening() -> AccountCommand {
    AccountCommand::Open {
        owner: "customer-17".into(),
        currency: Currency::EUR,
        initial_deposit: 10_000,
        metadata: Metadata::default(),
    }
}

fn deposit() -> AccountCommand {
    let amount = Amount::try_from(500).expect("a valid amount");
    let reference = Some("invoice 4711".to_owned());
    AccountCommand::Deposit(
        Movement { amount, currency: Some(Currency::EUR), reference, metadata: Metadata::default() },
        Some(Channel::Branch),
    )
}

fn encode(event: &Event) -> String {
    serde_json::to_string(event).expect("an event serializes to JSON")
}

fn decide_event(account: &Account, command: &AccountCommand) -> Event {
    account.decide(command, DateTime::UNIX_EPOCH).expect("the command is valid").remove(0)
}

/// An open account, and the event of a deposit to it.
fn account() -> (Account, Event) {
    let account = Account::default();
    let opened = decide_event(&account, &opening());
    let account = account.evolve(&opened, DateTime::UNIX_EPOCH);
    let deposited = decide_event(&account, &deposit());
    (account, deposited)
}

fn main() {
    divan::main();
}

#[divan::bench]
fn decide_a_deposit(bencher: Bencher) {
    let ((account, _), deposit) = (account(), deposit());
    bencher.bench_local(|| black_box(&account).decide(black_box(&deposit), DateTime::UNIX_EPOCH));
}

#[divan::bench]
fn fold_events(bencher: Bencher) {
    let (account, deposited) = account();
    let events = vec![deposited; FOLDED_EVENTS];
    let bencher = bencher.counter(ItemsCount::new(FOLDED_EVENTS)).with_inputs(|| account.clone());
    bencher.bench_local_values(|account| {
        events.iter().fold(account, |account, event| account.evolve(event, DateTime::UNIX_EPOCH))
    });
}

/// An account with this many active holds.
fn account_with_holds(holds: usize) -> Account {
    (0..holds).fold(account().0, |account, number| {
        let placed = decide_event(&account, &place_hold(number));
        account.evolve(&placed, DateTime::UNIX_EPOCH)
    })
}

fn place_hold(number: usize) -> AccountCommand {
    AccountCommand::PlaceHold(PlaceHold {
        unique: Uuid::from_u128(number as u128),
        movement: Movement {
            amount: Amount::try_from(1).expect("a valid amount"),
            currency: None,
            reference: None,
            metadata: Metadata::default(),
        },
        expires_in_seconds: 3_600,
    })
}

#[divan::bench(args = [0, 199])]
fn decide_a_placement_beside_holds(bencher: Bencher, holds: usize) {
    let (account, placement) = (account_with_holds(holds), place_hold(holds));
    bencher.bench_local(|| black_box(&account).decide(black_box(&placement), DateTime::UNIX_EPOCH));
}

#[divan::bench(args = [0, 200])]
fn decide_a_deposit_beside_holds(bencher: Bencher, holds: usize) {
    let (account, deposit) = (account_with_holds(holds), deposit());
    bencher.bench_local(|| black_box(&account).decide(black_box(&deposit), DateTime::UNIX_EPOCH));
}

#[divan::bench(args = [0, 200])]
fn fold_a_deposit_beside_holds(bencher: Bencher, holds: usize) {
    let (account_with_holds, deposited) = (account_with_holds(holds), account().1);
    let bencher = bencher.with_inputs(|| account_with_holds.clone());
    bencher.bench_local_values(|account| account.evolve(black_box(&deposited), DateTime::UNIX_EPOCH));
}

#[divan::bench]
fn hash_an_event(bencher: Bencher) {
    let (_, event) = account();
    let data = encode(&event);
    let fields = HashedFields {
        partition: 0,
        position: 42,
        id: Uuid::from_u128(7),
        stream_id: Uuid::from_u128(8),
        version: 3,
        event_type: event.name(),
        schema_version: event.schema_version(),
        data: &data,
        metadata: METADATA,
        recorded_at: DateTime::UNIX_EPOCH,
    };
    bencher.bench_local(|| hash(black_box(&[7; 32]), black_box(fields)));
}

#[divan::bench]
fn encode_an_event(bencher: Bencher) {
    let (_, event) = account();
    bencher.bench_local(|| encode(black_box(&event)));
}

#[divan::bench]
fn decode_an_event(bencher: Bencher) {
    let (_, event) = account();
    let data = encode(&event);
    bencher.bench_local(|| Event::decode(event.name(), event.schema_version(), black_box(&data)));
}

#[divan::bench]
fn update_the_metrics_of_a_request() {
    METRICS.requests.with_label_values(black_box(&["POST", "/v1/accounts/{id}/deposits", "201"])).observe(0.004);
    METRICS.replays.inc_by(0);
}
