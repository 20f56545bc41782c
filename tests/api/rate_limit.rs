//! How much one caller may ask, and what those who ask more are told. A second gives back one request at the most, so that no
//! test hangs on how long it takes.

use futures_util::future::join_all;
use serde_json::json;

use crate::support::{ApiClient, Response, spawn_app_with, spawn_auth_app_with, tokens::claims_with};

/// More than are given back while a test runs.
const MANY: usize = 200;
const SLOWLY: [&str; 2] = ["--rate-limit-per-second=1", "--rate-limit-burst=3"];
/// How many tokens that are not taken an address may send at once.
const FAILURES: usize = 60;

async fn ask(client: &ApiClient, path: &str, times: usize) -> Vec<Response> {
    join_all((0..times).map(|_| client.get(path))).await
}

fn refused(responses: &[Response]) -> usize {
    responses.iter().filter(|response| response.status == 429).count()
}

#[tokio::test]
async fn who_asks_too_often_is_told_so_and_when_to_come_back_and_nothing_is_done() {
    let app = spawn_app_with(&SLOWLY).await;
    let client = app.client();
    let first = client.get("/v1/projections").await.expect(200);
    assert_eq!(first.header("ratelimit-policy"), Some("\"default\";q=3;w=3"));
    assert_eq!(first.header("ratelimit"), Some("\"default\";r=2"));
    let before = app.log().await;
    let opened = join_all((0..MANY).map(|_| client.open(json!({"currency": "EUR"})))).await;
    let (done, turned_away): (Vec<_>, Vec<_>) = opened.into_iter().partition(|response| response.status == 201);
    assert_eq!(app.log().await.events.len() - before.events.len(), done.len());
    assert!(turned_away.len() > MANY / 2, "{}", turned_away.len());
    for response in turned_away {
        let response = response.expect_problem(429, "rate_limited");
        assert_eq!(response.header("retry-after"), Some("1"));
        assert_eq!(response.header("ratelimit"), Some("\"default\";r=0;t=1"));
        assert_eq!(response.header("ratelimit-policy"), Some("\"default\";q=3;w=3"));
    }
}

#[tokio::test]
async fn refusals_count_and_say_what_is_left_as_well() {
    let app = spawn_app_with(&["--rate-limit-per-second=1", "--rate-limit-burst=10"]).await;
    let refused = app.client().open(json!({"currency": "XXQ"})).await.expect_problem(400, "invalid_currency");
    assert_eq!(refused.header("ratelimit"), Some("\"default\";r=9"));
}

#[tokio::test]
async fn probes_are_always_answered() {
    let app = spawn_app_with(&SLOWLY).await;
    app.wait_until_projected().await;
    assert!(refused(&ask(&app.client(), "/v1/projections", MANY).await) > 0);
    for path in ["/livez", "/readyz"] {
        assert_eq!(refused(&ask(&app.client(), path, 20).await), 0);
    }
}

#[tokio::test]
async fn without_the_setting_nobody_on_this_machine_is_limited() {
    let app = spawn_app_with(&[]).await;
    let responses = ask(&app.client(), "/v1/projections", MANY).await;
    assert_eq!(refused(&responses), 0);
    assert_eq!(responses[0].header("ratelimit"), None);
}

#[tokio::test]
async fn each_caller_has_a_bucket_of_their_own_whatever_token_they_show() {
    let bank = spawn_auth_app_with(&SLOWLY).await;
    let [ada, ben] = ["ada", "ben"].map(|subject| bank.customer(subject));
    assert!(refused(&ask(&ada, "/v1/accounts", MANY).await) > 0);
    let otherwise = bank.client_with_scope("ada", "accounts:read audit:read");
    assert!(refused(&ask(&otherwise, "/v1/accounts", 20).await) > 0, "a new bucket would let all of them through");
    ben.get("/v1/accounts").await.expect(200);
    assert!(refused(&ask(&bank.app.client(), "/openapi.json", MANY).await) > 0, "without a token the address counts");
    ben.get("/v1/accounts").await.expect(200);
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_address_that_it_names_counts() {
    let flags = [&SLOWLY[..], &["--trusted-proxies=192.0.2.0/24,127.0.0.1"]].concat();
    let app = spawn_app_with(&flags).await;
    let from = |address: &str| app.client().with_header("x-forwarded-for", address);
    assert!(refused(&ask(&from("198.51.100.1"), "/v1/projections", MANY).await) > 0);
    from("198.51.100.2").get("/v1/projections").await.expect(200);
    let pretending = ask(&from("203.0.113.9, 198.51.100.1"), "/v1/projections", 20).await;
    assert!(refused(&pretending) > 0, "what stands before the proxy's own word is the client's");
}

#[tokio::test]
async fn nobody_else_is_believed_about_an_address() {
    let app = spawn_app_with(&SLOWLY).await;
    let asked = (0..MANY).map(|n| {
        let client = app.client().with_header("x-forwarded-for", &format!("198.51.100.{n}"));
        async move { client.get("/v1/projections").await }
    });
    assert!(refused(&join_all(asked).await) > 0);
}

#[tokio::test]
async fn after_many_bad_tokens_an_address_may_try_no_new_one_and_who_was_known_goes_on() {
    let bank = spawn_auth_app_with(&["--rate-limit-per-second=1000000"]).await;
    let known = bank.customer("ada");
    known.get("/v1/accounts").await.expect(200);
    // One is given back each second: at once, whatever a second is worth here.
    let expired =
        (0..2 * FAILURES).map(|n| bank.client_with_token(&bank.signer.sign(&json!({"sub": "ada", "exp": 1, "n": n}))));
    let refusals = join_all(expired.map(async |client| client.get("/v1/accounts").await.status)).await;
    assert!(refusals.iter().all(|status| [401, 429].contains(status)), "{refusals:?}");
    assert!(refusals.iter().filter(|status| **status == 401).count() >= FAILURES);
    let of_ben = (0..20)
        .map(|n| bank.client_with_token(&bank.signer.sign(&claims_with("ben", "accounts:read", &json!({"n": n})))));
    let barred = join_all(of_ben.map(async |client| client.get("/v1/accounts").await)).await;
    assert!(refused(&barred) > 0, "a good token that nobody has seen yet");
    known.get("/v1/accounts").await.expect(200);
    bank.app.client().get("/livez").await.expect(200);
}

#[tokio::test]
async fn every_refusal_is_counted_and_the_counts_need_a_scope() {
    let bank = spawn_auth_app_with(&[]).await;
    let operator = bank.client_with_scope("operator", "operations");
    let count = async |line: &str| {
        let text = String::from_utf8(operator.get("/metrics").await.expect(200).bytes).unwrap();
        let found = text.lines().find_map(|counted| counted.strip_prefix(line)?.trim().parse::<u64>().ok());
        found.unwrap_or(0)
    };
    let lines = [
        "passbook_authority_refusals_total{code=\"forbidden\"}",
        "passbook_authority_refusals_total{code=\"unauthenticated\"}",
        "passbook_refusals_total{code=\"invalid_currency\"}",
    ];
    let before = [count(lines[0]).await, count(lines[1]).await, count(lines[2]).await];
    let customer = bank.customer("ada");
    customer.get("/metrics").await.expect_problem(403, "forbidden");
    bank.client_with_token("nonsense").get("/metrics").await.expect_problem(401, "unauthenticated");
    customer.open(json!({"currency": "XXQ"})).await.expect_problem(400, "invalid_currency");
    // Other tests in this process are counted as well.
    for (line, before) in lines.iter().zip(before) {
        assert!(count(line).await > before, "{line}");
    }
}
