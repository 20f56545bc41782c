//! `passbook copy`: copies a log into one with more partitions. All data except positions and hashes stays the same,
//! and earlier receipts stay valid.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use passbook::config::Config;
use passbook::service;
use passbook_audit::verification;
use passbook_database::Database;
use passbook_event_store::{Partitions, Position};
use passbook_repartition::{CopiedLog, Error, ProjectorSet, Repartition};
use passbook_testkit::{
    ApiClient, App, Response, Rng,
    app::{empty_database, start_app},
    audit::audit,
    cluster::TestDatabase,
    spawn_app_with,
};
use serde_json::{Value, json};
use uuid::Uuid;

use std::sync::Arc;

/// The database of the new log.
struct Target {
    database: Arc<TestDatabase>,
    config: Config,
    partitions: Partitions,
}

impl Target {
    async fn new(partitions: i16) -> Self {
        let (database, config) = empty_database(&[&format!("--partitions={partitions}")]).await;
        Self { database, config, partitions: Partitions::new(partitions).unwrap() }
    }

    async fn open(&self, source: &App) -> Result<Repartition, Error> {
        let (from, to) = (
            Database::open(&source.config().database()).await.unwrap(),
            Database::open(&self.config.database()).await.unwrap(),
        );
        Repartition::open(&from.writer(), &to.writer(), source.partitions(), self.partitions).await
    }

    /// Copies the rest of the log and projects the views.
    async fn finish(&self, source: &App) -> Result<CopiedLog, Error> {
        let copy = self.open(source).await?;
        let to = Database::open(&self.config.database()).await.unwrap();
        let projectors = ProjectorSet::start(&to.projector(), self.partitions).await.unwrap();
        let copied = copy.finish(|_, _| ()).await?;
        projectors.finish().await;
        Ok(copied)
    }

    async fn serve(self) -> App {
        start_app(self.config, self.database).await
    }
}

/// Runs commands with idempotency keys on eight accounts; returns the accounts and the responses by key.
async fn history(app: &App, seed: u64) -> (Vec<Uuid>, BTreeMap<String, Response>) {
    let client = app.client();
    let mut responses = BTreeMap::new();
    let mut accounts = Vec::new();
    for n in 0..8 {
        let key = format!("open-{seed}-{n}");
        let mut body = json!({"currency": "EUR", "initial_deposit": 100});
        if n % 2 == 0 {
            body["account_id"] = json!(Uuid::from_u128(u128::from(seed) * 100 + n));
        }
        let opened = client.with_key(&key).open(body).await.expect(201);
        accounts.push(opened.account_id());
        responses.insert(key, opened);
    }
    let mut rng = Rng::new(seed);
    for n in 0..60 {
        let [from, to] = [(); 2].map(|()| accounts[usize::try_from(rng.below(8)).unwrap()]);
        let key = format!("do-{seed}-{n}");
        let response = send_command(&client.with_key(&key), n, from, to).await;
        if response.status == 201 {
            responses.insert(key, response);
        }
    }
    (accounts, responses)
}

async fn send_command(client: &ApiClient, n: usize, from: Uuid, to: Uuid) -> Response {
    match n % 3 {
        0 => client.deposit(from, 5).await,
        1 => client.withdraw(from, 3).await,
        _ => client.transfer(from, to, 2).await,
    }
}

/// The parts of each event that a copy preserves.
fn preserved(log: &passbook_testkit::log::Log) -> Vec<(Uuid, Uuid, i64, String, String, String, String)> {
    let mut preserved: Vec<_> = log
        .events
        .iter()
        .map(|event| {
            let event = event.clone();
            let time = passbook_event_store::timestamp::format(&event.recorded_at);
            (event.id, event.stream_id, event.version, event.event_type, event.data, event.metadata, time)
        })
        .collect();
    preserved.sort_unstable();
    preserved
}

/// A receipt without its positions, and the positions.
fn split_positions(response: &Response) -> (Value, Vec<Position>) {
    let mut body = response.body.clone();
    let mut positions = Vec::new();
    for pointer in ["", "/from", "/to"] {
        if let Some(position) = body.pointer_mut(&format!("{pointer}/position")) {
            positions.push(position.as_str().unwrap().parse().unwrap());
            *position = Value::Null;
        }
    }
    (body, positions)
}

#[tokio::test]
async fn copy_preserves_all_but_positions_and_hashes() {
    for (from, to) in [(1, 4), (2, 4), (4, 4), (1, 16)] {
        let mut old = spawn_app_with(&[&format!("--partitions={from}"), "--snapshot-every=5"]).await;
        let (accounts, responses) = history(&old, 1).await;
        let before = audit(&old).await;
        old.stop().await;
        old.wait_until_disconnected().await;
        let target = Target::new(to).await;
        let copied = target.finish(&old).await.unwrap();
        assert_eq!(copied.events, i64::try_from(before.events.len()).unwrap());
        let new = target.serve().await;
        let after = audit(&new).await;
        assert_eq!(preserved(&after), preserved(&before));
        let partitions = new.partitions();
        verification::verify(&new.auditor().await, partitions, &[], |_, _| ()).await.unwrap();

        // Retries are replayed; their positions are those of the new log.
        let mut rng = Rng::new(1);
        let client = new.client();
        for n in 0..8 {
            let mut body = json!({"currency": "EUR", "initial_deposit": 100});
            if n % 2 == 0 {
                body["account_id"] = json!(Uuid::from_u128(100 + n));
            }
            assert_replayed(&responses, &format!("open-1-{n}"), async |keyed| keyed.open(body.clone()).await, &client)
                .await;
        }
        for n in 0..60 {
            let [from, to] = [(); 2].map(|()| accounts[usize::try_from(rng.below(8)).unwrap()]);
            let key = format!("do-1-{n}");
            if responses.contains_key(&key) {
                assert_replayed(&responses, &key, async |keyed| send_command(keyed, n, from, to).await, &client).await;
            }
        }
        assert_eq!(new.log().await.head.position, before.head.position, "no command was executed twice");

        // The new log accepts commands.
        let transfer = responses.values().find(|response| response.body["transfer_id"].is_string()).unwrap();
        client.get(&format!("/v1/transfers/{}", transfer.text("/transfer_id"))).await.expect(200);
        join_all(accounts.iter().map(|account| async { client.deposit(*account, 1).await.expect(201) })).await;
        audit(&new).await;
    }
}

#[tokio::test]
async fn copy_keeps_holds_and_what_was_reversed() {
    let mut old = spawn_app_with(&["--partitions=1"]).await;
    let client = old.client();
    let (from, to) = (client.open_with_balance(1_000).await, client.open_with_balance(0).await);
    let sent = client.transfer(from, to, 100).await.expect(201);
    let version = sent.body["to"]["version"].as_i64().unwrap();
    let key = |n: usize| client.with_key(&format!("reversal-{n}"));
    let first = key(1).reverse(from, 2, json!({"amount": 30})).await.expect(201);
    let second = key(2).reverse(to, version, json!({"amount": 30})).await.expect(201);
    let placed = key(3).place_hold(from, json!({"amount": 500})).await.expect(201);
    old.stop().await;
    old.wait_until_disconnected().await;
    let target = Target::new(4).await;
    // The copy does not need these rows: the events contain the same.
    old.tamper("DELETE FROM reversal WHERE number = 1; UPDATE reversal SET reversed = 31").await;
    target.finish(&old).await.unwrap();
    let new = target.serve().await;
    audit(&new).await;
    verification::verify(&new.auditor().await, new.partitions(), &[], |_, _| ()).await.unwrap();
    let client = new.client();
    let key = |n: usize| client.with_key(&format!("reversal-{n}"));
    let replays = [
        (key(1).reverse(from, 2, json!({"amount": 30})).await.expect(201), &first),
        (key(2).reverse(to, version, json!({"amount": 30})).await.expect(201), &second),
        (key(3).place_hold(from, json!({"amount": 500})).await.expect(201), &placed),
    ];
    for (again, before) in replays {
        assert!(again.is_replay(), "{}", again.body);
        assert_eq!(split_positions(&again).0, split_positions(before).0);
    }
    let refused = client.reverse(to, version, json!({"amount": 41})).await;
    assert_eq!(refused.expect_problem(422, "exceeds_reversible").body["reversible"], 40);
    let rest = client.reverse(from, 2, json!({})).await.expect(201);
    assert_eq!((&rest.body["amount"], &rest.body["to"]["available"]), (&json!(40), &json!(500)));
    client.capture_hold(from, placed.uuid("/hold/hold_id"), json!({})).await.expect(201);
    audit(&new).await;
    verification::verify(&new.auditor().await, new.partitions(), &[], |_, _| ()).await.unwrap();
}

async fn assert_replayed(
    responses: &BTreeMap<String, Response>,
    key: &str,
    retry: impl AsyncFn(&ApiClient) -> Response,
    client: &ApiClient,
) {
    let again = retry(&client.with_key(key)).await.expect(201);
    assert!(again.is_replay(), "{key}: {}", again.body);
    let ((before, _), (after, positions)) = (split_positions(&responses[key]), split_positions(&again));
    assert_eq!(before, after);
    let account = again.body["account_id"].as_str().or(again.body["from"]["account_id"].as_str()).unwrap();
    client.get_account(account.parse().unwrap(), &positions[0].to_string()).await.expect(200);
}

#[tokio::test]
async fn copy_of_a_running_service_can_be_interrupted_and_resumed() {
    let mut old = spawn_app_with(&["--partitions=2"]).await;
    let target = Target::new(8).await;
    let mut total = 0;
    for seed in 1..=3 {
        history(&old, seed).await;
        let mut copy = target.open(&old).await.unwrap();
        copy.catch_up(|_, _| ()).await.unwrap();
        // The copy is dropped here. The target keeps its part of the log but cannot be served yet.
        let error = service::Service::start(&target.config).await.expect_err("the copy is incomplete").to_string();
        assert!(error.contains("incomplete copy"), "{error}");
        total = old.log().await.head.position;
    }
    let refused = target.finish(&old).await.expect_err("the old service is running");
    assert!(matches!(refused, Error::SourceInUse), "{refused}");
    let (_, responses) = history(&old, 4).await;
    let before = old.log().await;
    assert!(before.head.position > total);
    old.stop().await;
    old.wait_until_disconnected().await;
    target.finish(&old).await.unwrap();
    let again = target.open(&old).await.err().expect("the copy is finished");
    assert!(matches!(again, Error::Finished(_)), "{again}");
    let new = target.serve().await;
    let after = audit(&new).await;
    assert_eq!((preserved(&after), after.keys >= before.keys), (preserved(&before), true));
    assert!(responses.len() > 20);
    verification::verify(&new.auditor().await, new.partitions(), &[], |_, _| ()).await.unwrap();
}

/// The number of rows of idempotency keys that ended sessions have read.
async fn keys_read(app: &App) -> i64 {
    app.wait_until_disconnected().await;
    sqlx::query_scalar(
        "SELECT coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) FROM pg_stat_user_tables WHERE relname = 'idempotency_key'",
    )
    .fetch_one(&mut app.rows_under_test().await)
    .await
    .unwrap()
}

/// Records keys of refusals before the first event, as a release without positions of keys did.
async fn record_old_keys(app: &App, count: usize) {
    app.tamper(&format!(
        r#"INSERT INTO idempotency_key (partition, caller, key, fingerprint, receipt, recorded_at)
           SELECT partition, 'caller', 'refused-' || n, '',
                  ('{{"account_id":"' || stream_id || '","refused":{{"rejected":{{"code":"account_not_found"}}}}}}')::json,
                  recorded_at - n * interval '1 millisecond'
           FROM event, generate_series(1, {count}) AS n
           WHERE version = 1 AND position = 1"#
    ))
    .await;
}

#[tokio::test]
async fn a_following_copy_reads_only_the_new_keys() {
    const KEYS: usize = 5_000;
    let mut old = spawn_app_with(&["--partitions=1"]).await;
    let (accounts, _) = history(&old, 1).await;
    record_old_keys(&old, KEYS).await;
    let target = Target::new(2).await;
    target.open(&old).await.unwrap().catch_up(|_, _| ()).await.unwrap();
    old.client().with_key("new").deposit(accounts[0], 1).await.expect(201);
    old.stop().await;
    let before = keys_read(&old).await;
    target.open(&old).await.unwrap().catch_up(|_, _| ()).await.unwrap();
    let read = keys_read(&old).await - before;
    assert!((1..10).contains(&read), "{read} rows were read for one new key");
    let copied = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM idempotency_key WHERE key = 'new'");
    assert_eq!(copied.fetch_one(&mut target.database.connect().await).await.unwrap(), 1);
}

#[tokio::test]
async fn verification_of_many_partitions_reads_each_key_at_most_twice() {
    let mut app = spawn_app_with(&["--partitions=16"]).await;
    history(&app, 1).await;
    app.stop().await;
    let keys = app.log().await.keys;
    let before = keys_read(&app).await;
    let report = verification::verify(&app.auditor().await, app.partitions(), &[], |_, _| ()).await.unwrap();
    let read = keys_read(&app).await - before;
    // A few more for the statistics of the planner.
    assert!(report.receipts > 20 && read <= 2 * keys + 32, "{read} rows were read for {keys} keys: {report:?}");
}

#[tokio::test]
async fn keys_without_a_position_are_verified_and_copied_with_their_age() {
    let mut old = spawn_app_with(&["--partitions=2"]).await;
    let (_, responses) = history(&old, 1).await;
    record_old_keys(&old, 10).await;
    old.tamper("UPDATE idempotency_key SET position = NULL WHERE key LIKE 'do-%'").await;
    let before = verification::verify(&old.auditor().await, old.partitions(), &[], |_, _| ()).await.unwrap();
    assert!(before.receipts >= responses.len() as u64);
    old.stop().await;
    old.wait_until_disconnected().await;
    let target = Target::new(8).await;
    target.finish(&old).await.unwrap();
    let ages = "SELECT min(recorded_at), max(recorded_at), count(DISTINCT key) FROM idempotency_key";
    let age = async |mut connection: sqlx::PgConnection| -> (DateTime<Utc>, DateTime<Utc>, i64) {
        sqlx::query_as(ages).fetch_one(&mut connection).await.unwrap()
    };
    assert_eq!(age(target.database.connect().await).await, age(old.database().await).await);
    let without = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM idempotency_key WHERE position IS NULL");
    assert_eq!(without.fetch_one(&mut target.database.connect().await).await.unwrap(), 0);
    let new = target.serve().await;
    verification::verify(&new.auditor().await, new.partitions(), &[], |_, _| ()).await.unwrap();
}

#[tokio::test]
async fn keyed_opening_is_replayed_after_two_copies() {
    let mut app = spawn_app_with(&["--partitions=1"]).await;
    let four = Partitions::new(4).unwrap();
    let body = json!({"currency": "EUR", "initial_deposit": 100});
    // Finds an opening whose key and account will be in different partitions.
    let mut keys = (0..).map(|n| format!("open-{n}"));
    let (key, opened) = loop {
        let key = keys.next().unwrap();
        let opened = app.client().with_key(&key).open(body.clone()).await.expect(201);
        if four.partition_of_key("anonymous", &key) != four.partition_of(opened.account_id()) {
            break (key, opened);
        }
    };
    for partitions in [4, 8] {
        app.stop().await;
        app.wait_until_disconnected().await;
        let target = Target::new(partitions).await;
        target.finish(&app).await.unwrap();
        app = target.serve().await;
    }
    let again = app.client().with_key(&key).open(body).await.expect(201);
    assert!(again.is_replay(), "{}", again.body);
    assert_eq!(again.account_id(), opened.account_id());
    verification::verify(&app.auditor().await, app.partitions(), &[], |_, _| ()).await.unwrap();
    // Verification compares the receipt although its account is in another partition than its key.
    app.tamper(&format!(
        "UPDATE idempotency_key SET receipt = jsonb_set(receipt::jsonb, '{{balance}}', '7')::json WHERE key = '{key}' AND partition <> {}",
        app.partitions().partition_of(opened.account_id())
    ))
    .await;
    let found = verification::verify(&app.auditor().await, app.partitions(), &[], |_, _| ()).await;
    assert!(found.is_err_and(|finding| finding.to_string().contains(&key)));
}

/// The results of a batch without positions, and the position of the batch.
fn split_batch(response: &Response) -> (Vec<Value>, Position) {
    let results = response.body["results"].as_array().unwrap().iter().map(|result| {
        let mut result = result.clone();
        for pointer in ["", "/from", "/to"] {
            result.pointer_mut(pointer).and_then(Value::as_object_mut).map(|account| account.remove("position"));
        }
        result
    });
    (results.collect(), response.text("/position").parse().unwrap())
}

#[tokio::test]
async fn keyed_batches_are_replayed_after_two_copies() {
    let mut app = spawn_app_with(&["--partitions=1"]).await;
    let client = app.client();
    let four = Partitions::new(4).unwrap();
    let accounts: Vec<Uuid> = (0..4).map(|partition| four.new_id_in(partition)).collect();
    for account in &accounts {
        client.open(json!({"currency": "EUR", "account_id": account, "initial_deposit": 100})).await.expect(201);
    }
    let [first, second, third, fourth] = accounts[..] else { panic!("four accounts") };
    let open = json!({"command": "open", "currency": "EUR", "initial_deposit": 5});
    let deposit = json!({"command": "deposit", "account_id": third, "amount": 5});
    let too_much = json!({"command": "withdraw", "account_id": fourth, "amount": 1_000});
    let transfer = |from, to| json!({"command": "transfer", "from": from, "to": to, "amount": 10});
    let reverse =
        |account, amount| json!({"command": "reverse", "account_id": account, "version": 2, "amount": amount});
    let batches = [
        vec![transfer(second, first), deposit.clone(), open.clone()],
        vec![open.clone(), deposit.clone(), open.clone()],
        vec![transfer(first, fourth), reverse(fourth, 2)],
        vec![reverse(first, 1), deposit.clone()],
        vec![reverse(second, 1), deposit.clone()],
        vec![deposit.clone(), too_much.clone()],
        vec![open, deposit, too_much],
    ];
    let mut sent = Vec::new();
    // Several keys, so that the partition of some key is not that of its account.
    for (number, commands) in batches.iter().cycle().take(4 * batches.len()).enumerate() {
        let key = format!("batch-{number}");
        sent.push((client.with_key(&key).batch("atomic", commands).await, key, commands));
    }
    assert_eq!(sent.iter().filter(|(response, ..)| response.status == 422).count(), 2 * 4);
    for partitions in [4, 8] {
        app.stop().await;
        app.wait_until_disconnected().await;
        let target = Target::new(partitions).await;
        target.finish(&app).await.unwrap();
        app = target.serve().await;
        let events = app.log().await.events.len();
        for (before, key, commands) in &sent {
            let again = app.client().with_key(key).batch("atomic", commands).await;
            assert!(again.is_replay() && again.status == before.status, "{key} {commands:?}: {}", again.body);
            if before.status == 201 {
                let ((first, _), (replayed, position)) = (split_batch(before), split_batch(&again));
                assert_eq!(replayed, first);
                let results = again.body["results"].as_array().unwrap().iter();
                let merged = results.map(|result| result["position"].as_str().unwrap());
                let merged = merged.map(|position| position.parse().unwrap()).reduce(Position::merge);
                assert_eq!(Some(position), merged);
            } else {
                assert_eq!([&again.body["code"], &again.body["index"]], [&before.body["code"], &before.body["index"]]);
            }
        }
        assert_eq!(app.log().await.events.len(), events, "no batch was executed twice");
        audit(&app).await;
        let report = verification::verify(&app.auditor().await, app.partitions(), &[], |_, _| ()).await.unwrap();
        assert!(report.receipts >= 5 * 4, "{report:?}");
    }
}

#[tokio::test]
async fn commands_after_a_failed_copy_are_replayed_by_the_next_one() {
    let mut old = spawn_app_with(&["--partitions=1"]).await;
    let target = Target::new(2).await;
    let account = old.client().open_with_balance(100).await;
    old.stop().await;
    old.wait_until_disconnected().await;
    // The copy has all events and keys, but its final comparison fails.
    let mut connection = target.database.connect().await;
    target.open(&old).await.unwrap().catch_up(|_, _| ()).await.unwrap();
    sqlx::raw_sql("UPDATE log_head SET position = position + 1").execute(&mut connection).await.unwrap();
    target.finish(&old).await.expect_err("the new log is longer than the old one");
    sqlx::raw_sql("UPDATE log_head SET position = position - 1").execute(&mut connection).await.unwrap();

    let mut old = old.spawn_peer().await;
    let first = old.client().with_key("after").deposit(account, 5).await.expect(201);
    old.stop().await;
    old.wait_until_disconnected().await;
    target.finish(&old).await.unwrap();
    let new = target.serve().await;
    let again = new.client().with_key("after").deposit(account, 5).await.expect(201);
    assert!(again.is_replay(), "{}", again.body);
    assert_eq!(again.body["events"], first.body["events"]);
}

#[tokio::test]
async fn invalid_sources_and_targets_are_refused() {
    let mut old = spawn_app_with(&["--partitions=4"]).await;
    history(&old, 1).await;
    old.stop().await;
    let result = Target::new(6).await.open(&old).await.err().expect("not a multiple");
    assert!(matches!(result, Error::NotAMultiple { from: 4, to: 6 }), "{result}");
    let mut served = spawn_app_with(&["--partitions=8"]).await;
    served.stop().await;
    let own = Database::open(&served.config().database()).await.unwrap();
    let from = Database::open(&old.config().database()).await.unwrap();
    let result = Repartition::open(&from.writer(), &own.writer(), old.partitions(), served.partitions()).await;
    assert!(matches!(result, Err(Error::NotEmpty)));
    let target = Target::new(8).await;
    target.open(&old).await.unwrap();
    let other = spawn_app_with(&["--partitions=1"]).await;
    let result = target.open(&other).await.err().expect("another log");
    assert!(matches!(result, Error::OtherSource { expected: 4, found: 1 }), "{result}");
    let result = Repartition::open(
        &from.writer(),
        &Database::open(&target.config.database()).await.unwrap().writer(),
        old.partitions(),
        Partitions::new(16).unwrap(),
    )
    .await;
    assert!(matches!(result, Err(Error::OtherPartitionCount { expected: 8, requested: 16 })));
    let half = Database::open(&target.config.database()).await.unwrap();
    let own = Database::open(&Target::new(8).await.config.database()).await.unwrap();
    let result = Repartition::open(&half.writer(), &own.writer(), target.partitions, target.partitions).await;
    assert!(matches!(result, Err(Error::SourceIncomplete)));
}

#[tokio::test]
async fn copy_is_not_finished_while_an_idle_service_is_connected() {
    let mut old = spawn_app_with(&["--partitions=1"]).await;
    let idle = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
                WHERE datname = current_database() AND application_name = 'passbook writer'";
    sqlx::query(idle).execute(&mut old.database().await).await.unwrap();
    let target = Target::new(2).await;
    let refused = target.finish(&old).await.expect_err("the projector is connected");
    assert!(matches!(refused, Error::SourceInUse), "{refused}");
    old.stop().await;
    old.wait_until_disconnected().await;
    target.finish(&old).await.unwrap();
}

#[tokio::test]
async fn copied_events_lost_by_a_failover_are_detected() {
    let changes = [
        "UPDATE event SET hash = sha256(hash) WHERE position = (SELECT position FROM log_head);
         UPDATE log_head SET hash = sha256(hash)",
        "DELETE FROM event WHERE position = (SELECT position FROM log_head);
         UPDATE log_head SET position = position - 1, hash = (SELECT hash FROM event WHERE position = log_head.position - 1)",
    ];
    for change in changes {
        let mut old = spawn_app_with(&["--partitions=1"]).await;
        history(&old, 1).await;
        let target = Target::new(2).await;
        target.open(&old).await.unwrap().catch_up(|_, _| ()).await.unwrap();
        old.stop().await;
        old.wait_until_disconnected().await;
        old.tamper(change).await;
        let result = target.finish(&old).await.expect_err("the source has another history");
        assert!(matches!(result, Error::LostEvent(Position::Single(_))), "{result}");
        let result =
            target.open(&old).await.unwrap().catch_up(|_, _| ()).await.expect_err("the source has another history");
        assert!(matches!(result, Error::LostEvent(_)), "{result}");
    }
}

#[tokio::test]
async fn log_with_a_broken_hash_chain_is_not_copied() {
    let mut old = spawn_app_with(&["--partitions=1"]).await;
    history(&old, 1).await;
    old.stop().await;
    old.tamper("UPDATE event SET data = replace(data::text, '100', '101')::json WHERE position = 3").await;
    let target = Target::new(4).await;
    let result = target.finish(&old).await.expect_err("the hash chain is broken");
    assert!(matches!(&result, Error::BrokenHashChain(position) if *position == Position::Single(3)), "{result}");
    assert!(service::Service::start(&target.config).await.is_err());
}
