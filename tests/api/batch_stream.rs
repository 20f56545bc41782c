//! Lines of JSON: each command is executed when it arrives, and results are sent in order while the request is still being sent.

use std::time::Duration;

use passbook_testkit::{
    App, LineExchange, audit::audit, eventually, spawn_app, spawn_app_in_one_partition_behind_proxy, spawn_app_with,
};
use serde_json::{Value, json};
use tokio::time::timeout;
use uuid::Uuid;

const LINE_BYTES_MAX: usize = 64 * 1024;

fn deposit(account: Uuid, amount: i64) -> String {
    json!({"command": "deposit", "account_id": account, "amount": amount}).to_string()
}

fn statuses(results: &[Value]) -> Vec<i64> {
    results.iter().map(|result| result["status"].as_i64().unwrap()).collect()
}

/// Asserts that the results have the indexes from 0.
#[track_caller]
fn assert_in_order(results: &[Value]) {
    let indexes: Vec<u64> = results.iter().map(|result| result["index"].as_u64().unwrap()).collect();
    assert_eq!(indexes, (0..results.len() as u64).collect::<Vec<_>>());
}

async fn app_with_account() -> (App, Uuid) {
    let app = spawn_app().await;
    let account = app.client().open_with_balance(0).await;
    (app, account)
}

#[tokio::test]
async fn results_arrive_while_the_request_is_still_being_sent() {
    let (app, account) = app_with_account().await;
    let mut exchange = LineExchange::begin(&app.url(), "").await;
    for number in 1..=5 {
        exchange.send(deposit(account, 10) + "\n").await;
        let result = exchange.next().await.expect("a result");
        assert_eq!((&result["index"], &result["status"]), (&json!(number - 1), &json!(201)));
        assert_eq!(result["receipt"]["balance"], 10 * number);
    }
    let head = exchange.head().await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("\r\ncontent-type: application/x-ndjson\r\n"), "{head}");
    exchange.end().await;
    assert_eq!(exchange.next().await, None);
    assert!(exchange.is_complete());
    audit(&app).await;
}

#[tokio::test]
async fn hold_of_an_earlier_line_is_captured_and_voided() {
    let (app, account) = app_with_account().await;
    let mut exchange = LineExchange::begin(&app.url(), "").await;
    exchange.send(deposit(account, 100) + "\n").await;
    exchange.next().await.expect("a result");
    let place = json!({"command": "place_hold", "account_id": account, "amount": 50});
    exchange.send(format!("{place}\n{place}\n")).await;
    let holds = [exchange.next().await.unwrap(), exchange.next().await.unwrap()];
    let [captured, voided] = holds.map(|result| result["receipt"]["hold"]["hold_id"].clone());
    let capture = json!({"command": "capture_hold", "account_id": account, "hold_id": captured, "amount": 20});
    let void = json!({"command": "void_hold", "account_id": account, "hold_id": voided});
    let reverse = json!({"command": "reverse", "account_id": account, "version": 5});
    exchange.send(format!("{capture}\n{void}\n{reverse}")).await;
    exchange.end().await;
    let results = exchange.rest().await;
    assert_eq!(statuses(&results), [201, 200, 201]);
    assert_eq!(results[2]["receipt"]["balance"], 100, "the capture is reversed");
    audit(&app).await;
}

#[tokio::test]
async fn thousands_of_lines_are_answered_in_order() {
    let (app, account) = app_with_account().await;
    let other = app.client().open_with_balance(0).await;
    let line = |number: i64| match number % 4 {
        0 => json!({"command": "transfer", "from": account, "to": other, "amount": 1}).to_string(),
        1 => deposit(account, 0),
        _ => deposit(account, 1),
    };
    let lines: Vec<String> = (2..3_002).map(line).collect();
    let response = app.client().batch_lines(lines.join("\n")).await.expect(200);
    let results = response.lines();
    assert_in_order(&results);
    let expected: Vec<i64> = (2..3_002).map(|number| if number % 4 == 1 { 400 } else { 201 }).collect();
    assert_eq!(statuses(&results), expected);
    let log = audit(&app).await;
    assert_eq!(log.event_payloads(account).len(), 1 + 750 * 3);
}

#[tokio::test]
async fn line_ends_empty_lines_and_byte_order_mark_are_ignored() {
    let (app, account) = app_with_account().await;
    let line = deposit(account, 1);
    let body = format!("\u{feff}{line}\r\n\n\r\n \t \n{line}\n\n{line}");
    let response = app.client().batch_lines(body).await.expect(200);
    assert_eq!(statuses(&response.lines()), [201, 201, 201]);
    assert_in_order(&response.lines());
    for empty in ["", "\n", "\u{feff}", "\u{feff}\r\n \n"] {
        assert_eq!(app.client().batch_lines(empty).await.expect(200).bytes, b"");
    }
    assert_eq!(audit(&app).await.event_payloads(account).len(), 4);
}

#[tokio::test]
async fn bad_line_gets_its_problem_and_the_next_one_is_executed() {
    let (app, account) = app_with_account().await;
    let bad = [
        "nonsense".to_owned(),
        "{".to_owned(),
        "[]".to_owned(),
        "{}".to_owned(),
        json!({"mode": "each", "commands": []}).to_string(),
        json!({"command": "deposits", "account_id": account, "amount": 1}).to_string(),
        json!({"command": "deposit", "account_id": account, "amuont": 1}).to_string(),
        json!({"command": "deposit", "account_id": account}).to_string(),
        deposit(account, 1) + deposit(account, 1).as_str(),
        format!("\u{feff}{}", deposit(account, 1)),
    ];
    let mut body = deposit(account, 1) + "\n";
    for line in &bad {
        body.push_str(line);
        body.push('\n');
    }
    let mut bytes = body.into_bytes();
    bytes.extend_from_slice(b"{\"command\":\"freeze\",\"reason\":\"\xff\"}\n");
    bytes.extend_from_slice(deposit(account, 1).as_bytes());
    let results = app.client().batch_lines(bytes).await.expect(200).lines();
    assert_in_order(&results);
    let expected = [vec![201], vec![400; bad.len() + 1], vec![201]].concat();
    assert_eq!(statuses(&results), expected, "{results:?}");
    assert!(results[1..=bad.len() + 1].iter().all(|result| result["problem"]["code"] == "malformed_request"));
    audit(&app).await;
}

#[tokio::test]
async fn problem_of_a_line_repeats_only_the_beginning_of_long_values() {
    /// The texts of a problem, and what is the same in all of them.
    const RESULT_BYTES_MAX: usize = 2 * 1024;
    let (app, account) = app_with_account().await;
    let mut lines = Vec::new();
    for long in ["x".repeat(60_000), "€".repeat(20_000), "\"\\".repeat(10_000)] {
        lines.push(json!(long));
        lines.push(json!({"command": long}));
        lines.push(json!({"command": "freeze", "account_id": long}));
        lines.push(json!({"command": "freeze", "account_id": account, &*long: 1}));
        for field in ["reference", "channel", "metadata", "currency", "idempotency_key"] {
            let mut deposit = json!({"command": "deposit", "account_id": account, "amount": 1});
            deposit[field] = json!(long);
            lines.push(deposit.clone());
            deposit[field] = json!({&*long: long.len()});
            lines.push(deposit);
        }
    }
    let body: Vec<String> = lines.iter().map(Value::to_string).collect();
    let response = app.client().batch_lines(body.join("\n")).await.expect(200);
    assert_eq!(statuses(&response.lines()), vec![400; lines.len()]);
    for line in response.bytes.split(|byte| *byte == b'\n') {
        assert!(line.len() <= RESULT_BYTES_MAX, "{} bytes: {}", line.len(), String::from_utf8_lossy(&line[..1_000]));
    }
}

#[tokio::test]
async fn line_above_the_limit_gets_413_and_the_next_one_is_executed() {
    let (app, account) = app_with_account().await;
    let padded = |bytes: usize| {
        let line = deposit(account, 1);
        format!("{line}{}", " ".repeat(bytes - line.len()))
    };
    for end in ["\n", "\r\n"] {
        let lines =
            [padded(LINE_BYTES_MAX), padded(LINE_BYTES_MAX + 1), padded(20 * LINE_BYTES_MAX), deposit(account, 1)];
        let results = app.client().batch_lines(lines.join(end)).await.expect(200).lines();
        assert_in_order(&results);
        assert_eq!(statuses(&results), [201, 413, 413, 201]);
        assert_eq!(results[1]["problem"]["code"], "payload_too_large");
    }
    let last = app.client().batch_lines(padded(LINE_BYTES_MAX + 1)).await.expect(200);
    assert_eq!(statuses(&last.lines()), [413]);
    audit(&app).await;
}

#[tokio::test]
async fn short_results_of_lines_are_not_compressed() {
    let (app, account) = app_with_account().await;
    let body = format!("{}\n{}\n", deposit(account, 1), deposit(account, 0)).repeat(200);
    let client = app.client().with_header("prefer", "return=minimal").with_header("accept-encoding", "gzip");
    let response = client.batch_lines(body).await.expect(200);
    assert_eq!(response.header("preference-applied"), Some("return=minimal"));
    assert_eq!(response.header("content-encoding"), None);
    let results = response.lines();
    assert_eq!(results.len(), 400);
    assert_eq!(results[0], json!({"index": 0, "status": 201, "version": 2}));
    assert_eq!(results[1], json!({"index": 1, "status": 400, "code": "invalid_amount"}));
}

/// Three lines with characters of several bytes, which deposit 7 together.
fn keyed_lines(account: Uuid, keys: &str) -> String {
    let line = |(number, amount): (usize, i64)| {
        json!({
            "command": "deposit", "account_id": account, "amount": amount, "reference": "für 😀",
            "idempotency_key": format!("{keys}-{number}")
        })
        .to_string()
    };
    let lines: Vec<String> = [1, 2, 4].into_iter().enumerate().map(line).collect();
    lines.join("\n") + "\n"
}

/// Sends the body up to this byte, in two chunks, and breaks off. Returns the results.
async fn send_cut(app: &App, body: &[u8], cut: usize, how: usize) -> Vec<Value> {
    let mut exchange = LineExchange::begin(&app.url(), "").await;
    let (first, second) = body[..cut].split_at(cut / 2);
    if !first.is_empty() {
        exchange.send(first).await;
    }
    match how {
        // Between two chunks.
        0 if !second.is_empty() => exchange.send(second).await,
        0 => {}
        // Within a chunk, before its end is announced to have arrived.
        1 => exchange.send_raw(&[format!("{:x}\r\n", second.len() + 9).as_bytes(), second].concat()).await,
        // Within the size of a chunk.
        _ => exchange.send_raw(b"1").await,
    }
    exchange.close_sending_side().await;
    exchange.rest().await
}

#[tokio::test]
async fn body_cut_at_any_byte_and_sent_again_is_executed_once() {
    let (app, account) = app_with_account().await;
    let length = keyed_lines(account, "0000-0").len();
    let cuts: Vec<usize> = (0..length).step_by(3).chain([length]).collect();
    let mut expected = 0;
    for (number, cut) in cuts.into_iter().enumerate() {
        let lines = keyed_lines(account, &format!("{number:04}-{}", number % 3));
        let results = send_cut(&app, lines.as_bytes(), cut, number % 3).await;
        let sent = match number % 3 {
            2 => cut / 2,
            _ => cut,
        };
        let complete = lines.as_bytes()[..sent].iter().filter(|byte| **byte == b'\n').count();
        let executed = results.iter().filter(|result| result["status"] == 201).count();
        assert_eq!(executed, complete, "cut after {cut} bytes of {lines}: {results:?}");
        assert!(results[executed..].iter().all(|result| result["problem"]["code"] == "malformed_request"));
        assert!(results.len() <= executed + 1);
        let again = app.client().batch_lines(lines).await.expect(200).lines();
        assert_eq!(statuses(&again), [201, 201, 201]);
        let replayed = again.iter().filter(|result| result["replayed"] == true).count();
        assert_eq!(replayed, complete, "cut after {cut} bytes");
        expected += 7;
        assert_eq!(again[2]["receipt"]["balance"], expected);
    }
    audit(&app).await;
}

#[tokio::test]
async fn complete_command_without_the_end_of_its_line_is_not_executed() {
    let (app, account) = app_with_account().await;
    for how in 0..3 {
        let mut exchange = LineExchange::begin(&app.url(), "").await;
        exchange.send(deposit(account, 1) + "\n").await;
        assert_eq!(exchange.next().await.expect("a result")["status"], 201);
        exchange.send(deposit(account, 100)).await;
        match how {
            0 => exchange.close_sending_side().await,
            1 => exchange.send_raw(b"nonsense").await,
            _ => drop(exchange),
        }
    }
    let line = deposit(account, 1);
    let executed = app.client().batch_lines(line).await.expect(200).lines();
    assert_eq!(executed[0]["receipt"]["balance"], 4);
    audit(&app).await;
}

#[tokio::test]
async fn request_without_lines_ends_after_the_idle_timeout() {
    let app = spawn_app_with(&["--idle-timeout-ms=400"]).await;
    let account = app.client().open_with_balance(0).await;
    let mut exchange = LineExchange::begin(&app.url(), "").await;
    exchange.send(deposit(account, 1) + "\n").await;
    let results = exchange.rest().await;
    assert_eq!(results.last().unwrap()["problem"]["code"], "request_timeout", "{results:?}");
    assert!(exchange.is_complete());
    // A line whose end does not arrive is late, too, although its bytes do.
    let mut slow = LineExchange::begin(&app.url(), "").await;
    let result = loop {
        slow.send(" ").await;
        if let Ok(result) = timeout(Duration::from_millis(20), slow.next()).await {
            break result.expect("a result");
        }
    };
    assert_eq!((&result["index"], &result["status"]), (&json!(0), &json!(408)));
}

#[tokio::test]
async fn shutdown_ends_the_results_with_503() {
    let (mut app, account) = app_with_account().await;
    let mut exchange = LineExchange::begin(&app.url(), "").await;
    exchange.send(deposit(account, 1) + "\n").await;
    assert_eq!(exchange.next().await.expect("a result")["status"], 201);
    let (results, ()) = tokio::join!(exchange.rest(), app.stop());
    assert_eq!(statuses(&results), [503]);
    assert_eq!((&results[0]["index"], &results[0]["problem"]["code"]), (&json!(1), &json!("overloaded")));
    assert!(exchange.is_complete());
}

#[tokio::test]
async fn first_server_error_ends_the_results() {
    let (app, proxy) = spawn_app_in_one_partition_behind_proxy(&[]).await;
    let account = app.client().open_with_balance(0).await;
    let lines = |count: usize| {
        let line = |number| {
            json!({"command": "deposit", "account_id": account, "amount": 1, "idempotency_key": format!("line-{number}")})
                .to_string()
        };
        (0..count).map(line).collect::<Vec<_>>().join("\n") + "\n"
    };
    let mut exchange = LineExchange::begin(&app.url(), "").await;
    exchange.send(lines(10)).await;
    for _ in 0..10 {
        assert_eq!(exchange.next().await.expect("a result")["status"], 201);
    }
    proxy.disconnect();
    exchange.send(lines(40)).await;
    let results = exchange.rest().await;
    assert!(exchange.is_complete());
    let (last, executed) = results.split_last().expect("a result");
    assert!(last["status"].as_i64().unwrap() >= 500, "{last}");
    assert!(executed.iter().all(|result| result["replayed"] == true), "{executed:?}");
    proxy.reconnect();
    eventually("every line is executed", async || {
        let again = app.client().batch_lines(lines(40)).await.expect(200).lines();
        statuses(&again).iter().all(|status| *status == 201).then_some(())
    })
    .await;
    assert_eq!(audit(&app).await.event_payloads(account).len(), 41);
}

#[tokio::test]
async fn connection_serves_another_request_after_complete_lines() {
    let (app, account) = app_with_account().await;
    let mut exchange = LineExchange::begin(&app.url(), "").await;
    exchange.send(deposit(account, 1)).await;
    exchange.end().await;
    assert_eq!(statuses(&exchange.rest().await), [201]);
    exchange.begin_next("").await;
    exchange.send(deposit(account, 2)).await;
    exchange.end().await;
    assert_eq!(exchange.rest().await[0]["receipt"]["balance"], 3);
}

#[tokio::test]
async fn continue_precedes_the_response_if_the_client_expects_it() {
    let (app, account) = app_with_account().await;
    let mut exchange = LineExchange::begin(&app.url(), "expect: 100-continue\r\n").await;
    exchange.wait_for_continue().await;
    exchange.send(deposit(account, 1)).await;
    exchange.end().await;
    assert_eq!(statuses(&exchange.rest().await), [201]);
}

#[tokio::test]
async fn unread_results_stop_the_reading_of_lines() {
    let (app, account) = app_with_account().await;
    let mut exchange = LineExchange::begin(&app.url(), "").await;
    let block = (deposit(account, 0) + "\n").repeat(1_000);
    // More than all buffers between the two together hold.
    let blocks = 400;
    let sent = exchange.send_until_blocked(&block, blocks).await;
    assert!(sent < blocks, "the service read {sent} blocks of {} bytes whose results nothing reads", block.len());
    app.client().deposit(account, 1).await.expect(201);
    // Every line that was sent gets its result when the client reads.
    exchange.close_sending_side().await;
    let results = exchange.rest().await;
    assert_in_order(&results);
    assert!((sent * 1_000..=(sent + 1) * 1_000).contains(&results.len()), "{} results", results.len());
    let (last, complete) = results.split_last().unwrap();
    assert!(complete.iter().all(|result| result["problem"]["code"] == "invalid_amount"), "{last}");
    audit(&app).await;
}
