//! `bench scale`: what several instances, partitions and traces change, each beside one instance, one partition and none.
//!
//! What is compared is measured in turns, round after round, so that a noisy machine is noisy to all of it. Instances share one
//! Postgres and stand behind HAProxy, as `ops/haproxy.cfg` sets it up; so does the one that they are compared with.

use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::accounts::{self, ACCOUNTS};
use crate::client::Passbook;
use crate::process::{CpuPerCommand, CpuTime, cpu_time};
use crate::projections::catch_up;
use crate::rig::{Rig, Tools};
use crate::row::{Load, troubles};
use crate::server::{Server, free_address};
use crate::service::with_fresh;
use crate::table::{aligned, rate};
use crate::tools;

const SCRIPT: &str = "deposits.lua";
const BALANCER: &str = include_str!("../../ops/haproxy.cfg");
const BALANCER_SECONDS_MAX: u64 = 10;
const LOOK_MS: u64 = 20;
/// So long it takes until an instance holds most of the accounts.
const WARM_UP_SECONDS: u32 = 15;
const HEAD: [&str; 6] = ["deposits", "requests/s", "× the first", "p50 ms", "p99 ms", "Passbook's CPU µs/command"];

/// Measure what several instances behind HAProxy, partitions, and traces change, each on a fresh Passbook.
///
/// Prints tables. By default it takes some twelve minutes, most of it for warming up.
#[derive(Args)]
pub struct Options {
    /// The service to measure; build it with --release
    #[arg(long, default_value = "target/release/passbook")]
    passbook: PathBuf,
    /// How many instances share one Postgres, behind HAProxy; several numbers in turns
    #[arg(long, value_delimiter = ',', default_value = "1,2,3")]
    instances: Vec<usize>,
    /// Into how many partitions the log is divided; several numbers in turns
    #[arg(long, value_delimiter = ',', default_value = "1,4,16")]
    partitions: Vec<u8>,
    /// How many connections deposit
    #[arg(long, default_value_t = 128)]
    connections: u32,
    /// How often everything is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// For how long each time
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// On which disk: the parent of the temporary data folders, to be reached by the Postgres user
    #[arg(long, default_value = "/tmp")]
    folder: PathBuf,
}

/// One way to do it, and what came of it in each round.
struct Way {
    name: String,
    url: String,
    rounds: Vec<Round>,
}

struct Round {
    load: Load,
    /// Processor time of a command.
    spent_us: Option<f64>,
}

impl Way {
    fn new(name: String, url: &str) -> Self {
        Self { name, url: url.to_owned(), rounds: vec![] }
    }

    fn mean(&self, of: impl Fn(&Round) -> f64) -> f64 {
        self.rounds.iter().map(of).sum::<f64>() / self.rounds.len().max(1) as f64
    }

    fn all(&self, of: impl Fn(&Load) -> u64) -> u64 {
        self.rounds.iter().map(|round| of(&round.load)).sum()
    }
}

pub async fn scale(options: Options) -> Result<ExitCode> {
    instances(&options).await?;
    partitions(&options).await?;
    traces(&options).await?;
    Ok(ExitCode::SUCCESS)
}

async fn instances(options: &Options) -> Result<()> {
    let haproxy = [PathBuf::from("target/tools/haproxy")].into_iter().find(|ours| ours.is_file());
    let haproxy = haproxy.or_else(|| tools::on_path("haproxy"));
    let haproxy = haproxy.context("haproxy is not there (`scripts/setup --bench` installs it)")?.canonicalize()?;
    let tools = Tools::find().await?;
    with_fresh(&options.passbook, &options.folder, &[], async |service| {
        let rig = Rig::new(tools, service, options.seconds).await?;
        accounts::open(&rig.passbook, 1..=ACCOUNTS).await?;
        let most = options.instances.iter().copied().max().unwrap_or(1);
        let mut others = Vec::new();
        for number in 2..=most {
            others.push(service.another(&rig.postgres, &format!("instance-{number}"), &[]).await?);
        }
        let all: Vec<&Server> = std::iter::once(&service.server).chain(&others).collect();
        let (mut balancers, mut ways) = (Vec::new(), Vec::new());
        for count in &options.instances {
            ensure!(*count > 0, "none is no number of instances");
            let (balancer, url) = balance(&haproxy, &service.folder, &all[..*count]).await?;
            balancers.push(balancer);
            ways.push(Way::new(format!("{count} behind HAProxy"), &url));
        }
        let processes: Vec<u32> = all.iter().map(|server| server.pid).collect();
        measure(options, &rig, &processes, &mut ways).await?;
        for other in &mut others {
            other.stop().await?;
        }
        Ok(())
    })
    .await
}

async fn partitions(options: &Options) -> Result<()> {
    let mut ways = Vec::new();
    for count in &options.partitions {
        let tools = Tools::find().await?;
        let settings = [("PASSBOOK_PARTITIONS", count.to_string())];
        // Each has a log of its own, and so a Postgres: one after the other, and not in turns.
        let way = with_fresh(&options.passbook, &options.folder, &settings, async |service| {
            let rig = Rig::new(tools, service, options.seconds).await?;
            accounts::open(&rig.passbook, 1..=ACCOUNTS).await?;
            let name = format!("{count} partition{}", if *count == 1 { "" } else { "s" });
            let mut way = Way::new(name, &service.server.url);
            for _ in 0..options.rounds {
                once(options, &rig, &[service.server.pid], &mut way).await?;
            }
            Ok(way)
        });
        ways.push(way.await?);
    }
    println!("{}\n", table(&ways));
    Ok(())
}

async fn traces(options: &Options) -> Result<()> {
    let tools = Tools::find().await?;
    let collector = collector().await?;
    with_fresh(&options.passbook, &options.folder, &[], async |service| {
        let rig = Rig::new(tools, service, options.seconds).await?;
        accounts::open(&rig.passbook, 1..=ACCOUNTS).await?;
        let all = ("OTEL_TRACES_SAMPLER", "always_on".to_owned());
        let sent = ("OTEL_EXPORTER_OTLP_ENDPOINT", collector);
        let mut without = service.another(&rig.postgres, "without", &[]).await?;
        let mut by_default = service.another(&rig.postgres, "by-default", std::slice::from_ref(&sent)).await?;
        let mut with_all = service.another(&rig.postgres, "with-all", &[sent, all]).await?;
        let way = |name: &str, server: &Server| Way::new(name.to_owned(), &server.url);
        let mut ways = [
            way("without traces", &without),
            way("one request in a hundred traced (the default)", &by_default),
            way("every request traced", &with_all),
        ];
        let processes = [service.server.pid, without.pid, by_default.pid, with_all.pid];
        measure(options, &rig, &processes, &mut ways).await?;
        for instance in [&mut without, &mut by_default, &mut with_all] {
            instance.stop().await?;
        }
        Ok(())
    })
    .await
}

/// Each way in turn, round after round. The processor time of all `processes` counts: of several instances one projects for all.
async fn measure(options: &Options, rig: &Rig, processes: &[u32], ways: &mut [Way]) -> Result<()> {
    for _ in 0..options.rounds {
        for way in &mut *ways {
            once(options, rig, processes, way).await?;
        }
    }
    println!("{}\n", table(ways));
    Ok(())
}

async fn once(options: &Options, rig: &Rig, processes: &[u32], way: &mut Way) -> Result<()> {
    eprintln!("{}", way.name);
    // An instance that was not asked for a while has much to catch up with, which is not what is measured.
    rig.wrk.run(SCRIPT, ACCOUNTS, options.connections, WARM_UP_SECONDS, &way.url).await?;
    catch_up(&rig.passbook).await?;
    let cpu = || processes.iter().map(|pid| cpu_time(*pid, *pid)).collect::<Vec<Option<CpuTime>>>();
    let before = cpu();
    let load = rig.wrk.run(SCRIPT, ACCOUNTS, options.connections, options.seconds, &way.url).await?;
    // What is put off is not saved.
    catch_up(&rig.passbook).await?;
    let spent = before.into_iter().zip(cpu());
    let each = |(before, after)| Some(CpuPerCommand::between(before, after, load.requests)?.service_us);
    let spent_us = spent.map(each).sum();
    way.rounds.push(Round { load, spent_us });
    Ok(())
}

/// The mean of all rounds, beside the first way.
fn table(ways: &[Way]) -> String {
    let first = ways.first().map_or(1.0, |way| way.mean(|round| round.load.per_second));
    let row = |way: &Way| {
        let per_second = way.mean(|round| round.load.per_second);
        let counted = [("refused", way.all(|load| load.refused)), ("broken", way.all(|load| load.broken))];
        [
            format!("{}{}", way.name, troubles(&counted)),
            rate(per_second),
            format!("{:.2}", per_second / first),
            format!("{:.2}", way.mean(|round| round.load.p50_ms)),
            format!("{:.2}", way.mean(|round| round.load.p99_ms)),
            format!("{:.1}", way.mean(|round| round.spent_us.unwrap_or(f64::NAN))),
        ]
    };
    aligned(HEAD, &ways.iter().map(row).collect::<Vec<_>>())
}

/// HAProxy as it is delivered, but for the addresses.
async fn balance(haproxy: &Path, folder: &Path, instances: &[&Server]) -> Result<(Child, String)> {
    let (bank, health) = (free_address()?, free_address()?);
    let servers: String = instances
        .iter()
        .enumerate()
        .map(|(number, server)| format!("    server instance-{number} {}\n", server.url.trim_start_matches("http://")))
        .collect();
    let is_server = |line: &&str| line.trim_start().starts_with("server ");
    let mut lines: Vec<&str> = BALANCER.lines().collect();
    let first = lines.iter().position(is_server).context("ops/haproxy.cfg names no server")?;
    lines.retain(|line| !is_server(line));
    lines.insert(first, servers.trim_end());
    let text = lines
        .join("\n")
        .replace("bind :8080", &format!("bind {bank}"))
        .replace("bind :8404", &format!("bind {health}"));
    let file = folder.join(format!("haproxy-{}.cfg", instances.len()));
    std::fs::write(&file, text + "\n").with_context(|| format!("cannot write {}", file.display()))?;
    let mut command = Command::new(haproxy);
    command.args(["-db", "-f"]).arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let process = command.process_group(0).kill_on_drop(true).spawn().context("cannot start haproxy")?;
    let url = format!("http://{bank}");
    let deadline = Instant::now() + Duration::from_secs(BALANCER_SECONDS_MAX);
    let through = Passbook::new(&url)?;
    while through.head().await.is_err() {
        ensure!(Instant::now() < deadline, "HAProxy does not let anybody through");
        sleep(Duration::from_millis(LOOK_MS)).await;
    }
    Ok((process, url))
}

/// Takes traces, and throws them away.
async fn collector() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("no free port")?;
    let url = format!("http://{}", listener.local_addr().context("no free port")?);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(take(stream));
        }
    });
    Ok(url)
}

async fn take(stream: TcpStream) {
    let service = service_fn(async |request: Request<Incoming>| {
        request.into_body().collect().await?;
        Ok::<_, hyper::Error>(Response::new(Empty::<Bytes>::new()))
    });
    // Whoever breaks it off has ended.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
