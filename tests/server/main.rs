//! Runs the tests that need nothing but a database on the server that `PASSBOOK_TEST_DATABASE_URL` names: a Postgres, or the
//! coordinator of a Citus cluster. Its own output is the list of what was left out. `make test-server` is the way to call it;
//! without the variable it does nothing.

mod left_out;

use std::{
    env,
    process::{Command, ExitCode},
    thread::available_parallelism,
};

use left_out::{LEFT_OUT, left_out_of};
use passbook_testkit::given_server::{Engine, GivenServer, VARIABLE, connect, given_url};

const SUITES: [&str; 2] = ["api", "chaos"];
/// How many connections a test uses at most, with two instances.
const CONNECTIONS_PER_TEST: u32 = 40;
/// As many as `make test` uses for its own server. A cluster plans and commits more slowly.
const PARTITIONS_OF_CITUS: &str = "4";

#[tokio::main]
async fn main() -> ExitCode {
    let Some(url) = given_url() else {
        println!("{VARIABLE} is not set: no test was run");
        return ExitCode::SUCCESS;
    };
    match run(url).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the suites. Returns whether all tests passed.
async fn run(url: String) -> Result<bool, String> {
    let server = GivenServer::inspect(url).await?;
    println!("tests on {}", name(&server.engine));
    let threads = threads(server.connections_max().await);
    let mut passed = true;
    let mut found = Vec::new();
    for suite in SUITES {
        let names = list(suite)?;
        let left_out = left_out_of(suite, &server);
        let unknown: Vec<_> =
            left_out.iter().filter(|prefix| !names.iter().any(|name| name.starts_with(**prefix))).collect();
        if !unknown.is_empty() {
            return Err(format!(
                "the suite {suite} has no test {unknown:?}: correct the list of tests that are left out"
            ));
        }
        let is_left_out = |name: &&String| left_out.iter().any(|prefix| name.starts_with(prefix));
        let skipped: Vec<&String> = names.iter().filter(is_left_out).collect();
        found.push((suite, names.len() - skipped.len(), names.len()));
        passed &= execute(suite, threads, &skipped, server.is_citus())?;
    }
    clean_up(&server).await?;
    report(&server, &found);
    Ok(passed)
}

/// The names of all tests of a suite.
fn list(suite: &str) -> Result<Vec<String>, String> {
    let output = cargo_test(suite).args(["--list", "--format=terse"]).output().map_err(|error| error.to_string())?;
    let names: Vec<String> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.strip_suffix(": test").map(str::to_owned))
        .collect();
    if names.is_empty() {
        return Err(format!("the suite {suite} lists no test: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(names)
}

/// Runs a suite. Returns whether it passed.
fn execute(suite: &str, threads: u32, skipped: &[&String], is_citus: bool) -> Result<bool, String> {
    let mut command = cargo_test(suite);
    command.arg("--test-threads").arg(if suite == "chaos" { 1 } else { threads }.to_string());
    if suite == "chaos" {
        // Its report names the faults.
        command.arg("--nocapture");
    }
    // Exact names: an entry must not hide a test whose name contains it. A filter would then have to be exact as well.
    command.arg("--exact");
    for name in skipped {
        command.args(["--skip", name]);
    }
    if is_citus {
        for variable in ["PASSBOOK_TEST_PARTITIONS", "PASSBOOK_CHAOS_PARTITIONS"] {
            let partitions = env::var("PASSBOOK_TEST_PARTITIONS").unwrap_or_else(|_| PARTITIONS_OF_CITUS.to_owned());
            command.env(variable, partitions);
        }
    }
    Ok(command.status().map_err(|error| error.to_string())?.success())
}

fn cargo_test(suite: &str) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["test", "--quiet", "--workspace", "--test", suite, "--"]);
    command
}

/// As many tests at once as the processors and the connections of the server allow.
fn threads(connections_max: u32) -> u32 {
    let processors = available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(1));
    (connections_max / CONNECTIONS_PER_TEST).clamp(1, processors * 2)
}

/// Drops what the runs have left on the server.
async fn clean_up(server: &GivenServer) -> Result<(), String> {
    let mut connection = connect(&server.url).await.map_err(|error| error.to_string())?;
    server.begin_run(&mut connection).await;
    server.drop_leftovers().await;
    Ok(())
}

fn report(server: &GivenServer, found: &[(&str, usize, usize)]) {
    println!("\ntests on {}", name(&server.engine));
    for (suite, run, of) in found {
        println!("  {suite}: {run} of {of} tests were run");
    }
    println!("left out:");
    for left_out in LEFT_OUT.iter().filter(|left_out| left_out.on.applies(server)) {
        println!("  {}: {}", left_out.suite, left_out.reason);
        for test in left_out.tests {
            println!("    {test}");
        }
    }
    println!("  chaos: faults that need the processes of Postgres (its report above names them)");
}

fn name(engine: &Engine) -> String {
    match engine {
        Engine::Postgres { version } => format!("Postgres {version}"),
        Engine::Citus { version, postgres, nodes } => {
            format!("Citus {version} on Postgres {postgres} with {} nodes", nodes.len())
        }
    }
}
