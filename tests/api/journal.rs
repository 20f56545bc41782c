//! The journal: every movement of the log once, balanced, in both formats, streamed at the reader's speed.

use std::collections::HashMap;

use chrono::{NaiveDate, Utc};
use passbook_testkit::{
    App,
    books_audit::{Booking, bookings},
    log::Log,
    spawn_app, spawn_app_in_one_partition, spawn_app_with,
};
use serde_json::{Value, json};
use sqlx::query_scalar;
use uuid::Uuid;

use crate::{
    books_history::{History, hledger_balances, hledger_check},
    domain_history::DomainHistory,
    trial_balance::{sums, trial_balance},
};

pub const ALL_DAYS: &str = "from=0001-01-01&to=9999-12-31";

pub fn path(query: &str) -> String {
    format!("/v1/books/journal?{query}")
}

/// Compares each line of a journal with the movements of the log, in the order of times and then of partitions.
pub fn assert_equals_log(lines: &[Value], log: &Log, is_included: impl Fn(NaiveDate) -> bool) {
    let mut events = log.events.clone();
    events.sort_by_key(|event| (event.recorded_at, event.partition, event.position));
    // Bookings need originals before their reversals, as the log of each account has them.
    let bookings = bookings(&log.events).into_iter().filter(|booking| is_included(booking.day));
    let bookings: HashMap<Uuid, Booking> = bookings.map(|booking| (booking.event_id, booking)).collect();
    let expected: Vec<_> = events.iter().filter_map(|event| Some((event, bookings.get(&event.id)?))).collect();
    assert_eq!(lines.len(), expected.len());
    for (line, (event, booking)) in lines.iter().zip(expected) {
        assert_eq!(line["event_id"], json!(event.id), "{line}");
        let found = ["date", "account_id", "version", "currency"].map(|member| &line[member]);
        assert_eq!(json!(found), json!([booking.day, event.stream_id, event.version, booking.currency]), "{line}");
        let data = event.json();
        for member in ["transfer_id", "hold_id", "reverses_version", "reference", "channel"] {
            assert_eq!(line[member], data[member], "{member} of {line}");
        }
        let (debit, credit) = ((-booking.change).max(0), booking.change.max(0));
        let postings = json!([
            {"ledger_account": "liabilities:customer-deposits", "debit": debit, "credit": credit},
            {"ledger_account": booking.other, "debit": credit, "credit": debit},
        ]);
        assert_eq!(line["postings"], postings, "{line}");
    }
}

#[tokio::test]
async fn journal_has_every_movement_of_the_log_once() {
    for partitions in ["--partitions=1", "--partitions=4"] {
        let app = spawn_app_with(&[partitions]).await;
        let mut history = History::new(&app, 11).await;
        // More entries than one page has.
        history.run(&app, 700).await;
        let journal = app.client().get(&path(ALL_DAYS)).await.expect(200);
        assert_equals_log(&journal.lines(), &app.log().await, |_| true);
        assert_eq!(journal.position(), app.latest_position());
    }
}

#[tokio::test]
async fn journal_of_a_period_is_final_and_joins_without_gap() {
    let app = spawn_app_in_one_partition().await;
    let mut history = DomainHistory::new(&app, 5, 200);
    history.append_to(&app).await;
    let (client, log) = (app.client(), app.log().await);
    let days: Vec<NaiveDate> = log.events.iter().map(|event| event.recorded_at.date_naive()).collect();
    let (first, middle, after) = (days[0], days[days.len() / 2], days.last().unwrap().succ_opt().unwrap());
    let read = async |from: NaiveDate, to: NaiveDate| {
        client.get(&path(&format!("from={from}&to={to}"))).await.expect(200).lines()
    };
    let halves = [read(first, middle).await, read(middle, after).await];
    assert_equals_log(&halves[0], &log, |day| day < middle);
    assert_equals_log(&halves.concat(), &log, |_| true);
    assert_eq!(read(middle, middle).await, [] as [Value; 0]);
    assert_eq!(read(after, after).await, [] as [Value; 0]);
    client.deposit(*history.accounts.keys().next().unwrap(), 17).await.expect(201);
    assert_eq!(read(first, after).await, halves.concat());
    let today = Utc::now().date_naive();
    assert_eq!(read(today, today.succ_opt().unwrap()).await.len(), 1);
    // hledger gives the trial balance of a past day.
    let hledger = client.get(&path(&format!("{ALL_DAYS}&format=hledger"))).await.expect(200);
    hledger_check(&hledger.bytes);
    let balance = sums(&trial_balance(&client, &format!("date={}", middle.pred_opt().unwrap())).await.body);
    let found = hledger_balances(&hledger.bytes, &["--end", &middle.to_string()]);
    assert_eq!(found, crate::books_history::balances(&balance));
}

#[tokio::test]
async fn texts_and_digits_survive_in_hledger() {
    let app = spawn_app().await;
    let client = app.client();
    let references = [
        "rent 2026/11",
        "a;b | c\nsecond line\r\nthird",
        "Grüße 😀 \u{202e}right to left",
        "; comment\n    assets:x  1",
        "(code) * ! =1 EUR",
        "\n\t\u{2028}",
        ";",
    ];
    for (currency, amount) in [("EUR", 1_234_567), ("JPY", 5), ("KWD", 1), ("CLF", 9_007_199_254_740_991_i64)] {
        let account = client.open(json!({"currency": currency, "initial_deposit": 0})).await.expect(201).account_id();
        for reference in references {
            let body = json!({"amount": amount / 8 + 1, "reference": reference, "channel": "atm"});
            client.command(&format!("/v1/accounts/{account}/deposits"), body).await.expect(201);
        }
    }
    let journal = client.get(&path(&format!("{ALL_DAYS}&format=hledger"))).await.expect(200);
    hledger_check(&journal.bytes);
    let body = trial_balance(&client, &format!("min_position={}", app.latest_position())).await.body;
    assert_eq!(hledger_balances(&journal.bytes, &[]), crate::books_history::balances(&sums(&body)));
    let text = String::from_utf8(journal.bytes).unwrap();
    assert!(text.contains(") a,b | c second line  third\n"), "{text}");
    assert!(text.contains("Grüße 😀"), "{text}");
    // A text of blanks alone is no description.
    assert_eq!(text.matches(") Deposit\n").count(), 4, "{text}");
}

#[tokio::test]
async fn format_of_the_journal_is_a_parameter_or_a_media_type() {
    let app = spawn_app().await;
    let client = app.client();
    client.open_with_balance(1).await;
    for (format, media_type, extension) in
        [("jsonl", "application/x-ndjson", "jsonl"), ("hledger", "text/x-hledger", "journal")]
    {
        let named = client.get(&path(&format!("{ALL_DAYS}&format={format}"))).await.expect(200);
        let accepted = client.with_header("accept", media_type).get(&path(ALL_DAYS)).await.expect(200);
        for response in [named, accepted] {
            assert_eq!(response.header("content-type").unwrap().split(';').next().unwrap(), media_type);
            let file = format!("attachment; filename=\"journal-0001-01-01-9999-12-31.{extension}\"");
            assert_eq!(response.header("content-disposition"), Some(&*file));
            assert_eq!(response.headers.get_all("vary").iter().next().unwrap(), "accept");
        }
    }
    let default = client.get(&path(ALL_DAYS)).await.expect(200);
    assert_eq!(default.header("content-type"), Some("application/x-ndjson"));
    client.with_header("accept", "text/html").get(&path(ALL_DAYS)).await.expect_problem(406, "not_acceptable");
}

#[tokio::test]
async fn invalid_queries_of_the_journal_are_refused() {
    let app = spawn_app().await;
    let days = "from=2026-01-01&to=2026-02-01";
    for (query, field) in [
        ("", "from"),
        ("from=2026-01-01", "to"),
        ("to=2026-01-01", "from"),
        ("from=&to=2026-02-01", "from"),
        ("from=2026-01-01&to=2026-02-30", "to"),
        ("from=2026-02-02&to=2026-02-01", "from"),
        (&format!("{days}&format=pdf"), "format"),
        (&format!("{days}&format="), "format"),
        (&format!("{days}&min_position=x"), "min_position"),
        (&format!("{days}&min_position=0:1,9:4"), "min_position"),
        (&format!("{days}&limit=1"), "limit"),
        (&format!("{days}&from=2026-01-01"), "from"),
    ] {
        let refused = app.client().get(&path(query)).await.expect_problem(400, "invalid_parameter");
        assert_eq!(refused.text("/errors/0/field"), field, "{query}");
    }
    let beyond = app.client().get(&path(&format!("{days}&min_position={}", app.qualify("7")))).await;
    beyond.expect_problem(503, "projection_behind");
}

/// Appends deposits of 1 to the log, without the service.
async fn append_deposits(app: &App, account: Uuid, deposits: i64) {
    app.tamper(&format!(
        "INSERT INTO event (partition, position, id, stream_id, version, type, schema_version, data, metadata, recorded_at, hash)
         SELECT partition, 1 + n, gen_random_uuid(), stream_id, 1 + n, 'MoneyDeposited', 2,
                '{{\"amount\": 1, \"reference\": \"coin\", \"channel\": \"atm\"}}', metadata, recorded_at, hash
         FROM event, generate_series(1, {deposits}) AS n
         WHERE stream_id = '{account}';
         UPDATE log_head SET position = 1 + {deposits} WHERE position = 1"
    ))
    .await;
}

#[tokio::test]
async fn unread_journals_occupy_no_connection() {
    const DEPOSITS: i64 = 30_000;
    const READERS: usize = 20;
    let mut app = spawn_app_in_one_partition().await;
    let account = app.client().open_with_balance(1).await;
    app.wait_until_projected().await;
    append_deposits(&app, account, DEPOSITS).await;
    app.restart().await;
    let client = reqwest::Client::new();
    let url = format!("{}{}", app.url(), path(ALL_DAYS));
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let mut response = client.get(&url).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.chunk().await.unwrap().is_some());
        readers.push(response);
    }
    let busy = "SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND application_name = 'passbook queries' AND state <> 'idle'";
    passbook_testkit::eventually("idle connections", async || {
        let busy: i64 = query_scalar(busy).fetch_one(&mut app.database().await).await.unwrap();
        (busy == 0).then_some(())
    })
    .await;
    app.client().get(&format!("/v1/accounts/{account}")).await.expect(200);
    drop(readers);
    let journal = app.client().get(&path(ALL_DAYS)).await.expect(200);
    assert_eq!(journal.lines().len() as i64, 1 + DEPOSITS);
}

#[tokio::test]
async fn journal_of_a_log_with_a_gap_ends_early() {
    let mut app = spawn_app_in_one_partition().await;
    let account = app.client().open_with_balance(1).await;
    app.wait_until_projected().await;
    append_deposits(&app, account, 1_000).await;
    app.restart().await;
    app.tamper("DELETE FROM event WHERE position = 900").await;
    let mut response = reqwest::get(format!("{}{}", app.url(), path(ALL_DAYS))).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut read = 0;
    let ended = loop {
        match response.chunk().await {
            Ok(Some(chunk)) => read += chunk.iter().filter(|byte| **byte == b'\n').count(),
            end => break end,
        }
    };
    assert!(ended.is_err() && read < 900, "{read} lines, then {ended:?}");
    app.tamper("DELETE FROM event WHERE position = 2").await;
    app.client().get(&path(ALL_DAYS)).await.expect_problem(503, "storage_unavailable");
}
