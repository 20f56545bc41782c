//! Rate limits for each caller. The tests refill at most one request a second, so that no test depends on its own
//! speed.

use futures_util::future::join_all;
use passbook_testkit::{ApiClient, Response, spawn_app_with, spawn_auth_app_with, tokens::claims_with};
use serde_json::json;

/// More requests than are refilled while a test runs.
const MANY: usize = 200;
const SLOW_REFILL: [&str; 2] = ["--rate-limit-per-second=1", "--rate-limit-burst=3"];
/// The number of rejected tokens that an address may send in a burst.
const REJECTED_TOKENS_BURST: usize = 60;

async fn get_many(client: &ApiClient, path: &str, times: usize) -> Vec<Response> {
    join_all((0..times).map(|_| client.get(path))).await
}

fn count_refused(responses: &[Response]) -> usize {
    responses.iter().filter(|response| response.status == 429).count()
}

#[tokio::test]
async fn requests_beyond_the_limit_get_429_and_do_nothing() {
    let app = spawn_app_with(&SLOW_REFILL).await;
    let client = app.client();
    let first = client.get("/v1/projections").await.expect(200);
    assert_eq!(first.header("ratelimit-policy"), Some("\"default\";q=3;w=3"));
    assert_eq!(first.header("ratelimit"), Some("\"default\";r=2"));
    let before = app.log().await;
    let opened = join_all((0..MANY).map(|_| client.open(json!({"currency": "EUR"})))).await;
    let (done, rejected): (Vec<_>, Vec<_>) = opened.into_iter().partition(|response| response.status == 201);
    assert_eq!(app.log().await.events.len() - before.events.len(), done.len());
    assert!(rejected.len() > MANY / 2, "{}", rejected.len());
    for response in rejected {
        let response = response.expect_problem(429, "rate_limited");
        assert_eq!(response.header("retry-after"), Some("1"));
        assert_eq!(response.header("ratelimit"), Some("\"default\";r=0;t=1"));
        assert_eq!(response.header("ratelimit-policy"), Some("\"default\";q=3;w=3"));
    }
}

#[tokio::test]
async fn refused_requests_count_towards_the_limit() {
    let app = spawn_app_with(&["--rate-limit-per-second=1", "--rate-limit-burst=10"]).await;
    let refused = app.client().open(json!({"currency": "XXQ"})).await.expect_problem(400, "invalid_currency");
    assert_eq!(refused.header("ratelimit"), Some("\"default\";r=9"));
}

#[tokio::test]
async fn probes_are_not_rate_limited() {
    let app = spawn_app_with(&SLOW_REFILL).await;
    app.wait_until_projected().await;
    assert!(count_refused(&get_many(&app.client(), "/v1/projections", MANY).await) > 0);
    for path in ["/livez", "/readyz"] {
        assert_eq!(count_refused(&get_many(&app.client(), path, 20).await), 0);
    }
}

#[tokio::test]
async fn loopback_clients_have_no_limit_by_default() {
    let app = spawn_app_with(&[]).await;
    let responses = get_many(&app.client(), "/v1/projections", MANY).await;
    assert_eq!(count_refused(&responses), 0);
    assert_eq!(responses[0].header("ratelimit"), None);
}

#[tokio::test]
async fn each_subject_has_one_bucket_for_all_its_tokens() {
    let auth = spawn_auth_app_with(&SLOW_REFILL).await;
    let [ada, ben] = ["ada", "ben"].map(|subject| auth.customer(subject));
    assert!(count_refused(&get_many(&ada, "/v1/accounts", MANY).await) > 0);
    let other_token = auth.client_with_scope("ada", "accounts:read audit:read");
    assert!(
        count_refused(&get_many(&other_token, "/v1/accounts", 20).await) > 0,
        "another token of the subject has no bucket of its own"
    );
    ben.get("/v1/accounts").await.expect(200);
    assert!(
        count_refused(&get_many(&auth.app.client(), "/openapi.json", MANY).await) > 0,
        "requests without a token are limited by address"
    );
    ben.get("/v1/accounts").await.expect(200);
}

#[tokio::test]
async fn address_from_a_trusted_proxy_is_limited() {
    let flags = [&SLOW_REFILL[..], &["--auth=off", "--trusted-proxies=192.0.2.0/24,127.0.0.1"]].concat();
    let app = spawn_app_with(&flags).await;
    let from = |address: &str| app.client().with_header("x-forwarded-for", address);
    assert!(count_refused(&get_many(&from("198.51.100.1"), "/v1/projections", MANY).await) > 0);
    from("198.51.100.2").get("/v1/projections").await.expect(200);
    let spoofed = get_many(&from("203.0.113.9, 198.51.100.1"), "/v1/projections", 20).await;
    assert!(count_refused(&spoofed) > 0, "addresses before the one that the proxy added are not trusted");
}

#[tokio::test]
async fn forwarded_address_from_other_peers_is_ignored() {
    let app = spawn_app_with(&[&SLOW_REFILL[..], &["--auth=off"]].concat()).await;
    let requests = (0..MANY).map(|n| {
        let client = app.client().with_header("x-forwarded-for", &format!("198.51.100.{n}"));
        async move { client.get("/v1/projections").await }
    });
    assert!(count_refused(&join_all(requests).await) > 0);
}

#[tokio::test]
async fn many_rejected_tokens_block_new_tokens_of_the_address() {
    let auth = spawn_auth_app_with(&["--rate-limit-per-second=1000000"]).await;
    let known = auth.customer("ada");
    known.get("/v1/accounts").await.expect(200);
    // One attempt is refilled each second, so all attempts are sent at once.
    let expired = (0..2 * REJECTED_TOKENS_BURST)
        .map(|n| auth.client_with_token(&auth.signer.sign(&json!({"sub": "ada", "exp": 1, "n": n}))));
    let refusals = join_all(expired.map(async |client| client.get("/v1/accounts").await.status)).await;
    assert!(refusals.iter().all(|status| [401, 429].contains(status)), "{refusals:?}");
    assert!(refusals.iter().filter(|status| **status == 401).count() >= REJECTED_TOKENS_BURST);
    let of_ben = (0..20)
        .map(|n| auth.client_with_token(&auth.signer.sign(&claims_with("ben", "accounts:read", &json!({"n": n})))));
    let responses = join_all(of_ben.map(async |client| client.get("/v1/accounts").await)).await;
    assert!(count_refused(&responses) > 0, "a valid token that is not cached");
    known.get("/v1/accounts").await.expect(200);
    auth.app.client().get("/livez").await.expect(200);
}

#[tokio::test]
async fn refusals_are_counted_in_metrics() {
    let auth = spawn_auth_app_with(&[]).await;
    let operator = auth.client_with_scope("operator", "operations");
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
    let customer = auth.customer("ada");
    customer.get("/metrics").await.expect_problem(403, "forbidden");
    auth.client_with_token("nonsense").get("/metrics").await.expect_problem(401, "unauthenticated");
    customer.open(json!({"currency": "XXQ"})).await.expect_problem(400, "invalid_currency");
    // Other tests in this process also increase the counters.
    for (line, before) in lines.iter().zip(before) {
        assert!(count(line).await > before, "{line}");
    }
}
