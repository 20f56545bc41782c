//! The load balancer keeps sending commands to instances whose projector has failed, and answers with a problem document
//! when no instance runs.

use std::{sync::Arc, time::Duration};

use passbook_testkit::eventually;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::testbed::Testbed;

/// Longer than the load balancer needs to take a failed server out of service.
const HEALTH_CHECKS_MS: u64 = 4_000;

pub async fn run() {
    let testbed = Testbed::behind_balancer(Arc::default()).await;
    let http = passbook_testkit::http_client().build().unwrap();
    let url = Arc::clone(&testbed.balancer.as_ref().unwrap().url);
    let open = async || {
        let opened = http.post(format!("{url}/v1/accounts")).json(&json!({"currency": "EUR", "initial_deposit": 1}));
        opened.send().await.unwrap()
    };
    let ready = async || http.get(format!("{url}/readyz")).send().await.ok().map(|response| response.status());
    eventually("readiness", async || ready().await.filter(StatusCode::is_success)).await;

    let mut database = testbed.postgres.connect().await.unwrap();
    sqlx::raw_sql("ALTER TABLE account_transaction RENAME TO elsewhere").execute(&mut database).await.unwrap();
    assert_eq!(open().await.status(), 201);
    let degraded = async || ready().await.filter(|status| *status == StatusCode::SERVICE_UNAVAILABLE);
    eventually("a failed projector", degraded).await;
    sleep(Duration::from_millis(HEALTH_CHECKS_MS)).await;
    for _ in 0..20 {
        assert_eq!(open().await.status(), 201);
    }

    for instance in &testbed.instances {
        instance.lock().await.kill().await;
    }
    let refused: Response = eventually("the load balancer's own response", async || {
        let response = http.get(format!("{url}/v1/accounts")).send().await.ok()?;
        (response.headers()["content-type"] == "application/problem+json").then_some(response)
    })
    .await;
    assert_eq!(
        (refused.status(), &refused.headers()["retry-after"]),
        (StatusCode::SERVICE_UNAVAILABLE, &"1".parse().unwrap())
    );
    let problem: Value = refused.json().await.unwrap();
    assert_eq!((&problem["code"], &problem["status"]), (&json!("overloaded"), &json!(503)));
}
