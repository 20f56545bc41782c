//! Benchmarks of the pure functions that a command calls before the database: decide, evolve, hash, encode and decode.
//! Run them with `cargo bench --package bench`.

use std::hint::black_box;

use chrono::DateTime;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use passbook_domain::Channel;
use passbook_domain::account::Account;
use passbook_domain::command::{AccountCommand, Movement};
use passbook_domain::event::Event;
use passbook_domain::money::{Amount, Currency};
use passbook_event_store::hash_chain::{HashedFields, hash};
use passbook_telemetry::metrics::METRICS;
use uuid::Uuid;

const FOLDED_EVENTS: usize = 1_000;
const METADATA: &str = r#"{"user_id":"teller-7","correlation_id":"018f2f3a-0000-7000-8000-000000000001","causation_id":"018f2f3a-0000-7000-8000-000000000002"}"#;

fn opening() -> AccountCommand {
    AccountCommand::Open { owner: "customer-17".into(), currency: Currency::EUR, initial_deposit: 10_000 }
}

fn deposit() -> AccountCommand {
    let amount = Amount::try_from(500).expect("a valid amount");
    let reference = Some("invoice 4711".to_owned());
    AccountCommand::Deposit(Movement { amount, currency: Some(Currency::EUR), reference }, Some(Channel::Branch))
}

fn encode(event: &Event) -> String {
    serde_json::to_string(event).expect("an event serializes to JSON")
}

fn decide_event(account: &Account, command: &AccountCommand) -> Event {
    account.decide(command).expect("the command is valid")
}

/// An open account, and the event of a deposit to it.
fn account() -> (Account, Event) {
    let account = Account::default();
    let opened = decide_event(&account, &opening());
    let account = account.evolve(&opened);
    let deposited = decide_event(&account, &deposit());
    (account, deposited)
}

fn decide(c: &mut Criterion) {
    let (account, _) = account();
    let deposit = deposit();
    c.bench_function("decide a deposit", |b| b.iter(|| black_box(&account).decide(black_box(&deposit))));
}

fn fold(c: &mut Criterion) {
    let (account, deposited) = account();
    let events = vec![deposited; FOLDED_EVENTS];
    let mut group = c.benchmark_group("fold");
    group.throughput(Throughput::Elements(FOLDED_EVENTS as u64));
    group.bench_function("1 000 events", |b| {
        let fold = |account: Account| events.iter().fold(account, Account::evolve);
        b.iter_batched(|| account.clone(), fold, BatchSize::SmallInput);
    });
    group.finish();
}

fn hash_event(c: &mut Criterion) {
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
    c.bench_function("hash an event", |b| b.iter(|| hash(black_box(&[7; 32]), black_box(fields))));
}

fn encode_and_decode(c: &mut Criterion) {
    let (_, event) = account();
    let data = encode(&event);
    c.bench_function("encode an event", |b| b.iter(|| encode(black_box(&event))));
    c.bench_function("decode an event", |b| {
        b.iter(|| Event::decode(event.name(), event.schema_version(), black_box(&data)));
    });
}

/// The metrics that one request updates.
fn update_metrics(c: &mut Criterion) {
    let update = || {
        METRICS.requests.with_label_values(black_box(&["POST", "/v1/accounts/{id}/deposits", "201"])).observe(0.004);
        METRICS.replays.inc_by(0);
    };
    c.bench_function("update the metrics of a request", |b| b.iter(update));
}

criterion_group!(pure, decide, fold, hash_event, encode_and_decode, update_metrics);
criterion_main!(pure);
