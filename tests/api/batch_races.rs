//! Batches of which all or none is executed, over four partitions and two instances, that change the same accounts in opposite
//! orders: no deadlock, no lost money, all or none.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use passbook_audit::verification;
use passbook_testkit::{ApiClient, App, Response, Rng, audit::audit, eventually, spawn_app_with};
use serde_json::{Value, json};
use sqlx::query_scalar;
use uuid::Uuid;

const PARTITIONS: i16 = 4;
/// The accounts, two in each partition.
const ACCOUNTS: usize = 8;
const BALANCE: i64 = 200;

/// Two instances on one log, and accounts in all its partitions.
struct Fixture {
    app: App,
    _peer: App,
    clients: [ApiClient; 2],
    accounts: Vec<Uuid>,
}

impl Fixture {
    async fn spawn() -> Self {
        let app = spawn_app_with(&[&format!("--partitions={PARTITIONS}")]).await;
        let peer = app.spawn_peer().await;
        let clients = [app.client(), peer.client()];
        let partitions = (0..PARTITIONS).cycle().take(ACCOUNTS);
        let accounts: Vec<Uuid> = partitions.map(|partition| app.partitions().new_id_in(partition)).collect();
        let openings = accounts
            .iter()
            .map(|id| json!({"command": "open", "account_id": id, "currency": "EUR", "initial_deposit": BALANCE}));
        clients[0].batch("atomic", &openings.collect::<Vec<_>>()).await.expect(201);
        Self { app, _peer: peer, clients, accounts }
    }

    /// Sends one batch each, at once and alternately to both instances, each under a key of its own. A batch that the database of a
    /// busy machine did not execute in time is sent again, as its response says.
    async fn send_all(&self, name: &str, batches: &[Vec<Value>]) -> Vec<Response> {
        let send = |(number, commands): (usize, &Vec<Value>)| {
            let client = self.clients[number % 2].with_key(&format!("{name}-{number}"));
            let commands = commands.clone();
            async move {
                eventually("a final response", async || {
                    Some(client.batch("atomic", &commands).await).filter(|response| response.status != 503)
                })
                .await
            }
        };
        join_all(batches.iter().enumerate().map(send)).await
    }

    /// Asserts what holds after any race: the log and its views are consistent, each batch is recorded whole or not at all, and no
    /// transaction ran into a deadlock.
    async fn check(&self, responses: &[Response]) {
        let log = audit(&self.app).await;
        let mut recorded: BTreeMap<String, usize> = BTreeMap::new();
        for event in &log.events {
            let metadata: Value = serde_json::from_str(&event.metadata).unwrap();
            if let Some(batch_id) = metadata["batch_id"].as_str() {
                *recorded.entry(batch_id.to_owned()).or_default() += 1;
            }
        }
        for response in responses.iter().filter(|response| response.status == 201) {
            let named = recorded.get(response.text("/batch_id")).copied();
            assert_eq!(named, Some(events_of(&response.body)), "{}", response.body);
        }
        let total: usize =
            responses.iter().filter(|response| response.status == 201).map(|batch| events_of(&batch.body)).sum();
        assert_eq!(recorded.values().sum::<usize>(), total + ACCOUNTS, "no other batch is recorded, in part or whole");
        let deadlocks: i64 = query_scalar("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
            .fetch_one(&mut self.app.database().await)
            .await
            .unwrap();
        assert_eq!(deadlocks, 0);
        verification::verify(&self.app.auditor().await, self.app.partitions(), &[], |_, _| ()).await.unwrap();
    }

    async fn balances(&self) -> Vec<i64> {
        self.app.wait_until_projected().await;
        let paths: Vec<String> = self.accounts.iter().map(|account| format!("/v1/accounts/{account}")).collect();
        join_all(paths.iter().map(|path| self.clients[0].get(path)))
            .await
            .into_iter()
            .map(|view| view.expect(200).body["balance"].as_i64().unwrap())
            .collect()
    }
}

/// How many events the receipt of a batch names.
fn events_of(batch: &Value) -> usize {
    let named = |receipt: &Value| receipt["events"].as_array().map_or(2, Vec::len);
    batch["results"].as_array().unwrap().iter().map(named).sum()
}

fn transfer(from: Uuid, to: Uuid, amount: u64) -> Value {
    json!({"command": "transfer", "from": from, "to": to, "amount": amount})
}

#[tokio::test]
async fn batches_in_opposite_orders_neither_deadlock_nor_lose_money() {
    let fixture = Fixture::spawn().await;
    let mut rng = Rng::new(17);
    let batches: Vec<Vec<Value>> = (0..120)
        .map(|number| {
            // Around the ring of all accounts from a random place, forwards or backwards.
            let start = usize::try_from(rng.below(ACCOUNTS as u64)).unwrap();
            let mut ring: Vec<Uuid> = fixture.accounts.iter().cycle().skip(start).take(ACCOUNTS + 1).copied().collect();
            if number % 2 == 1 {
                ring.reverse();
            }
            let amount = rng.between(1, 120);
            ring.windows(2).map(|pair| transfer(pair[0], pair[1], amount + rng.below(40))).collect()
        })
        .collect();
    let responses = fixture.send_all("ring", &batches).await;
    let executed = responses.iter().filter(|response| response.status == 201).count();
    for refused in responses.iter().filter(|response| response.status != 201) {
        assert_eq!((refused.status, refused.text("/code")), (422, "insufficient_funds"), "{}", refused.body);
    }
    assert!((1..120).contains(&executed), "{executed} batches were executed");
    assert_eq!(fixture.balances().await.iter().sum::<i64>(), BALANCE * ACCOUNTS as i64);
    fixture.check(&responses).await;

    // The other instance replays the outcome of each.
    let mut turned = Fixture { clients: [fixture.clients[1].clone(), fixture.clients[0].clone()], ..fixture };
    let replays = turned.send_all("ring", &batches).await;
    for (replay, first) in replays.iter().zip(&responses) {
        assert!(replay.is_replay() && replay.status == first.status, "{}", replay.body);
        if first.status == 201 {
            assert_eq!(replay.body, first.body);
        } else {
            assert_eq!([&replay.body["code"], &replay.body["index"]], [&first.body["code"], &first.body["index"]]);
        }
    }
    turned.clients.reverse();
    turned.check(&responses).await;
}

#[tokio::test]
async fn batches_race_with_single_commands_for_the_same_money() {
    let fixture = Fixture::spawn().await;
    for round in 0..4 {
        let before = fixture.balances().await;
        // Each batch moves the whole balance of the first account on to the last one; each single command takes a part of it.
        let amount = u64::try_from(before[0]).unwrap();
        let path: Vec<Value> =
            fixture.accounts.windows(2).map(|pair| transfer(pair[0], pair[1], amount.max(1))).collect();
        let batches = vec![path; 6];
        let singles = join_all((0..12).map(|number| {
            let client = fixture.clients[number % 2].with_key(&format!("single-{round}-{number}"));
            let account = fixture.accounts[0];
            async move { client.withdraw(account, 7).await }
        }));
        let name = format!("path-{round}");
        let (responses, singles) = tokio::join!(fixture.send_all(&name, &batches), singles);
        let executed = responses.iter().filter(|response| response.status == 201).count();
        let withdrawn = singles.iter().filter(|response| response.status == 201).count();
        assert!(executed == 0 || (executed, withdrawn) == (1, 0), "{executed} batches and {withdrawn} withdrawals");
        let after = fixture.balances().await;
        assert_eq!(after.iter().sum::<i64>(), before.iter().sum::<i64>() - 7 * i64::try_from(withdrawn).unwrap());
        assert!(after.iter().all(|balance| *balance >= 0), "{after:?}");
        // Fill up for the next round.
        fixture.clients[round % 2].deposit(fixture.accounts[0], 100).await.expect(201);
    }
    let log = audit(&fixture.app).await;
    assert!(log.heads.iter().all(|head| head.position > 2));
    verification::verify(&fixture.app.auditor().await, fixture.app.partitions(), &[], |_, _| ()).await.unwrap();
}

#[tokio::test]
async fn keyed_batch_that_many_clients_send_at_once_is_executed_once() {
    let fixture = Fixture::spawn().await;
    let [first, .., last] = fixture.accounts[..] else { panic!("accounts") };
    for round in 0..5 {
        let commands = vec![transfer(first, last, 10), transfer(last, fixture.accounts[1], 10)];
        let sent = (0..16).map(|number| {
            let client = fixture.clients[number % 2].with_key(&format!("same-{round}"));
            let commands = commands.clone();
            async move { client.batch("atomic", &commands).await.expect(201) }
        });
        let responses = join_all(sent).await;
        assert_eq!(responses.iter().filter(|response| !response.is_replay()).count(), 1);
        assert!(responses.iter().all(|response| response.body == responses[0].body));
    }
    let balances = fixture.balances().await;
    assert_eq!([balances[0], balances[1], balances[ACCOUNTS - 1]], [BALANCE - 50, BALANCE + 50, BALANCE]);
    audit(&fixture.app).await;
}

#[tokio::test]
async fn retry_of_a_batch_that_first_opens_an_account_finds_its_key() {
    let fixture = Fixture::spawn().await;
    let account = fixture.accounts[0];
    let open = json!({"command": "open", "currency": "EUR", "initial_deposit": 5});
    let deposit = json!({"command": "deposit", "account_id": account, "amount": 1});
    let too_much = json!({"command": "withdraw", "account_id": account, "amount": 1_000_000});
    for round in 0..12 {
        let [first, second] = [0, 1].map(|number| fixture.clients[number].with_key(&format!("open-{round}")));
        let commands = [open.clone(), deposit.clone(), open.clone()];
        let opened = first.batch("atomic", &commands).await.expect(201);
        let again = second.batch("atomic", &commands).await.expect(201);
        assert!(again.is_replay() && again.body == opened.body, "{}", again.body);
        let [first, second] = [0, 1].map(|number| fixture.clients[number].with_key(&format!("refused-{round}")));
        let commands = [open.clone(), deposit.clone(), too_much.clone()];
        let refused = first.batch("atomic", &commands).await.expect_problem(422, "insufficient_funds");
        assert_eq!((refused.is_replay(), &refused.body["index"]), (false, &json!(2)));
        let again = second.batch("atomic", &commands).await.expect_problem(422, "insufficient_funds");
        assert_eq!((again.is_replay(), &again.body["index"]), (true, &json!(2)));
    }
    let log = audit(&fixture.app).await;
    assert_eq!(log.events.len(), ACCOUNTS + 12 * 3, "each batch was executed once");
    verification::verify(&fixture.app.auditor().await, fixture.app.partitions(), &[], |_, _| ()).await.unwrap();
}

/// Its receipt has more bytes than a response under a lock may have.
#[tokio::test]
async fn batch_of_a_thousand_transfers_is_replayed_by_both_instances() {
    let fixture = Fixture::spawn().await;
    let around = fixture.accounts.iter().zip(fixture.accounts.iter().cycle().skip(1)).cycle();
    let commands: Vec<Value> = around.take(1_000).map(|(from, to)| transfer(*from, *to, 1)).collect();
    let [first, second] = [0, 1].map(|number| fixture.clients[number].with_key("thousand"));
    let executed = first.batch("atomic", &commands).await.expect(201);
    for client in [&second, &first, &second] {
        let again = client.batch("atomic", &commands).await.expect(201);
        assert!(again.is_replay() && again.body == executed.body);
    }
    assert_eq!(fixture.balances().await, [BALANCE; ACCOUNTS]);
    fixture.check(&[executed]).await;
}
