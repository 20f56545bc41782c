//! What an operator measures: metrics that Prometheus's own tool finds no fault with, and that ops/ asks for by their right
//! names; and traces that lead from a request to the views.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::{otlp_collector::Collector, folder::Folder, passbook::Passbook};

/// Only a relay tells these.
const TOLD_BY_OTHERS: [&str; 2] = ["passbook_relay_lag_seconds", "passbook_relay_published_total"];

/// How often is done what shows in a trace nearly each time.
const REPEATED: usize = 10;
/// After so long a thing that must come is taken for lost.
const PATIENCE_S_MAX: u64 = 60;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What promtool says of a text of metrics; nothing where it finds no fault.
fn promtool(text: &str) -> String {
    let ours = root().join("target/tools/promtool");
    let program = if ours.exists() { ours } else { "promtool".into() };
    let mut promtool = Command::new(program)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed by scripts/install-deps --test");
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() || !said.is_empty());
    said
}

/// Those of a bank that takes its own database for its replica.
async fn metrics() -> String {
    let folder = Folder::migrated();
    let bank = Passbook::in_folder(&folder).set("PASSBOOK_READ_DATABASE_URL", folder.database_url()).start();
    bank.client.open_account().await;
    bank.client.post("/v1/accounts", "a-key", &json!({"currency": "XXQ"})).await.unwrap();
    bank.client.wait_until_ready().await;
    let deadline = Instant::now() + Duration::from_secs(PATIENCE_S_MAX);
    loop {
        assert!(Instant::now() < deadline, "the replica is not told of");
        let text = bank.client.get("/metrics").await.error_for_status().unwrap().text().await.unwrap();
        // It is looked after from time to time.
        if text.contains("passbook_replica_lag_seconds") {
            return text;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Every word of a file that is the name of a metric of ours.
fn asked_for(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("passbook_") || word.starts_with("process_")).collect()
}

#[tokio::test]
async fn the_metrics_are_named_and_told_as_prometheus_wants_it_and_ops_asks_for_none_that_is_not_there() {
    let text = metrics().await;
    assert_eq!(promtool(&text), "");
    assert!(
        text.contains(
            "passbook_http_request_duration_seconds_count{method=\"POST\",route=\"/v1/accounts\",status=\"201\"} 1"
        ),
        "{text}"
    );
    for file in ["ops/alerts.yml", "ops/grafana/passbook.json"] {
        let asked = fs::read_to_string(root().join(file)).unwrap();
        let missing: Vec<_> = asked_for(&asked)
            .into_iter()
            .filter(|name| !TOLD_BY_OTHERS.contains(name) && !text.lines().any(|line| line.starts_with(name)))
            .collect();
        assert!(missing.is_empty(), "{file} asks for {missing:?}");
    }
}

#[tokio::test]
async fn a_refusal_that_an_alert_asks_for_is_told_before_the_first_one_so_that_it_is_seen_as_a_rise() {
    let text = metrics().await;
    let alerts = fs::read_to_string(root().join("ops/alerts.yml")).unwrap();
    let asked: BTreeSet<&str> = alerts
        .split("refusals_total{")
        .skip(1)
        .filter_map(|rest| rest.split_once('}'))
        .map(|(labels, _)| labels)
        .collect();
    assert!(asked.len() > 3, "{asked:?}");
    for labels in asked {
        let line = format!("passbook_refusals_total{{{labels}}} 0");
        assert!(text.lines().any(|told| told == line), "{line} is missing");
    }
}

#[test]
fn promtool_finds_fault_with_a_metric_that_is_not_as_it_should_be() {
    assert_ne!(promtool("# TYPE passbook_things counter\npassbook_things 1\n"), "");
}

#[tokio::test]
async fn a_trace_leads_from_the_callers_request_through_command_and_batch_to_the_views() {
    let collector = Collector::listen();
    let folder = Folder::migrated();
    let bank = Passbook::in_folder(&folder)
        .set("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())
        .set("OTEL_BSP_SCHEDULE_DELAY", "100")
        .start();
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    // The projector may read an event before the executor has told of its batch; not each time.
    for _ in 0..REPEATED {
        let opened = http
            .post(format!("{}/v1/accounts", bank.client.base_url()))
            .header("traceparent", format!("00-{trace}-b7ad6b7169203331-01"))
            .json(&json!({"currency": "EUR"}));
        assert_eq!(opened.send().await.unwrap().status(), 201);
    }
    let events: serde_json::Value = bank.client.get("/v1/events").await.json().await.unwrap();
    let causation = events["data"][0]["metadata"]["causation_id"].as_str().unwrap().replace('-', "");
    assert_eq!(causation, trace);
    bank.client.wait_until_ready().await;
    assert_eq!(bank.stop(Signal::SIGTERM).status.code(), Some(0));

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
async fn a_request_is_traced_as_its_caller_and_the_sampler_say() {
    for (sampler, traceparent, is_traced) in [
        ("", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", false),
        ("", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", true),
        ("always_on", "", true),
        ("always_off", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false),
    ] {
        let (collector, folder) = (Collector::listen(), Folder::migrated());
        let bank = Passbook::in_folder(&folder).set("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url());
        let bank = bank.set("OTEL_TRACES_SAMPLER", sampler).start();
        let url = format!("{}/v1/accounts", bank.client.base_url());
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        for _ in 0..REPEATED {
            let open = http.post(&url).json(&json!({"currency": "EUR"})).header("traceparent", traceparent);
            assert_eq!(open.send().await.unwrap().status(), 201);
        }
        bank.client.wait_until_ready().await;
        assert_eq!(bank.stop(Signal::SIGTERM).status.code(), Some(0));
        let spans = collector.spans();
        for name in ["POST /v1/accounts", "command", "batch", "project"] {
            let is_there = spans.iter().any(|span| span.name == name);
            assert_eq!(is_there, is_traced, "{name}, with the sampler {sampler:?} and {traceparent:?}");
        }
    }
}

#[test]
fn an_endpoint_that_is_no_address_is_refused() {
    let folder = Folder::empty();
    let ended = Passbook::in_folder(&folder).set("OTEL_EXPORTER_OTLP_ENDPOINT", "otel.example:4318").wait_for_exit();
    assert!(ended.error_message().contains("OTEL_EXPORTER_OTLP_ENDPOINT"), "{ended:?}");
}
