//! Each request is logged as one JSON line without private data.

use nix::sys::signal::Signal;
use passbook_testkit::{eventually, folder::Folder, process::Passbook};
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection, query};

/// The log lines in JSON.
fn json_lines(stderr: &str) -> Vec<Value> {
    stderr.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Runs a service with this log level and sends some requests. Returns the log lines of requests, and the whole standard
/// error.
async fn log_of(level: &str) -> (Vec<Value>, String) {
    let folder = Folder::migrated();
    let service = Passbook::in_folder(&folder).set("PASSBOOK_LOG_FORMAT", "json").set("PASSBOOK_LOG", level).start();
    let headers = HeaderMap::from_iter([("x-request-id".parse().unwrap(), "the-opening".parse().unwrap())]);
    let http = passbook_testkit::http_client().default_headers(headers).build().unwrap();
    let body = json!({"currency": "EUR", "owner": "customer-4711", "initial_deposit": 987_654_321});
    let opened = http.post(format!("{}/v1/accounts", service.client.base_url())).json(&body).send().await.unwrap();
    assert_eq!(opened.status(), 201);
    let account: Value = opened.json().await.unwrap();
    let account_id = account["account_id"].as_str().unwrap();

    let withdrawals = format!("/v1/accounts/{account_id}/withdrawals");
    let body = json!({"amount": 987_654_322, "reference": "for-aunt-mary"});
    assert_eq!(service.client.post(&withdrawals, "key-8471", &body).await.unwrap().status(), 422);
    assert_eq!(service.client.get("/v1/accounts?owner=customer-4711").await.status(), 200);
    assert_eq!(service.client.get("/nowhere").await.status(), 404);
    for unlogged in ["/livez", "/readyz", "/", "/console/main.js", "/openapi.json", "/swagger-ui/"] {
        assert_eq!(service.client.get(unlogged).await.status(), 200, "{unlogged}");
    }

    let ended = service.stop(Signal::SIGTERM);
    let lines = json_lines(&ended.stderr);
    (lines.into_iter().filter(|line| !line["request_id"].is_null()).collect(), ended.stderr)
}

#[tokio::test]
async fn each_request_is_logged_as_one_line_without_private_data() {
    let (lines, stderr) = log_of("info").await;
    let logged: Vec<_> = lines.iter().map(|line| (&line["method"], &line["route"], &line["status"])).collect();
    let expected = [
        (&json!("POST"), &json!("/v1/accounts"), &json!(201)),
        (&json!("POST"), &json!("/v1/accounts/{account_id}/withdrawals"), &json!(422)),
        (&json!("GET"), &json!("/v1/accounts"), &json!(200)),
        (&json!("GET"), &json!("none"), &json!(404)),
    ];
    assert_eq!(logged, expected, "{stderr}");
    assert_eq!(json_lines(&stderr).len(), stderr.lines().count(), "{stderr}");
    assert_eq!(lines[0]["request_id"], "the-opening");
    let codes: Vec<_> = lines.iter().map(|line| &line["code"]).collect();
    assert_eq!(codes, [&json!(null), &json!("insufficient_funds"), &json!(null), &json!("not_found")], "{stderr}");
    assert!(lines[0]["account_id"].is_null() && lines[1]["account_id"].is_string(), "{stderr}");
    assert!(lines.iter().all(|line| line["caller"].is_null()), "there is no access control: {stderr}");
    for line in &lines {
        assert!(line["duration_ms"].as_f64().is_some_and(|duration| duration > 0.0), "{line}");
        assert!(line["timestamp"].is_string() && line["level"] == "INFO", "{line}");
    }
    for private in ["customer-4711", "987654321", "987654322", "for-aunt-mary", "key-8471"] {
        assert!(!stderr.contains(private), "{private} was logged: {stderr}");
    }
}

#[tokio::test]
async fn a_log_level_above_info_logs_no_requests() {
    let (lines, stderr) = log_of("warn").await;
    assert!(lines.is_empty(), "{stderr}");
}

#[tokio::test]
async fn probes_and_requests_beyond_the_rate_limit_are_not_logged() {
    const REQUESTS: usize = 100;
    let folder = Folder::migrated();
    let service = Passbook::in_folder(&folder).set("PASSBOOK_LOG_FORMAT", "json");
    let service = service.set("PASSBOOK_RATE_LIMIT_PER_SECOND", "1").set("PASSBOOK_RATE_LIMIT_BURST", "1").start();
    let mut served = 0;
    for _ in 0..REQUESTS {
        served += usize::from(service.client.get("/v1/accounts").await.status() != 429);
        service.client.get("/livez").await;
        service.client.get("/readyz").await;
    }
    assert!(served < REQUESTS, "no request was beyond the limit");
    let mut superuser = PgConnection::connect(&folder.database_url()).await.unwrap();
    query("ALTER TABLE projection RENAME TO away").execute(&mut superuser).await.unwrap();
    for _ in 0..REQUESTS {
        assert_eq!(service.client.get("/readyz").await.status(), 503);
    }
    let lines = json_lines(&service.stop(Signal::SIGTERM).stderr);
    let logged = |message: &str| lines.iter().filter(|line| line["message"] == message).count();
    assert_eq!(logged("request"), served, "{lines:?}");
    assert_eq!(logged("access denied"), 0, "{lines:?}");
    assert_eq!(logged("readiness probe failed"), 1, "{lines:?}");
}

#[tokio::test]
async fn failures_of_background_readers_are_logged_with_their_kind() {
    let folder = Folder::migrated();
    let service = Passbook::in_folder(&folder).set("PASSBOOK_LOG_FORMAT", "json").start();
    service.client.wait_until_ready().await;
    service.client.open_account().await;
    let _stream = service.client.get("/v1/events/stream").await;
    let mut superuser = PgConnection::connect(&folder.database_url()).await.unwrap();
    for table in ["log_head", "event"] {
        query(AssertSqlSafe(format!("ALTER TABLE {table} RENAME TO {table}_away")))
            .execute(&mut superuser)
            .await
            .unwrap();
    }
    let messages = ["projector batch failed; retrying", "event feed could not read the log; retrying"];
    let logged = eventually("the log lines", async || {
        let lines = json_lines(&service.process.stderr());
        let found = messages.map(|message| lines.iter().find(|line| line["message"] == message).cloned());
        found.iter().all(Option::is_some).then(|| found.map(Option::unwrap))
    });
    for line in logged.await {
        assert_eq!((&line["failure"], &line["sqlstate"]), (&json!("refused"), &json!("42P01")), "{line}");
    }
}
