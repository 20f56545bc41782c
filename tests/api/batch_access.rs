//! Batches with access control and rate limits: each command needs its own scope, and counts for the limit.

use std::time::Duration;

use futures_util::future::join_all;
use passbook_testkit::{
    LineExchange, Response,
    audit::audit,
    spawn_app_with, spawn_auth_app, spawn_auth_app_with,
    tokens::{claims, claims_with, in_seconds},
};
use serde_json::{Value, json};
use tokio::time::sleep;
use uuid::Uuid;

/// How long an expired token is still accepted.
const CLOCK_SKEW_S_MAX: i64 = 60;

/// A command for each scope, on this account.
fn commands(account: Uuid) -> Vec<(&'static str, Value)> {
    vec![
        ("accounts:write", json!({"command": "open", "currency": "EUR"})),
        ("accounts:write", json!({"command": "deposit", "account_id": account, "amount": 1})),
        ("accounts:write", json!({"command": "withdraw", "account_id": account, "amount": 1})),
        ("accounts:write:any", json!({"command": "open", "currency": "EUR", "owner": "someone"})),
        ("accounts:freeze", json!({"command": "freeze", "account_id": account})),
        ("accounts:freeze", json!({"command": "unfreeze", "account_id": account})),
        ("accounts:holds", json!({"command": "place_hold", "account_id": account, "amount": 1})),
        ("accounts:reverse", json!({"command": "reverse", "account_id": account, "version": 1, "amount": 1})),
        ("accounts:limits", json!({"command": "set_limits", "account_id": account})),
    ]
}

fn without_names(commands: &[(&str, Value)]) -> Vec<Value> {
    commands.iter().map(|(_, command)| command.clone()).collect()
}

fn is_forbidden(result: &Value) -> bool {
    assert_eq!(result["status"] == 403, result["problem"]["code"] == "forbidden", "{result}");
    result["status"] == 403
}

#[tokio::test]
async fn each_command_needs_its_own_scope() {
    let auth = spawn_auth_app().await;
    let account = auth.customer("ada").open_with_balance(100).await;
    let commands = commands(account);
    for held in
        ["accounts:write", "accounts:freeze", "accounts:holds", "accounts:reverse", "accounts:limits", "accounts:read"]
    {
        let client = auth.client_with_scope("ada", held);
        let expected: Vec<bool> = commands.iter().map(|(needed, _)| *needed != held).collect();
        let done = client.batch("each", &without_names(&commands)).await.expect(200);
        assert_eq!(done.results().iter().map(is_forbidden).collect::<Vec<_>>(), expected, "{held}");
        let lines: Vec<String> = without_names(&commands).iter().map(Value::to_string).collect();
        let streamed = client.batch_lines(lines.join("\n")).await.expect(200).lines();
        assert_eq!(streamed.iter().map(is_forbidden).collect::<Vec<_>>(), expected, "{held}");
    }
    auth.app.client().batch("each", &without_names(&commands)).await.expect_problem(401, "unauthenticated");
    auth.app.client().batch_lines("{}").await.expect_problem(401, "unauthenticated");
    audit(&auth.app).await;
}

#[tokio::test]
async fn missing_scope_in_an_atomic_batch_precedes_refusals_by_the_state() {
    let auth = spawn_auth_app().await;
    let customer = auth.customer("ada");
    let account = customer.open_with_balance(100).await;
    let before = auth.app.log().await;
    let withdraw = json!({"command": "withdraw", "account_id": account, "amount": 101});
    for (scope, forbidden) in commands(account).into_iter().filter(|(scope, _)| *scope != "accounts:write") {
        let refused = customer.batch("atomic", &[withdraw.clone(), forbidden]).await;
        let challenge = refused.header("www-authenticate").unwrap_or_default().to_owned();
        assert!(challenge.contains(&format!("scope=\"{scope}\"")), "{scope}: {challenge}");
        assert_eq!(refused.expect_problem(403, "forbidden").body["index"], 1);
    }
    let refused = customer.batch("atomic", &[withdraw]).await.expect_problem(422, "insufficient_funds");
    assert_eq!(refused.body["index"], 0);
    assert_eq!(auth.app.log().await, before);
}

#[tokio::test]
async fn foreign_accounts_are_hidden_as_for_single_commands() {
    let auth = spawn_auth_app().await;
    let (ada, ben) = (auth.customer("ada"), auth.customer("ben"));
    let (own, foreign) = (ada.open_with_balance(100).await, ben.open_with_balance(100).await);
    let deposit = |account: Uuid| json!({"command": "deposit", "account_id": account, "amount": 1});
    let commands = [
        deposit(foreign),
        json!({"command": "transfer", "from": own, "to": foreign, "amount": 1}),
        json!({"command": "transfer", "from": foreign, "to": own, "amount": 1}),
        deposit(own),
    ];
    let done = ada.batch("each", &commands).await.expect(200);
    assert_eq!(done.results()[0]["problem"]["code"], "account_not_found");
    assert_eq!(done.results()[1]["receipt"]["to"], json!({"account_id": foreign}));
    assert_eq!(done.results()[2]["problem"]["code"], "account_not_found");
    assert_eq!(done.results()[3]["status"], 201);
    let refused = ada.batch("atomic", &[deposit(own), deposit(foreign)]).await.expect_problem(404, "account_not_found");
    assert_eq!(refused.body["index"], 1);
    let paid = ada.batch("atomic", &[commands[1].clone()]).await.expect(201);
    assert_eq!(paid.results()[0]["to"], json!({"account_id": foreign}));
    // Staff with a scope for any account may use it in a batch, too.
    let staff = auth.client_with_scope("staff", "accounts:freeze accounts:limits");
    let freeze = json!({"command": "freeze", "account_id": foreign});
    staff.batch("atomic", &[freeze, json!({"command": "set_limits", "account_id": own})]).await.expect(201);
    audit(&auth.app).await;
}

#[tokio::test]
async fn results_are_401_after_the_token_has_expired() {
    let auth = spawn_auth_app().await;
    let account = auth.customer("ada").open_with_balance(0).await;
    let expiry = json!({"exp": in_seconds(5 - CLOCK_SKEW_S_MAX)});
    let token = auth.signer.sign(&claims_with("ada", "accounts:write", &expiry));
    let mut exchange = LineExchange::begin(&auth.app.url(), &format!("authorization: Bearer {token}\r\n")).await;
    let line = json!({"command": "deposit", "account_id": account, "amount": 1}).to_string() + "\n";
    let mut executed = 0;
    let refused = loop {
        exchange.send(&line).await;
        let result = exchange.next().await.expect("a result");
        match result["status"].as_i64() {
            Some(201) => executed += 1,
            Some(401) => break result,
            other => panic!("{other:?}: {result}"),
        }
        sleep(Duration::from_millis(100)).await;
    };
    assert!(executed > 0);
    assert_eq!(refused["problem"]["code"], "unauthenticated");
    exchange.send(line.repeat(3)).await;
    exchange.end().await;
    let rest = exchange.rest().await;
    assert_eq!(rest.iter().filter(|result| result["status"] == 401).count(), 3, "{rest:?}");
    assert_eq!(audit(&auth.app).await.event_payloads(account).len(), 1 + executed);
}

/// What remains in the caller's bucket according to the response.
#[track_caller]
fn remaining(response: &Response) -> u32 {
    response.header("ratelimit").expect("a limit").strip_prefix("\"default\";r=").unwrap().parse().unwrap()
}

#[tokio::test]
async fn refused_batch_counts_as_its_number_of_commands_too() {
    let app = spawn_app_with(&["--rate-limit-per-second=1", "--rate-limit-burst=100"]).await;
    let client = app.client();
    let account = client.open_with_balance(0).await;
    let mut commands = vec![json!({"command": "deposit", "account_id": account, "amount": 1}); 40];
    commands[39] = json!({"command": "withdraw", "account_id": account, "amount": 100});
    let by_state = client.batch("atomic", &commands).await.expect_problem(422, "insufficient_funds");
    assert!((59..=80).contains(&remaining(&by_state)), "{}", remaining(&by_state));
    commands[39] = json!({"command": "nonsense"});
    let malformed = client.batch("each", &commands).await.expect_problem(400, "malformed_request");
    assert!(remaining(&malformed) < remaining(&by_state) - 20, "{}", remaining(&malformed));
}

#[tokio::test]
async fn batch_counts_as_its_number_of_commands() {
    let app = spawn_app_with(&["--rate-limit-per-second=1", "--rate-limit-burst=100"]).await;
    let client = app.client();
    let account = client.open_with_balance(0).await;
    let deposits = |count: usize| vec![json!({"command": "deposit", "account_id": account, "amount": 1}); count];
    let first = client.batch("each", &deposits(40)).await.expect(200);
    assert!((59..=80).contains(&remaining(&first)), "{}", remaining(&first));
    let second = client.batch("atomic", &deposits(40)).await.expect(201);
    assert!(remaining(&second) < 60);
    let refused = client.batch("atomic", &deposits(90)).await.expect_problem(429, "rate_limited");
    assert!(refused.header("ratelimit").unwrap().starts_with("\"default\";r=0;t="));
    // More commands than a full bucket has are never possible.
    let refused = client.batch("each", &deposits(101)).await.expect_problem(429, "rate_limited");
    assert!(refused.text("/detail").contains("at most 100 commands"), "{}", refused.body);
    assert_eq!(audit(&app).await.event_payloads(account).len(), 81);
}

#[tokio::test]
async fn lines_are_slowed_down_to_the_rate_of_the_caller() {
    let app = spawn_app_with(&["--rate-limit-per-second=50", "--rate-limit-burst=10"]).await;
    let client = app.client();
    let account = client.open_with_balance(0).await;
    let line = json!({"command": "deposit", "account_id": account, "amount": 1}).to_string() + "\n";
    let started = std::time::Instant::now();
    for _ in 0..2 {
        let results = client.batch_lines(line.repeat(40)).await.expect(200).lines();
        assert!(results.len() == 40 && results.iter().all(|result| result["status"] == 201));
    }
    // 80 lines, of which at most 10 at once.
    assert!(started.elapsed() >= Duration::from_millis((80 - 10) * 1_000 / 50), "{:?}", started.elapsed());
    assert_eq!(audit(&app).await.event_payloads(account).len(), 81);
}

#[tokio::test]
async fn lines_without_a_valid_token_are_refused_at_once() {
    /// More requests than are refilled while the test runs.
    const MANY: usize = 200;
    let auth = spawn_auth_app_with(&["--rate-limit-per-second=1", "--rate-limit-burst=3"]).await;
    let client = auth.app.client();
    let refused = join_all((0..MANY).map(|_| client.batch_lines("{}"))).await;
    let count = |status| refused.iter().filter(|response| response.status == status).count();
    assert_eq!(count(401) + count(429), MANY);
    assert!(count(429) > MANY / 2, "{}", count(429));
}

#[tokio::test]
async fn token_of_another_scope_is_judged_for_each_request() {
    let auth = spawn_auth_app_with(&[]).await;
    let account = auth.customer("ada").open_with_balance(0).await;
    let deposit = json!({"command": "deposit", "account_id": account, "amount": 1, "idempotency_key": "one"});
    let reader = auth.client_with_token(&auth.signer.sign(&claims("ada", "accounts:read")));
    let refused = reader.batch("each", std::slice::from_ref(&deposit)).await.expect(200);
    assert_eq!(refused.results()[0]["status"], 403);
    let done = auth.customer("ada").batch("each", &[deposit]).await.expect(200);
    assert_eq!(
        (&done.results()[0]["status"], done.results()[0].get("replayed")),
        (&json!(201), None),
        "403 records nothing"
    );
}
