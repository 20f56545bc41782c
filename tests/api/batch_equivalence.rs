//! A property over random batches: `each` gives the results of the same commands sent singly, and `atomic` those of all of them, or
//! nothing and the refusal of the first that fails.

use std::collections::BTreeMap;

use passbook_testkit::{ApiClient, App, Response, audit::audit, spawn_app};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use uuid::Uuid;

const ACCOUNTS: usize = 3;
/// Members that differ between two executions of one command.
const ASSIGNED: [&str; 8] =
    ["id", "recorded_at", "transfer_id", "hold_id", "placed_at", "expires_at", "instance", "request_id"];

/// The commands, as often as their share of all.
const COMMANDS: [&str; 19] = [
    "open",
    "deposit",
    "deposit",
    "deposit",
    "withdraw",
    "withdraw",
    "transfer",
    "transfer",
    "transfer",
    "freeze",
    "unfreeze",
    "unfreeze",
    "close",
    "place_hold",
    "reverse",
    "reverse",
    "set_limits",
    "void_hold",
    "capture_hold",
];

/// A command of a batch on accounts that are named by their index, and the number of its key.
#[derive(Clone, Debug)]
struct Step {
    command: &'static str,
    account: usize,
    other: usize,
    amount: i64,
    version: i64,
    key: Option<u8>,
}

fn step() -> impl Strategy<Value = Step> {
    let key = prop_oneof![3 => Just(None), 1 => (0..6u8).prop_map(Some)];
    (prop::sample::select(&COMMANDS[..]), 0..ACCOUNTS, 0..ACCOUNTS, 0..300i64, 1..6i64, key).prop_map(
        |(command, account, other, amount, version, key)| Step { command, account, other, amount, version, key },
    )
}

impl Step {
    /// The parameters of the path and the body. A few commands are invalid: the amount is 0, or both accounts are the same.
    fn parts(&self, accounts: &[Uuid]) -> (Value, Value) {
        let (account, other) = (accounts[self.account], accounts[self.other]);
        let on_account = json!({"account_id": account});
        let on_hold = json!({"account_id": account, "hold_id": Uuid::from_u128(1)});
        let amount = json!({"amount": self.amount});
        match self.command {
            "open" => (json!({}), json!({"account_id": account, "currency": "EUR", "initial_deposit": self.amount})),
            "deposit" | "withdraw" | "place_hold" => (on_account, amount),
            "transfer" => (json!({}), json!({"from": account, "to": other, "amount": self.amount})),
            "freeze" | "unfreeze" | "close" => (on_account, json!({"reason": "why"})),
            "void_hold" => (on_hold, json!({})),
            "capture_hold" => (on_hold, amount),
            "reverse" => (json!({"account_id": account, "version": self.version}), amount),
            "set_limits" => (on_account, json!({"overdraft": self.amount, "per_movement": 250})),
            other => panic!("unknown command {other}"),
        }
    }

    fn item(&self, accounts: &[Uuid]) -> Value {
        let (path, body) = self.parts(accounts);
        let mut item = json!({"command": self.command});
        for part in [path, body] {
            item.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
        }
        item
    }

    fn keyed_item(&self, accounts: &[Uuid]) -> Value {
        let mut item = self.item(accounts);
        if let Some(key) = self.key {
            item["idempotency_key"] = json!(self.key_text(key, accounts));
        }
        item
    }

    /// Keys belong to the caller, so that those of different cases differ.
    fn key_text(&self, key: u8, accounts: &[Uuid]) -> String {
        format!("{}-{key}", accounts[0])
    }

    async fn send(&self, client: &ApiClient, accounts: &[Uuid]) -> Response {
        let (path, body) = self.parts(accounts);
        let account = accounts[self.account];
        let (method, path) = match self.command {
            "open" => (Method::POST, "/v1/accounts".to_owned()),
            "transfer" => (Method::POST, "/v1/transfers".to_owned()),
            "deposit" => (Method::POST, format!("/v1/accounts/{account}/deposits")),
            "withdraw" => (Method::POST, format!("/v1/accounts/{account}/withdrawals")),
            "place_hold" => (Method::POST, format!("/v1/accounts/{account}/holds")),
            "set_limits" => (Method::PUT, format!("/v1/accounts/{account}/limits")),
            "reverse" => (Method::POST, format!("/v1/accounts/{account}/transactions/{}/reversal", self.version)),
            "void_hold" => {
                (Method::POST, format!("/v1/accounts/{account}/holds/{}/void", path["hold_id"].as_str().unwrap()))
            }
            "capture_hold" => {
                (Method::POST, format!("/v1/accounts/{account}/holds/{}/capture", path["hold_id"].as_str().unwrap()))
            }
            verb => (Method::POST, format!("/v1/accounts/{account}/{verb}")),
        };
        let client = client.with_header("content-type", "application/json");
        let client = match self.key {
            Some(key) => client.with_key(&self.key_text(key, accounts)),
            None => client,
        };
        client.send(method, &path, body.to_string()).await
    }
}

/// The value without what the service assigns to each execution.
fn comparable(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let kept = members.iter().filter(|(name, _)| !ASSIGNED.contains(&name.as_str()));
            kept.map(|(name, value)| (name.clone(), comparable(value))).collect()
        }
        Value::Array(values) => values.iter().map(comparable).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// The result of a batch that a single response corresponds to.
fn as_result(response: &Response) -> Value {
    let member = if response.status < 400 { "receipt" } else { "problem" };
    let mut result = json!({"status": response.status, member: comparable(&response.body)});
    if response.is_replay() {
        result["replayed"] = json!(true);
    }
    result
}

/// The events of each account.
async fn events(app: &App, accounts: &[Uuid]) -> BTreeMap<Uuid, Vec<(String, Value)>> {
    let log = audit(app).await;
    let payloads = |account: &Uuid| {
        let payloads = log.event_payloads(*account);
        payloads.into_iter().map(|(name, data)| (name.to_owned(), without_ids(&data))).collect()
    };
    accounts.iter().map(|account| (*account, payloads(account))).collect()
}

fn without_ids(data: &Value) -> Value {
    let mut data = comparable(data);
    data.as_object_mut().unwrap().remove("reverses_event_id");
    data
}

/// Three services with the same accounts.
struct Banks {
    single: App,
    each: App,
    atomic: App,
}

impl Banks {
    async fn check_each(&self, steps: &[Step], balances: [i64; ACCOUNTS]) {
        let accounts: Vec<Uuid> = (0..ACCOUNTS).map(|_| Uuid::now_v7()).collect();
        for app in [&self.single, &self.each] {
            // The last account is opened by a command, if at all.
            for (account, balance) in accounts.iter().zip(balances).take(ACCOUNTS - 1) {
                let open = json!({"currency": "EUR", "account_id": account, "initial_deposit": balance});
                app.client().open(open).await.expect(201);
            }
        }
        let mut singles = Vec::new();
        for step in steps {
            singles.push(step.send(&self.single.client(), &accounts).await);
        }
        let items: Vec<Value> = steps.iter().map(|step| step.keyed_item(&accounts)).collect();
        let done = self.each.client().batch("each", &items).await.expect(200);
        for ((single, result), item) in singles.iter().zip(done.results()).zip(&items) {
            assert_eq!(comparable(result), as_result(single), "{item}");
        }
        assert_eq!(events(&self.each, &accounts).await, events(&self.single, &accounts).await);
    }

    /// The same commands without keys, all or none. The singles go on from the state that the batch must leave.
    async fn check_atomic(&self, steps: &[Step], balances: [i64; ACCOUNTS]) {
        let accounts: Vec<Uuid> = (0..ACCOUNTS).map(|_| Uuid::now_v7()).collect();
        for app in [&self.single, &self.atomic] {
            for (account, balance) in accounts.iter().zip(balances).take(ACCOUNTS - 1) {
                let open = json!({"currency": "EUR", "account_id": account, "initial_deposit": balance});
                app.client().open(open).await.expect(201);
            }
        }
        let (single, atomic) = (self.single.client(), self.atomic.client());
        let items: Vec<Value> = steps.iter().map(|step| step.item(&accounts)).collect();
        let mut responses = Vec::new();
        for step in steps {
            let response = Step { key: None, ..step.clone() }.send(&single, &accounts).await;
            let failed = response.status >= 400;
            responses.push(response);
            if failed {
                break;
            }
        }
        let failure = responses.iter().position(|response| response.status >= 400);
        if let Some(index) = failure {
            let before = self.atomic.log().await;
            // Commands behind the failed one do not matter, unless one is invalid by itself.
            let refused = atomic.batch("atomic", &items[..=index]).await;
            let mut expected = comparable(&responses[index].body);
            expected["index"] = json!(index);
            assert_eq!((refused.status, comparable(&refused.body)), (responses[index].status, expected));
            assert_eq!(self.atomic.log().await, before);
        }
        let executed = failure.unwrap_or(steps.len());
        if executed > 0 {
            let done = atomic.batch("atomic", &items[..executed]).await.expect(201);
            for (result, single) in done.results().iter().zip(&responses) {
                assert_eq!(without_position(result), without_position(&single.body));
            }
        }
        assert_eq!(events(&self.atomic, &accounts).await, events(&self.single, &accounts).await);
    }
}

/// The state and events of a receipt. The positions depend on what the two logs contain before.
fn without_position(receipt: &Value) -> Value {
    let mut receipt = comparable(receipt);
    for pointer in ["", "/from", "/to"] {
        if let Some(members) = receipt.pointer_mut(pointer).and_then(Value::as_object_mut) {
            members.remove("position");
        }
    }
    receipt
}

fn run(cases: u32, check: impl AsyncFn(&Banks, &[Step], [i64; ACCOUNTS])) {
    let runtime = Runtime::new().unwrap();
    let banks = runtime
        .block_on(async { Banks { single: spawn_app().await, each: spawn_app().await, atomic: spawn_app().await } });
    let config = Config { cases, max_shrink_iters: 32, failure_persistence: None, ..Config::default() };
    let balance = || prop_oneof![Just(0), 1..500i64];
    let strategy = (vec(step(), 1..40), [balance(), balance(), balance()]);
    let result = TestRunner::new(config).run(&strategy, |(steps, balances)| {
        runtime.block_on(check(&banks, &steps, balances));
        Ok(())
    });
    result.unwrap();
    runtime.block_on(async move { drop(banks) });
}

#[test]
fn each_equals_the_same_commands_sent_singly() {
    run(24, Banks::check_each);
}

#[test]
fn atomic_equals_the_fold_of_all_commands_or_changes_nothing() {
    run(48, Banks::check_atomic);
}
