//! Each request is logged as one JSON line without private data.

use nix::sys::signal::Signal;
use passbook_testkit::{folder::Folder, process::Passbook};
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

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
    assert_eq!(service.client.get("/livez").await.status(), 200);
    assert_eq!(service.client.get("/readyz").await.status(), 200);

    let ended = service.stop(Signal::SIGTERM);
    let json = ended.stderr.lines().filter(|line| line.starts_with('{'));
    let lines: Vec<Value> = json.map(|line| serde_json::from_str(line).unwrap()).collect();
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
    assert_eq!(lines[0]["request_id"], "the-opening");
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
