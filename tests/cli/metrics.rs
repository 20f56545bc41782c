//! Metrics and traces: promtool accepts the metrics, `ops/` refers only to metrics that exist, and traces link a request to
//! its batch and to the projectors.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use passbook_testkit::{folder::Folder, process::Passbook};
use serde_json::json;

use crate::otlp_collector::Collector;

/// Metrics of the relay, which `serve` does not expose.
const RELAY_METRICS: [&str; 2] = ["passbook_relay_lag_seconds", "passbook_relay_published_total"];
/// It has a value for each webhook.
const WEBHOOK_METRIC: &str = "passbook_webhook_lag_seconds";

/// How many commands a test sends, because a trace shows the projector's span for nearly every command, but not for each.
const COMMANDS: usize = 10;
const REPLICA_S_MAX: u64 = 60;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The output of `promtool check metrics`. Empty if it accepts the metrics.
fn promtool(text: &str) -> String {
    let installed = root().join("target/tools/promtool");
    let program = if installed.exists() { installed } else { "promtool".into() };
    let mut promtool = Command::new(program)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is not installed: run `scripts/install-deps --test`");
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let report = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() || !report.is_empty());
    report
}

/// The metrics of a service that uses its own database as its replica.
async fn metrics() -> String {
    let folder = Folder::migrated();
    let service = Passbook::in_folder(&folder).set("PASSBOOK_READ_DATABASE_URL", folder.database_url()).start();
    service.client.open_account().await;
    service.client.post("/v1/accounts", "a-key", &json!({"currency": "XXQ"})).await.unwrap();
    service.client.wait_until_ready().await;
    let deadline = Instant::now() + Duration::from_secs(REPLICA_S_MAX);
    loop {
        assert!(Instant::now() < deadline, "the metrics of the replica are missing");
        let text = service.client.get("/metrics").await.error_for_status().unwrap().text().await.unwrap();
        // The service checks the replica at intervals.
        if text.contains("passbook_replica_lag_seconds") {
            return text;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Every metric name in a file.
fn metric_names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("passbook_") || word.starts_with("process_")).collect()
}

#[tokio::test]
async fn metrics_pass_promtool_and_ops_files_name_only_existing_metrics() {
    let text = metrics().await;
    assert_eq!(promtool(&text), "");
    assert!(
        text.contains(
            "passbook_http_request_duration_seconds_count{method=\"POST\",route=\"/v1/accounts\",status=\"201\"} 1"
        ),
        "{text}"
    );
    for file in ["ops/alerts.yml", "ops/grafana/passbook.json"] {
        let contents = fs::read_to_string(root().join(file)).unwrap();
        let missing: Vec<_> = metric_names(&contents)
            .into_iter()
            .filter(|name| !RELAY_METRICS.contains(name) && *name != WEBHOOK_METRIC)
            .filter(|name| !text.lines().any(|line| line.starts_with(name)))
            .collect();
        assert!(missing.is_empty(), "{file} refers to unknown metrics: {missing:?}");
    }
}

#[tokio::test]
async fn refusal_counters_used_by_alerts_start_at_zero() {
    // Prometheus sees no increase if a series first appears with the value 1.
    let text = metrics().await;
    let alerts = fs::read_to_string(root().join("ops/alerts.yml")).unwrap();
    let used: BTreeSet<&str> = alerts
        .split("refusals_total{")
        .skip(1)
        .filter_map(|rest| rest.split_once('}'))
        .map(|(labels, _)| labels)
        .collect();
    assert!(used.len() > 3, "{used:?}");
    for labels in used {
        let expected = format!("passbook_refusals_total{{{labels}}} 0");
        assert!(text.lines().any(|line| line == expected), "{expected} is missing");
    }
}

#[test]
fn promtool_rejects_an_invalid_metric() {
    assert_ne!(promtool("# TYPE passbook_things counter\npassbook_things 1\n"), "");
}

#[tokio::test]
async fn a_trace_links_the_request_to_command_batch_and_projector() {
    let collector = Collector::listen();
    let folder = Folder::migrated();
    let service = Passbook::in_folder(&folder)
        .set("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())
        .set("OTEL_BSP_SCHEDULE_DELAY", "100")
        .start();
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let http = passbook_testkit::http_client().build().unwrap();
    // The projector may read an event before the executor has exported its batch span, so one command is not enough.
    for _ in 0..COMMANDS {
        let opened = http
            .post(format!("{}/v1/accounts", service.client.base_url()))
            .header("traceparent", format!("00-{trace}-b7ad6b7169203331-01"))
            .json(&json!({"currency": "EUR"}));
        assert_eq!(opened.send().await.unwrap().status(), 201);
    }
    let events: serde_json::Value = service.client.get("/v1/events").await.json().await.unwrap();
    let causation = events["data"][0]["metadata"]["causation_id"].as_str().unwrap().replace('-', "");
    assert_eq!(causation, trace);
    service.client.wait_until_ready().await;
    assert_eq!(service.stop(Signal::SIGTERM).status.code(), Some(0));

    let spans = collector.spans();
    let named = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let request = named("POST /v1/accounts")[0];
    assert_eq!(
        (hex::encode(&request.trace_id), hex::encode(&request.parent_span_id)),
        (trace.to_owned(), "b7ad6b7169203331".to_owned())
    );
    let command = named("command").into_iter().find(|command| command.parent_span_id == request.span_id).unwrap();
    assert_eq!(command.trace_id, request.trace_id);
    let batches = named("batch");
    let batch = batches.iter().find(|batch| batch.span_id == command.links[0].span_id).unwrap();
    assert_ne!(batch.trace_id, command.trace_id);
    let is_batch = |id: &[u8]| batches.iter().any(|batch| batch.span_id == id);
    let projected =
        named("project").into_iter().any(|project| project.links.iter().any(|link| is_batch(&link.span_id)));
    assert!(projected, "{spans:#?}");
}

#[tokio::test]
async fn the_callers_trace_flags_and_the_sampler_decide_what_is_traced() {
    for (sampler, traceparent, is_traced) in [
        ("", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", false),
        ("", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", true),
        ("always_on", "", true),
        ("always_off", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false),
    ] {
        let (collector, folder) = (Collector::listen(), Folder::migrated());
        let service = Passbook::in_folder(&folder).set("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url());
        let service = service.set("OTEL_TRACES_SAMPLER", sampler).start();
        let url = format!("{}/v1/accounts", service.client.base_url());
        let http = passbook_testkit::http_client().build().unwrap();
        for _ in 0..COMMANDS {
            let open = http.post(&url).json(&json!({"currency": "EUR"})).header("traceparent", traceparent);
            assert_eq!(open.send().await.unwrap().status(), 201);
        }
        service.client.wait_until_ready().await;
        assert_eq!(service.stop(Signal::SIGTERM).status.code(), Some(0));
        let spans = collector.spans();
        for name in ["POST /v1/accounts", "command", "batch", "project"] {
            let is_there = spans.iter().any(|span| span.name == name);
            assert_eq!(is_there, is_traced, "{name}, with the sampler {sampler:?} and {traceparent:?}");
        }
    }
}

#[test]
fn an_invalid_otlp_endpoint_is_refused() {
    let folder = Folder::empty();
    let ended = Passbook::in_folder(&folder).set("OTEL_EXPORTER_OTLP_ENDPOINT", "otel.example:4318").wait_for_exit();
    assert!(ended.error_message().contains("OTEL_EXPORTER_OTLP_ENDPOINT"), "{ended:?}");
}
