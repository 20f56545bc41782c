//! `passbook import` against the real service: each command takes effect once after every kind of interruption.

use std::{
    fs,
    io::{PipeWriter, Write, pipe},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use nix::sys::signal::Signal;
use passbook_testkit::{
    folder::Folder,
    ports::free_port,
    process::{Exited, Passbook, Process, Running},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::access_control::{create_token, with_access_control};

const ACCOUNT: &str = "01900000-0000-7000-8000-0000000000aa";
const EXIT_FAILED: Option<i32> = Some(2);
/// How long commands may take to reach the view, also over a restart of the service.
const BALANCE_S_MAX: u64 = 60;

fn open() -> String {
    format!("{}\n", json!({"command": "open", "account_id": ACCOUNT, "currency": "EUR"}))
}

fn deposits(count: usize) -> String {
    let deposit = json!({"command": "deposit", "account_id": ACCOUNT, "amount": 1, "reference": "salary of a month"});
    format!("{deposit}\n").repeat(count)
}

fn write(folder: &Folder, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    path
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// `passbook import` with this file, or `-`.
fn import(service_url: &str, file: impl AsRef<Path>) -> Passbook {
    let file = file.as_ref().to_str().unwrap();
    Passbook::without_settings().argument("import").argument(file).set("PASSBOOK_URL", service_url)
}

/// An import from a pipe that is still open.
fn import_from_pipe(service_url: &str) -> (Process, PipeWriter) {
    let (reader, writer) = pipe().unwrap();
    let process = import(service_url, "-").argument("--key-prefix=pipe").stdin(reader).spawn();
    (process, writer)
}

/// The counts of a summary: commands, executed, replayed, refused.
#[track_caller]
fn counts(ended: &Exited) -> [u64; 4] {
    ["commands", "executed", "replayed", "refused"].map(|name| {
        let row = ended.stdout.iter().find(|line| line.split_whitespace().next() == Some(name));
        let count = row.unwrap_or_else(|| panic!("{name} is missing: {ended:?}")).split_whitespace().nth(1).unwrap();
        count.replace(',', "").parse().unwrap()
    })
}

#[track_caller]
fn assert_ended(ended: &Exited, code: i32, expected: [u64; 4]) {
    assert_eq!((ended.status.code(), counts(ended)), (Some(code), expected), "{ended:?}");
}

/// Waits until the account's balance is `balance` cents or more. Returns the account.
async fn wait_for_balance(service: &Running, balance: u64) -> Value {
    let deadline = Instant::now() + Duration::from_secs(BALANCE_S_MAX);
    loop {
        let account: Value = service.client.get(&format!("/v1/accounts/{ACCOUNT}")).await.json().await.unwrap();
        if account["balance"].as_u64().is_some_and(|found| found >= balance) {
            return account;
        }
        assert!(Instant::now() < deadline, "the balance is not {balance}: {account}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Asserts that the account has had `count` deposits of one cent, each once.
async fn assert_deposits(service: &Running, count: u64) {
    // A deposit that is executed twice would arrive behind the last one.
    let last: Value = service.client.get("/v1/log/head").await.json().await.unwrap();
    let position = last["data"][0]["position"].as_str().unwrap();
    let path = format!("/v1/accounts/{ACCOUNT}?min_position={position}");
    wait_for_balance(service, count).await;
    let account: Value = service.client.get(&path).await.json().await.unwrap();
    assert_eq!((account["balance"].as_u64(), account["transaction_count"].as_u64()), (Some(count), Some(count)));
}

#[tokio::test]
async fn a_second_run_of_a_file_executes_nothing_also_if_it_is_compressed() {
    let folder = Folder::migrated();
    let service = Passbook::in_folder(&folder).start();
    let url = service.client.base_url();
    let text = open() + &deposits(2_000);
    let plain = write(&folder, "salaries.ndjson", &text);
    let compressed = write(&folder, "salaries.ndjson.gz", gzip(&text));
    let first = import(url, &plain).wait_for_exit();
    assert_ended(&first, 0, [2_001, 2_001, 0, 0]);
    assert_eq!(first.stderr, "");
    let second = import(url, &compressed).wait_for_exit();
    assert_ended(&second, 0, [2_001, 0, 2_001, 0]);
    assert!(second.stdout.join("\n").contains("an earlier run executed all of them"), "{second:?}");
    let piped = import(url, "-").argument("--key-prefix=salaries.ndjson").stdin(fs::File::open(&plain).unwrap());
    assert_ended(&piped.wait_for_exit(), 0, [2_001, 0, 2_001, 0]);
    // Lines that are added at the end are new commands, those before them stay done.
    write(&folder, "salaries.ndjson", text + &deposits(10));
    assert_ended(&import(url, &plain).wait_for_exit(), 0, [2_011, 10, 2_001, 0]);
    assert_deposits(&service, 2_010).await;
}

#[tokio::test]
async fn an_equal_file_with_another_name_is_another_import() {
    let folder = Folder::migrated();
    let service = Passbook::in_folder(&folder).start();
    let url = service.client.base_url();
    assert_ended(&import(url, write(&folder, "open", open())).wait_for_exit(), 0, [1, 1, 0, 0]);
    for (run, name) in ["2026-10.ndjson", "2026-11.ndjson"].into_iter().enumerate() {
        let file = write(&folder, name, deposits(50));
        assert_ended(&import(url, &file).wait_for_exit(), 0, [50, 50, 0, 0]);
        assert_deposits(&service, 50 * (run as u64 + 1)).await;
    }
}

#[tokio::test]
async fn refusals_are_summed_up_written_to_a_file_and_exit_with_1() {
    let folder = Folder::migrated();
    let service = Passbook::in_folder(&folder).start();
    let withdraw = |amount| json!({"command": "withdraw", "account_id": ACCOUNT, "amount": amount});
    let stranger = json!({"command": "deposit", "account_id": "01900000-0000-7000-8000-0000000000bb", "amount": 1});
    let long = json!({"command": "deposit", "account_id": ACCOUNT, "amount": 1, "reference": "x".repeat(70_000)});
    let text = format!(
        "{}{}{}\n\nnonsense\n{}\n{long}\n{stranger}\n{}\n{{\"command\":\"pay\"}}\n{}",
        open(),
        deposits(5),
        withdraw(6),
        withdraw(5),
        withdraw(1),
        deposits(1)
    );
    let file = write(&folder, "commands.ndjson", &text);
    let refused = folder.join("refused.ndjson");
    let run = || import(service.client.base_url(), &file).argument("--refusals").argument(refused.to_str().unwrap());
    for executed in [8, 0] {
        let ended = run().wait_for_exit();
        assert_ended(&ended, 1, [14, executed, 8 - executed, 6]);
        let summary = ended.stdout.join("\n");
        let squeezed: String = summary.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in [
            "account_not_found 1 line 12",
            "insufficient_funds 2 line 7, 13",
            "malformed_request 2 line 9, 14",
            "payload_too_large 1 line 11",
        ] {
            assert!(squeezed.contains(part), "{part} is missing: {summary}");
        }
        let lines = fs::read_to_string(&refused).unwrap();
        let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.iter().map(|line| line["line"].as_u64().unwrap()).collect::<Vec<_>>(), [7, 9, 11, 12, 13, 14]);
        assert_eq!((&lines[0]["status"], &lines[0]["code"]), (&json!(422), &json!("insufficient_funds")));
        assert_eq!(lines[0]["problem"]["available"], 5, "{}", lines[0]);
        assert_eq!(lines[0]["command"], withdraw(6));
        assert_eq!(lines[1]["command"], "nonsense");
    }
    assert_eq!(wait_for_balance(&service, 1).await["balance"], 1);
}

#[tokio::test]
async fn the_file_of_the_commands_is_never_emptied_for_the_refusals() {
    let folder = Folder::migrated();
    let file = write(&folder, "commands.ndjson", open());
    let (hard, soft) = (folder.join("hard"), folder.join("soft"));
    fs::hard_link(&file, &hard).unwrap();
    symlink(&file, &soft).unwrap();
    for refusals in [&file, &hard, &soft] {
        for source in [file.as_path(), Path::new("-")] {
            let import = import("http://127.0.0.1:1", source).argument("--key-prefix=commands");
            let import = import.argument("--refusals").argument(refusals.to_str().unwrap());
            let ended = import.stdin(fs::File::open(&file).unwrap()).wait_for_exit();
            assert!(ended.status.code() == EXIT_FAILED && ended.stderr.contains("name another file"), "{ended:?}");
            assert_eq!(fs::read_to_string(&file).unwrap(), open(), "{}", refusals.display());
        }
    }
}

#[tokio::test]
async fn an_import_that_was_killed_continues_and_executes_each_line_once() {
    let folder = Folder::migrated();
    let service = Passbook::in_folder(&folder).start();
    let text = open() + &deposits(3_000);
    let (first, mut pipe) = import_from_pipe(service.client.base_url());
    // A part of a line is on its way, too.
    pipe.write_all(&text.as_bytes()[..text.len() / 2]).unwrap();
    wait_for_balance(&service, 1_000).await;
    first.signal(Signal::SIGKILL);
    assert_eq!(first.wait_for_exit().status.code(), None);

    let whole = write(&folder, "whole", &text);
    let second = import(service.client.base_url(), "-").argument("--key-prefix=pipe");
    let ended = second.stdin(fs::File::open(whole).unwrap()).wait_for_exit();
    let [commands, executed, replayed, refused] = counts(&ended);
    assert_eq!((ended.status.code(), commands, refused), (Some(0), 3_001, 0), "{ended:?}");
    assert!(replayed >= 1_001 && executed >= 1_500, "{ended:?}");
    assert_deposits(&service, 3_000).await;
}

#[tokio::test]
async fn an_import_survives_a_kill_and_a_restart_of_the_service() {
    let folder = Folder::migrated();
    let address = format!("127.0.0.1:{}", free_port());
    let service = Passbook::in_folder(&folder).set("PASSBOOK_LISTEN", &address).start();
    let text = open() + &deposits(30_000);
    let (process, mut pipe) = import_from_pipe(service.client.base_url());
    let (start, rest) = text.as_bytes().split_at(text.len() / 10);
    pipe.write_all(start).unwrap();
    wait_for_balance(&service, 1_000).await;
    let rest = rest.to_vec();
    let writer = tokio::task::spawn_blocking(move || pipe.write_all(&rest));
    wait_for_balance(&service, 3_100).await;
    service.stop(Signal::SIGKILL);
    let service = Passbook::in_folder(&folder).set("PASSBOOK_LISTEN", &address).start();

    writer.await.unwrap().unwrap();
    let ended = tokio::task::spawn_blocking(|| process.wait_for_exit()).await.unwrap();
    let [commands, _, _, refused] = counts(&ended);
    assert_eq!((ended.status.code(), commands, refused), (Some(0), 30_001, 0), "{ended:?}");
    assert!(ended.stderr.contains("attempt 2 follows"), "{ended:?}");
    assert_deposits(&service, 30_000).await;
}

#[tokio::test]
async fn an_interrupted_import_prints_its_summary_and_says_how_to_continue() {
    let folder = Folder::migrated();
    let service = Passbook::in_folder(&folder).start();
    let (process, mut pipe) = import_from_pipe(service.client.base_url());
    pipe.write_all((open() + &deposits(20)).as_bytes()).unwrap();
    wait_for_balance(&service, 20).await;
    process.signal(Signal::SIGINT);
    let ended = process.wait_for_exit();
    assert_eq!(ended.status.code(), EXIT_FAILED, "{ended:?}");
    assert!(counts(&ended)[0] <= 21, "{ended:?}");
    assert!(ended.stderr.contains("run the same command again"), "{ended:?}");
}

#[tokio::test]
async fn an_input_that_cannot_be_imported_is_refused_with_its_line() {
    let folder = Folder::migrated();
    let service = Passbook::in_folder(&folder).start();
    let url = service.client.base_url();
    let many = open() + &deposits(20_000);
    let mut truncated = gzip(&many);
    truncated.truncate(truncated.len() / 2);
    let array = format!("[{}]", open().trim());
    for (name, content, parts) in [
        ("movements.csv", b"date,amount\n930101,700\n".to_vec(), ["movements.csv", "line 1", "NDJSON"]),
        ("array.json", array.into_bytes(), ["array.json", "line 1", "NDJSON"]),
        ("truncated.ndjson.gz", truncated, ["truncated.ndjson.gz", "cannot be read after line", ""]),
    ] {
        let ended = import(url, write(&folder, name, content)).wait_for_exit();
        assert_eq!(ended.status.code(), EXIT_FAILED, "{ended:?}");
        assert!(parts.iter().all(|part| ended.stderr.contains(part)), "{name}: {ended:?}");
    }
    let ended = import(url, folder.join("none.ndjson")).wait_for_exit();
    assert!(ended.status.code() == EXIT_FAILED && ended.stderr.contains("none.ndjson"), "{ended:?}");
    let file = write(&folder, "open.ndjson", open());
    let ended = import(url, "-").stdin(fs::File::open(&file).unwrap()).wait_for_exit();
    assert!(ended.status.code() == EXIT_FAILED && ended.stderr.contains("--key-prefix"), "{ended:?}");
    let ended = import("http://127.0.0.1:1", &file).wait_for_exit();
    assert!(ended.status.code() == EXIT_FAILED && ended.stderr.contains("http://127.0.0.1:1"), "{ended:?}");
    let ended = import("127.0.0.1:8080", &file).wait_for_exit();
    assert!(ended.status.code() == EXIT_FAILED && ended.stderr.contains("--url"), "{ended:?}");
}

#[tokio::test]
async fn a_token_is_read_from_a_file_and_a_refused_one_ends_the_import() {
    let folder = Folder::migrated();
    let write_any = create_token(&folder, "batch", "accounts:write:any");
    let read_only = create_token(&folder, "batch", "accounts:read");
    let service = with_access_control(&folder).start();
    let url = service.client.base_url();
    let file = write(&folder, "open.ndjson", open());
    let token_file = write(&folder, "token", format!("{write_any}\n"));
    let ended = import(url, &file).set("PASSBOOK_TOKEN_FILE", &token_file).wait_for_exit();
    assert_ended(&ended, 0, [1, 1, 0, 0]);
    let ended = import(url, &file).set("PASSBOOK_TOKEN", &read_only).wait_for_exit();
    assert_ended(&ended, 1, [1, 0, 0, 1]);
    assert!(ended.stdout.join("\n").contains("forbidden"), "{ended:?}");
    for secret in ["nonsense-token", ""] {
        let ended = import(url, &file).set("PASSBOOK_TOKEN", secret).wait_for_exit();
        assert_eq!(ended.status.code(), EXIT_FAILED, "{ended:?}");
        assert!(ended.stderr.contains("access token") && !ended.stderr.contains("nonsense-token"), "{ended:?}");
    }
    let ended = import(url, &file).wait_for_exit();
    assert!(ended.status.code() == EXIT_FAILED && ended.stderr.contains("401"), "{ended:?}");
}

/// The peak memory of a process in kilobytes.
fn peak_kb(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn a_long_import_needs_no_more_memory_than_its_window() {
    /// Lines that fill the window of 8 MiB some times.
    const LINES: usize = 60_000;
    /// The window, the blocks that wait, and what the allocator keeps.
    const GROWTH_KB_MAX: u64 = 32 * 1024;
    let folder = Folder::migrated();
    let service = Passbook::in_folder(&folder).start();
    let (process, mut pipe) = import_from_pipe(service.client.base_url());
    pipe.write_all((open() + &deposits(1)).as_bytes()).unwrap();
    wait_for_balance(&service, 1).await;
    let before = peak_kb(&process);
    // Spaces make the lines long, and not the log.
    let deposit = json!({"command": "deposit", "account_id": ACCOUNT, "amount": 1}).to_string();
    let line = format!("{{{:900}{}\n", "", &deposit[1..]);
    let (length, text) = (line.len() * LINES, line.repeat(LINES));
    let pipe = tokio::task::spawn_blocking(move || pipe.write_all(text.as_bytes()).map(|()| pipe));
    let pipe = pipe.await.unwrap().unwrap();
    wait_for_balance(&service, LINES as u64 + 1).await;
    let grown = peak_kb(&process) - before;
    drop(pipe);
    let ended = tokio::task::spawn_blocking(|| process.wait_for_exit()).await.unwrap();
    assert_ended(&ended, 0, [LINES as u64 + 2, LINES as u64 + 2, 0, 0]);
    println!("{length} bytes of input, {grown} KB more memory");
    assert!(grown < GROWTH_KB_MAX, "memory grew by {grown} KB for an input of {length} bytes");
}
