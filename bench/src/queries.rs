//! Rows of queries that one client sends one after another: lists with selective filters, and the history of a large account.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use chrono::{Days, Utc};
use serde::Deserialize;
use serde_json::json;

use crate::baseline::Baseline;
use crate::client::{List, Passbook};
use crate::each_batches;
use crate::harness::Harness;
use crate::latency::{Latencies, LoadSummary};
use crate::resource_usage::{CpuPerCommand, cpu_time, memory};
use crate::result_row::{ResultRow, Target};
use crate::seed::{account_id, opening};
use crate::service::Service;

/// The number of accounts in another currency, and of frozen accounts.
const RARE_ACCOUNTS: u32 = 50;
/// The numbers of these accounts, which no load uses.
const RARE_FROM: u32 = 0xf000_0000;
const RARE_OWNER: &str = "customer-17";
/// Each query is measured for this part of a row's duration, but a number of times at least.
const PART_OF_ROW: u32 = 5;
const REQUESTS_MIN: u64 = 20;
const SHORT_REQUESTS: u64 = 3;
const RESPONSE_SECONDS_MAX: u64 = 60;
const STATEMENT_SECONDS_MAX: u64 = 3_600;

/// A query, with a name for the report.
struct Query {
    name: &'static str,
    path: String,
}

#[derive(Deserialize)]
struct AccountView {
    version: u64,
    transaction_count: u64,
}

#[derive(Deserialize)]
struct RecordedEvent {
    recorded_at: String,
}

/// Opens the accounts that the selective filters find: some in another currency, some frozen, and two of one owner.
pub async fn open_rare_accounts(passbook: &Passbook) -> Result<()> {
    let numbers = RARE_FROM..RARE_FROM + RARE_ACCOUNTS;
    let in_francs = numbers.clone().map(|n| opening(&account_id(n), "CHF", 1));
    let frozen = numbers.clone().map(|n| n + RARE_ACCOUNTS).flat_map(|n| {
        let freeze = json!({"command": "freeze", "account_id": account_id(n)});
        [opening(&account_id(n), "EUR", 1), freeze.to_string()]
    });
    let owned = [2 * RARE_ACCOUNTS, 2 * RARE_ACCOUNTS + 1].map(|n| {
        let id = account_id(RARE_FROM + n);
        json!({"command": "open", "account_id": id, "currency": "EUR", "owner": RARE_OWNER}).to_string()
    });
    each_batches::execute(passbook, in_francs.chain(frozen).chain(owned), None).await
}

/// Measures all queries, and the statement of the account to which `deposits_to_one.lua` deposits.
pub async fn measure(harness: &Harness, service: &mut Service) -> Result<Vec<ResultRow>> {
    let passbook = &harness.passbook;
    let mut rows = Vec::new();
    for query in &queries(passbook).await? {
        rows.push(measure_query(harness, service, query).await?);
    }
    rows.push(measure_statement(passbook, service).await?);
    service.server.check_alive()?;
    Ok(rows)
}

async fn queries(passbook: &Passbook) -> Result<Vec<Query>> {
    let large = format!("/v1/accounts/{}", account_id(1));
    let AccountView { version, .. } = read(passbook, &large).await?;
    let middle = version / 2;
    let path = format!("{large}/events?after_version={middle}&limit=1");
    let events: List<RecordedEvent> = read(passbook, &path).await?;
    let time = &events.data.first().context("the large account has no event in the middle")?.recorded_at;
    let query = |name, path| Query { name, path };
    Ok(vec![
        query("large account: GET", large.clone()),
        query("large account: GET as_of a time", format!("{large}?as_of={time}")),
        query("large account: GET as_of_version", format!("{large}?as_of_version={middle}")),
        query("large account: transactions", format!("{large}/transactions")),
        query("large account: transactions to a time", format!("{large}/transactions?to={time}")),
        query("large account: transactions, kind=transfer_out", format!("{large}/transactions?kind=transfer_out")),
        query("large account: daily balances", format!("{large}/daily-balances")),
        query("large account: events", format!("{large}/events")),
        query("accounts", "/v1/accounts".to_owned()),
        query("accounts, currency=CHF (50)", "/v1/accounts?currency=CHF".to_owned()),
        query("accounts, status=frozen (50)", "/v1/accounts?status=frozen".to_owned()),
        query("accounts, owner with 2", format!("/v1/accounts?owner={RARE_OWNER}")),
        query("accounts, owner with most and status=frozen", "/v1/accounts?owner=anonymous&status=frozen".to_owned()),
        query("events, type=AccountFrozen (50)", "/v1/events?type=AccountFrozen".to_owned()),
        query("overview", "/v1/overview".to_owned()),
    ])
}

async fn read<T: serde::de::DeserializeOwned>(passbook: &Passbook, path: &str) -> Result<T> {
    let response = passbook.get(path).await?;
    ensure!(response.status.is_success(), "GET {path}: {}", response.problem());
    response.read()
}

async fn measure_query(harness: &Harness, service: &Service, query: &Query) -> Result<ResultRow> {
    eprintln!("{}", query.name);
    let passbook = &harness.passbook;
    let duration = Duration::from_secs(harness.length.seconds().into()) / PART_OF_ROW;
    let (duration, requests_min) = harness.length.choose((duration, REQUESTS_MIN), (Duration::ZERO, SHORT_REQUESTS));
    let (mut latencies, mut refused) = (Latencies::new()?, 0);
    let pid = service.server.pid;
    let (before, started) = (cpu_time(pid, pid), Instant::now());
    while latencies.count() < requests_min || started.elapsed() < duration {
        let sent = Instant::now();
        let response = passbook.get_once(&query.path, RESPONSE_SECONDS_MAX).await?;
        latencies.record_us(sent.elapsed().as_micros() as u64);
        if !response.status.is_success() {
            eprintln!("GET {}: {}", query.path, response.problem());
            refused += 1;
        }
    }
    let requests = latencies.count();
    let load = LoadSummary {
        requests,
        per_second: (requests - refused) as f64 / started.elapsed().as_secs_f64(),
        p50_ms: latencies.percentile_ms(50.0),
        p99_ms: latencies.percentile_ms(99.0),
        refused,
        broken: 0,
    };
    let cpu = CpuPerCommand::between(before, cpu_time(pid, pid), requests);
    Ok(row(query.name, load, cpu, service))
}

/// Reads the whole statement of the large account once. Each line counts as a command.
async fn measure_statement(passbook: &Passbook, service: &Service) -> Result<ResultRow> {
    let large = format!("/v1/accounts/{}", account_id(1));
    let AccountView { transaction_count, .. } = read(passbook, &large).await?;
    eprintln!("large account: statement of {transaction_count} lines");
    // The run may have begun before midnight.
    let today = Utc::now().date_naive();
    let [from, to] = [today - Days::new(2), today + Days::new(1)];
    let pid = service.server.pid;
    let (before, started) = (cpu_time(pid, pid), Instant::now());
    passbook.download(&format!("{large}/statement?from={from}&to={to}"), STATEMENT_SECONDS_MAX).await?;
    let load = LoadSummary::without_latencies(transaction_count, started.elapsed().as_secs_f64());
    let cpu = CpuPerCommand::between(before, cpu_time(pid, pid), transaction_count);
    Ok(row("large account: lines of its statement", load, cpu, service))
}

fn row(name: &str, load: LoadSummary, cpu: Option<CpuPerCommand>, service: &Service) -> ResultRow {
    ResultRow {
        name: name.to_owned(),
        target: Target::Passbook,
        connections: 1,
        baseline: Baseline::SelectBy1,
        load,
        ratio: None,
        lag: None,
        commands_per_commit: None,
        cpu,
        wal_bytes_per_command: None,
        memory: memory(service.server.pid),
    }
}
