//! The short forms of `bench run` and `bench grow`: each row is executed against the debug build of the service, so that a changed
//! API or table does not break a benchmark unnoticed. The figures mean nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

/// The files that a benchmark wrote.
struct Published {
    page: String,
    json: Value,
}

/// The service that `cargo test --workspace` builds beside this benchmark.
fn service() -> PathBuf {
    let passbook = Path::new(env!("CARGO_BIN_EXE_bench")).with_file_name("passbook");
    assert!(passbook.is_file(), "{} is missing; build it with `cargo build --package passbook`", passbook.display());
    passbook
}

fn run_short_form(command: &str, json: &str) -> Published {
    let docs = TempDir::new().expect("a folder");
    // The tools of `scripts/install-deps` are found from the root of the repository.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .current_dir(root)
        .args([command, "--short", "--passbook"])
        .arg(service())
        .arg("--docs")
        .arg(docs.path())
        .output()
        .expect("the benchmark starts");
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    assert!(output.status.success(), "bench {command}: {}\n{stdout}\n{stderr}", output.status);
    let read = |name: &str| fs::read_to_string(docs.path().join(name)).expect("a published file");
    Published { page: read("benchmarks.md"), json: serde_json::from_str(&read(json)).expect("JSON") }
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().unwrap_or_else(|| panic!("{name} is no list: {value}"))
}

fn assert_every_row_was_measured(rows: &[Value], names: &[&str]) {
    for name in names {
        assert!(rows.iter().any(|row| row["name"] == *name), "the row {name:?} is missing");
    }
    for row in rows {
        assert!(row["per_second"].as_f64().is_some_and(|rate| rate > 0.0), "{row}");
        assert_eq!(row["broken"], 0, "{row}");
        // The peer refuses concurrent commands on one account.
        assert!(row["refused"] == 0 || row["measured"] == "peer", "{row}");
    }
}

#[test]
fn bench_run_executes_every_row_in_its_short_form() {
    let Published { page, json } = run_short_form("run", "benchmarks.json");
    let names = [
        "pgbench: one event per transaction",
        "pgbench: select by key",
        "deposits, 5 000 accounts",
        "batches of 100 transfers, each",
        "deposits, 100 accounts with 200 holds each",
        "deposits, second instance, with tokens",
        "import of 2 000 000 deposits, 100 000 accounts",
    ];
    assert_every_row_was_measured(list(&json, "rows"), &names);
    assert!(list(&json, "steady").len() >= 2, "{json}");
    assert!(page.contains("- Rebuild of all views at once: "), "{page}");
    assert!(page.contains("- Start to ready on this data: median "), "{page}");
}

#[test]
fn bench_grow_compares_both_logs_in_its_short_form() {
    let Published { page, json } = run_short_form("grow", "benchmarks-grow.json");
    let names = [
        "deposits, 5 000 accounts",
        "deposits, each with a key",
        "deposits, all to one account",
        "deposits, all accounts",
        "transfers, 5 000 accounts",
        "GET one of 5 000 accounts",
        "accounts, status=frozen (50)",
        "large account: GET as_of a time",
        "large account: lines of its statement",
    ];
    for log in ["small", "large"] {
        assert_every_row_was_measured(list(&json[log], "rows"), &names);
        assert_every_row_was_measured(list(&json[log], "fills"), &[]);
        assert!(list(&json[log]["sizes"], "relations").iter().any(|relation| relation["name"] == "event"), "{json}");
    }
    assert_eq!(json["large"]["accounts"], 6_000);
    let is_compared = |figure: &Value| figure["ratio"].as_f64().is_some_and(|ratio| ratio > 0.0);
    for name in ["deposits, all accounts", "rebuild of all, events", "verify, events", "log on disk, an event"] {
        let figure = list(&json, "figures").iter().find(|figure| figure["name"] == name);
        assert!(figure.is_some_and(is_compared), "{name}: {figure:?}");
    }
    assert!(page.contains("On the large log:") && !page.contains("NaN"), "{page}");
}
