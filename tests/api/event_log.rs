//! `GET /v1/events` and the events of one account: complete, in order, byte for byte, in pages.

use passbook_testkit::{
    ApiClient, App, eventually, http_client, log::Event, spawn_app, spawn_app_in_one_partition,
    spawn_app_in_one_partition_behind_proxy,
};
use serde_json::{Value, json};
use sqlx::query_as;
use uuid::Uuid;

/// The JSON of an event that the API must return, built from the row.
pub fn event_json(event: &Event) -> Value {
    json!({
        "id": event.id,
        "position": event.position.to_string(),
        "aggregate_type": "BankAccount",
        "aggregate_id": event.stream_id,
        "version": event.version,
        "type": event.event_type,
        "schema_version": event.schema_version,
        "data": event.json(),
        "metadata": serde_json::from_str::<Value>(&event.metadata).unwrap(),
        "recorded_at": passbook_event_store::timestamp::format(&event.recorded_at),
        "hash": hex::encode(&event.hash),
    })
}

/// The cursor after an event.
pub fn cursor(event: &Event) -> String {
    format!("{}-{}", event.position, &hex::encode(&event.hash)[..8])
}

/// Records nine events, of every type, on two accounts.
pub async fn record_every_type(client: &ApiClient) -> (Uuid, Uuid) {
    let (account, other) = (client.open_with_balance(100).await, client.open_with_balance(0).await);
    client.deposit(account, 5).await.expect(201);
    client.withdraw(account, 5).await.expect(201);
    client.transfer(account, other, 100).await.expect(201);
    client.freeze(account).await.expect(200);
    client.unfreeze(account).await.expect(200);
    client.close(account).await.expect(200);
    (account, other)
}

/// The JSON of all recorded events.
pub async fn all_events(app: &App) -> Vec<Value> {
    app.log().await.events.iter().map(event_json).collect()
}

/// Reads all pages; returns the events and the cursor of the last page.
async fn walk(client: &ApiClient, query: &str, limit: usize) -> (Vec<Value>, String) {
    let mut found = Vec::new();
    let mut after = "0-00000000".to_owned();
    loop {
        let page = client.get(&format!("/v1/events?after={after}&limit={limit}{query}")).await.expect(200);
        assert!(page.data().len() <= limit, "{}", page.body);
        found.extend_from_slice(page.data());
        let next = page.text("/next").to_owned();
        if next == after {
            return (found, next);
        }
        after = next;
    }
}

#[tokio::test]
async fn log_is_returned_in_order_and_as_recorded() {
    let app = spawn_app_in_one_partition().await;
    record_every_type(&app.client()).await;
    let page = app.client().get("/v1/events").await.expect(200);
    assert_eq!(page.data(), all_events(&app).await);
    let members = ["id", "position", "aggregate_type", "aggregate_id", "version", "type", "schema_version"];
    let members = members.iter().chain(&["data", "metadata", "recorded_at", "hash"]);
    let text = String::from_utf8_lossy(&page.bytes[r#"{"data":"#.len()..]);
    let offsets: Vec<_> = members.map(|member| text.find(&format!("\"{member}\":")).unwrap()).collect();
    assert!(offsets.is_sorted(), "{text}");
    assert_eq!(page.body["next"], cursor(app.log().await.events.last().unwrap()));
}

#[tokio::test]
async fn event_data_is_returned_byte_for_byte() {
    let app = spawn_app().await;
    app.client().open_with_balance(1).await;
    let unusual = "{ \"initial_deposit\":1.0,\n\"owner\" :\"\\u0041\", \"more\":1e400 }";
    app.tamper(&format!("UPDATE event SET data = '{unusual}'")).await;
    let account = app.log().await.events[0].stream_id;
    for path in ["/v1/events", &format!("/v1/accounts/{account}/events")] {
        // The client of the testkit would reject the data, which does not conform to the OpenAPI document.
        let page = http_client().build().unwrap().get(format!("{}{path}", app.url())).send().await.unwrap();
        let text = page.text().await.unwrap();
        assert!(text.contains(&format!("\"data\":{unusual},")), "{text}");
    }
}

#[tokio::test]
async fn pages_of_any_size_cover_the_log_and_end_at_its_head() {
    let app = spawn_app_in_one_partition().await;
    record_every_type(&app.client()).await;
    for limit in [1, 2, 3, 9, 1000] {
        let (found, next) = walk(&app.client(), "", limit).await;
        assert_eq!(found, all_events(&app).await, "pages of {limit}");
        assert_eq!(next, cursor(app.log().await.events.last().unwrap()));
    }
    let (_, end) = walk(&app.client(), "", 100).await;
    app.client().open_with_balance(0).await;
    let more = app.client().get(&format!("/v1/events?after={end}")).await.expect(200);
    assert_eq!(more.data(), &all_events(&app).await[9..]);
}

#[tokio::test]
async fn empty_log_gives_an_empty_page_with_a_cursor() {
    let app = spawn_app_in_one_partition().await;
    for query in ["", "?after=0", "?after=0-00000000", "?type=AccountOpened", "?since=2020-01-01T00:00:00Z"] {
        let page = app.client().get(&format!("/v1/events{query}")).await.expect(200);
        assert_eq!(page.body, json!({"data": [], "next": "0-00000000"}), "{query}");
    }
    app.client().get("/v1/events?after=1").await.expect_problem(400, "invalid_parameter");
}

#[tokio::test]
async fn account_events_are_paged_by_version() {
    let app = spawn_app_in_one_partition().await;
    let (account, other) = record_every_type(&app.client()).await;
    for account in [account, other] {
        let path = format!("/v1/accounts/{account}/events");
        let log = app.log().await;
        let own: Vec<Value> = log.events.iter().filter(|event| event.stream_id == account).map(event_json).collect();
        let whole = app.client().get(&path).await.expect(200);
        assert_eq!(whole.body, json!({"data": own, "next": null}));
        let mut found = Vec::new();
        let mut next = json!("0");
        while let Some(after) = next.as_str() {
            let page = app.client().get(&format!("{path}?limit=1&after_version={after}")).await.expect(200);
            assert_eq!(page.data().len(), 1);
            found.extend_from_slice(page.data());
            next = page.body["next"].clone();
        }
        assert_eq!(found, own);
        for beyond in [own.len() as i64, 99, i64::MAX] {
            let page = app.client().get(&format!("{path}?after_version={beyond}")).await.expect(200);
            assert_eq!(page.body, json!({"data": [], "next": null}));
        }
    }
    for path in ["events", "events?after_version=1"] {
        let unknown = format!("/v1/accounts/{}/{path}", Uuid::from_u128(404));
        app.client().get(&unknown).await.expect_problem(404, "account_not_found");
    }
}

#[tokio::test]
async fn cursor_of_another_history_is_refused() {
    let app = spawn_app_in_one_partition().await;
    record_every_type(&app.client()).await;
    let events = app.log().await.events;
    let (third, last) = (cursor(&events[2]), cursor(events.last().unwrap()));
    for after in [third.as_str(), "3"] {
        let page = app.client().get(&format!("/v1/events?after={after}")).await.expect(200);
        assert_eq!(page.data(), &all_events(&app).await[3..]);
    }
    app.replace_last_event().await;
    let client = app.client();
    for query in ["", "&type=AccountOpened", "&type=MoneyDeposited", "&since=2020-01-01T00:00:00Z"] {
        let refused =
            client.get(&format!("/v1/events?after={last}{query}")).await.expect_problem(400, "invalid_parameter");
        assert!(refused.text("/detail").contains("another history"), "{}", refused.body);
        assert_eq!(refused.body["errors"][0]["field"], "after");
        let refused = client.get(&format!("/v1/events?after=10{query}")).await.expect_problem(400, "invalid_parameter");
        assert!(refused.text("/detail").contains("beyond"), "{}", refused.body);
        client.get(&format!("/v1/events?after={third}{query}")).await.expect(200);
        client.get(&format!("/v1/events?after=9{query}")).await.expect(200);
    }
}

#[tokio::test]
async fn since_starts_at_the_first_event_at_or_after_the_time() {
    let app = spawn_app_in_one_partition().await;
    record_every_type(&app.client()).await;
    app.run_as_one_batch(async { app.client().open_with_balance(0).await }).await;
    let events = app.log().await.events;
    let since = async |time: &str, more: &str| {
        let path = format!("/v1/events?since={}{more}", time.replace('+', "%2B"));
        app.client().get(&path).await.expect(200)
    };
    for event in &events {
        let expected: Vec<Value> =
            events.iter().filter(|e| e.recorded_at >= event.recorded_at).map(event_json).collect();
        let time = passbook_event_store::timestamp::format(&event.recorded_at);
        assert_eq!(since(&time, "").await.data(), expected, "{time}");
        let before = passbook_event_store::timestamp::format(&(event.recorded_at - chrono::Duration::microseconds(1)));
        assert_eq!(since(&before, "").await.data(), expected, "{before}");
        let other_zone = event.recorded_at.with_timezone(&chrono::FixedOffset::east_opt(7_200).unwrap()).to_rfc3339();
        assert_eq!(since(&other_zone, "").await.data(), expected, "{other_zone}");
        let opened = expected.iter().filter(|event| event["type"] == "AccountOpened").cloned().collect::<Vec<_>>();
        assert_eq!(since(&time, "&type=AccountOpened").await.data(), opened);
    }
    for long_ago in ["1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z"] {
        assert_eq!(since(long_ago, "").await.data(), all_events(&app).await);
    }
    let head = cursor(events.last().unwrap());
    for future in ["2999-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"] {
        assert_eq!(since(future, "").await.body, json!({"data": [], "next": head}));
        assert_eq!(since(future, "&after=1").await.body, json!({"data": [], "next": head}));
    }
    let fifth = passbook_event_store::timestamp::format(&events[4].recorded_at);
    assert_eq!(since(&fifth, "&after=1").await.data(), &all_events(&app).await[4..]);
    assert_eq!(since(&fifth, "&after=7").await.data(), &all_events(&app).await[7..]);
}

#[tokio::test]
async fn type_filter_returns_only_that_type() {
    let app = spawn_app_in_one_partition().await;
    record_every_type(&app.client()).await;
    let all = all_events(&app).await;
    for event_type in
        "AccountOpened MoneyDeposited MoneyWithdrawn TransferSent TransferReceived AccountFrozen AccountUnfrozen AccountClosed"
            .split(' ')
    {
        let expected: Vec<&Value> = all.iter().filter(|event| event["type"] == event_type).collect();
        assert!(!expected.is_empty());
        for limit in [1, 2, 100] {
            let (found, next) = walk(&app.client(), &format!("&type={event_type}"), limit).await;
            assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{event_type}");
            assert_eq!(next, cursor(app.log().await.events.last().unwrap()), "the cursor is past the skipped events");
        }
    }
    let refused = app.client().get("/v1/events?type=MoneyStolen").await.expect_problem(400, "invalid_parameter");
    for known in ["MoneyStolen", "AccountOpened", "TransferReceived", "AccountClosed"] {
        assert!(refused.text("/detail").contains(known), "{}", refused.body);
    }
}

/// The number of scans of the index for rare types, and the number of events read without an index.
async fn scans(app: &App) -> (i64, i64) {
    query_as(
        "SELECT (SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'event_rare_type'),
                (SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'event')",
    )
    .fetch_one(&mut app.rows_under_test().await)
    .await
    .unwrap()
}

#[tokio::test]
async fn statements_planned_on_an_empty_log_use_indexes_later() {
    let mut app = spawn_app_in_one_partition().await;
    let queries =
        ["after=0", "after=0&type=AccountClosed", "after=0&type=MoneyDeposited", "since=2020-01-01T00:00:00Z"];
    for _ in 0..10 {
        for query in queries {
            app.client().get(&format!("/v1/events?{query}")).await.expect(200);
        }
        app.client().get(&format!("/v1/accounts/{}/events", Uuid::from_u128(404))).await.expect(404);
    }
    record_every_type(&app.client()).await;
    app.insert_deposits(30_000, 10).await;
    app.client().open_with_balance(0).await;
    for query in queries {
        app.client().get(&format!("/v1/events?{query}")).await.expect(200);
    }
    app.stop().await;
    app.wait_until_disconnected().await;
    let (rare, read) = scans(&app).await;
    assert!(rare >= 11, "the index of rare types was used {rare} times");
    assert!(read < 30_000, "{read} events were read without an index");
}

#[tokio::test]
async fn filtered_page_reads_a_bounded_number_of_events() {
    let app = spawn_app_in_one_partition().await;
    let account = app.client().open_with_balance(1).await;
    app.insert_deposits(25_000, 10).await;
    // Commands are refused while so many events are folded.
    eventually("a withdrawal", async || (app.client().withdraw(account, 1).await.status == 201).then_some(())).await;
    app.client().freeze(account).await.expect(200);
    // All partitions share the limit of one page.
    let scanned = 10_000 / i64::from(app.partitions().count());
    let mut pages = 0;
    let mut after = "0".to_owned();
    let withdrawn = loop {
        let page = app.client().get(&format!("/v1/events?after={after}&type=MoneyWithdrawn")).await.expect(200);
        pages += 1;
        after = page.text("/next").to_owned();
        if let [only] = page.data() {
            break only.clone();
        }
        assert!(page.data().is_empty() && after.starts_with(&format!("{}-", pages * scanned)), "{after}");
    };
    assert_eq!((pages, withdrawn["position"].as_str()), (25_001 / scanned + 1, Some("25002")));
    let rare = app.client().get("/v1/events?after=1&type=AccountFrozen").await.expect(200);
    assert_eq!(rare.data()[0]["position"], "25003");
}

#[tokio::test]
async fn invalid_queries_of_the_log_are_refused() {
    let app = spawn_app().await;
    let (account, _) = record_every_type(&app.client()).await;
    let (log, one) = ("/v1/events", &*format!("/v1/accounts/{account}/events"));
    let movement = app.client().get(&format!("/v1/accounts/{account}/transactions?limit=1&min_position=9")).await;
    let accounts = app.client().get("/v1/accounts?limit=1&min_position=9").await;
    let foreign = format!("after={} after={}", movement.text("/next"), accounts.text("/next"));
    let cursors = "after= after=x after=-1 after=%2B1 after=1.0 after=0x1 after=1- after=1-9f86d0 after=1-zzzzzzzz \
                   after=1-00000000 after=0-00000001 after=10 after=10-00000000 after=9223372036854775807 \
                   after=9223372036854775808 after=1&after=1 after=%00 after=1%20 after=%FF after=head";
    let others = "type= type=moneydeposited type=Money* type=AccountOpened,AccountClosed type=%00 \
                  type=AccountOpened&type=AccountClosed since= since=yesterday since=2026-01-31 since=1700000000 \
                  since=2026-01-31T12:00:00 since=2026-01-31T12:00:00+01:00 since=2026-13-01T00:00:00Z \
                  limit=0 limit=1001 limit=-1 limit=x limit= limit=1.0 afters=1 after_version=1 min_position=1 until=1";
    let for_one_account = "after_version= after_version=-1 after_version=x after_version=1.0 after_version=9223372036854775808 \
                  after_version=v1 limit=0 limit=1001 after=1 type=MoneyDeposited since=2026-01-31T12:00:00Z";
    for (path, queries) in [(log, cursors), (log, &foreign), (log, others), (one, for_one_account)] {
        for query in queries.split_whitespace() {
            let response = app.client().get(&format!("{path}?{query}")).await;
            assert_eq!(response.status, 400, "{path}?{query}: {}", response.body);
            response.expect_problem(400, "invalid_parameter");
        }
    }
    let cursor = app.client().get(&format!("{log}?limit=1")).await.text("/next").to_owned();
    app.client().get(&format!("/v1/accounts?after={cursor}")).await.expect_problem(400, "invalid_parameter");
    app.client().get("/v1/accounts/17/events").await.expect_problem(400, "invalid_parameter");
    app.client().post(log, "{}").await.expect_problem(405, "method_not_allowed");
}

#[tokio::test]
async fn unreachable_database_gives_503_for_the_log() {
    let (app, proxy) = spawn_app_in_one_partition_behind_proxy(&[]).await;
    let account = app.client().open_with_balance(1).await;
    proxy.disconnect();
    for path in ["/v1/events".to_owned(), format!("/v1/accounts/{account}/events"), "/v1/events/stream".to_owned()] {
        app.client().get(&path).await.expect_problem(503, "storage_unavailable");
    }
    proxy.reconnect();
    assert_eq!(app.client().get("/v1/events").await.expect(200).data(), all_events(&app).await);
}
