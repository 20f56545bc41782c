//! `bench scale`: compares numbers of instances, numbers of partitions, and trace sampling.
//!
//! The variants of a comparison are measured alternately, round after round, so that noise affects all of them. Instances
//! share one Postgres behind HAProxy with `ops/haproxy.cfg`; the single instance is measured behind HAProxy as well.

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

use crate::client::Passbook;
use crate::harness::{Harness, Tools};
use crate::latency::LoadSummary;
use crate::process::{self, Server, free_address};
use crate::projections::catch_up;
use crate::resource_usage::{CpuPerCommand, CpuTime, cpu_time};
use crate::result_row::error_note;
use crate::row_length::RowLength;
use crate::seed::{self, ACCOUNTS};
use crate::service::with_fresh_service;
use crate::table::{aligned, rate};

const SCRIPT: &str = "deposits.lua";
const HAPROXY_CFG: &str = include_str!("../../ops/haproxy.cfg");
const HAPROXY_START_SECONDS_MAX: u64 = 10;
const POLL_MS: u64 = 20;
/// Time for an instance to cache most of the accounts.
const WARM_UP_SECONDS: u32 = 15;
const HEAD: [&str; 6] = ["deposits", "requests/s", "× first row", "p50 ms", "p99 ms", "Passbook CPU µs/command"];

/// Compare numbers of instances behind HAProxy, numbers of partitions, and trace sampling, each on a fresh Passbook.
///
/// Prints tables. The defaults take about twelve minutes, most of it for warming up.
#[derive(Args)]
pub struct Options {
    /// The service to measure; build it with --release
    #[arg(long, default_value = "target/release/passbook")]
    passbook: PathBuf,
    /// Numbers of instances on one Postgres behind HAProxy, measured alternately
    #[arg(long, value_delimiter = ',', default_value = "1,2,3")]
    instances: Vec<usize>,
    /// Numbers of partitions of the log, measured one after another
    #[arg(long, value_delimiter = ',', default_value = "1,4,16")]
    partitions: Vec<u8>,
    /// Number of connections that send deposits
    #[arg(long, default_value_t = 128)]
    connections: u32,
    /// Number of rounds
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Duration of each measurement, in seconds
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Parent of the temporary data folders; it selects the disk, and the Postgres user must be able to enter it
    #[arg(long, default_value = "/tmp")]
    folder: PathBuf,
}

/// One variant of a comparison, and its figures in each round.
struct Variant {
    name: String,
    url: String,
    rounds: Vec<Round>,
}

struct Round {
    load: LoadSummary,
    /// Passbook's processor time per command, in microseconds.
    cpu_us: Option<f64>,
}

impl Variant {
    fn new(name: String, url: &str) -> Self {
        Self { name, url: url.to_owned(), rounds: vec![] }
    }

    fn mean(&self, figure: impl Fn(&Round) -> f64) -> f64 {
        self.rounds.iter().map(figure).sum::<f64>() / self.rounds.len().max(1) as f64
    }

    fn sum(&self, figure: impl Fn(&LoadSummary) -> u64) -> u64 {
        self.rounds.iter().map(|round| figure(&round.load)).sum()
    }
}

pub async fn scale(options: Options) -> Result<ExitCode> {
    compare_instances(&options).await?;
    compare_partitions(&options).await?;
    compare_traces(&options).await?;
    Ok(ExitCode::SUCCESS)
}

async fn compare_instances(options: &Options) -> Result<()> {
    let haproxy = process::find_tool("haproxy")?;
    let tools = Tools::find().await?;
    // Without this setting an instance on a loopback address rejects requests that a proxy forwarded.
    let behind_proxy = [("PASSBOOK_AUTH", "off".to_owned())];
    with_fresh_service(&options.passbook, &options.folder, &behind_proxy, async |service| {
        let harness = Harness::new(tools, service, RowLength::of_seconds(options.seconds)).await?;
        seed::open_accounts(&harness.passbook, 1..=ACCOUNTS).await?;
        let most = options.instances.iter().copied().max().unwrap_or(1);
        let mut others = Vec::new();
        for number in 2..=most {
            others.push(service.start_instance(&harness.postgres, &format!("instance-{number}"), &behind_proxy).await?);
        }
        let all: Vec<&Server> = std::iter::once(&service.server).chain(&others).collect();
        let (mut balancers, mut variants) = (Vec::new(), Vec::new());
        for count in &options.instances {
            ensure!(*count > 0, "the number of instances must be at least 1");
            let (balancer, url) = start_haproxy(&haproxy, &service.folder, &all[..*count]).await?;
            balancers.push(balancer);
            variants.push(Variant::new(format!("{count} behind HAProxy"), &url));
        }
        let processes: Vec<u32> = all.iter().map(|server| server.pid).collect();
        measure(options, &harness, &processes, &mut variants).await?;
        for other in &mut others {
            other.stop().await?;
        }
        Ok(())
    })
    .await
}

async fn compare_partitions(options: &Options) -> Result<()> {
    let mut variants = Vec::new();
    for count in &options.partitions {
        let tools = Tools::find().await?;
        let settings = [("PASSBOOK_PARTITIONS", count.to_string())];
        // Each number of partitions needs its own log and Postgres, so the variants run one after another.
        let variant = with_fresh_service(&options.passbook, &options.folder, &settings, async |service| {
            let harness = Harness::new(tools, service, RowLength::of_seconds(options.seconds)).await?;
            seed::open_accounts(&harness.passbook, 1..=ACCOUNTS).await?;
            let name = format!("{count} partition{}", if *count == 1 { "" } else { "s" });
            let mut variant = Variant::new(name, &service.server.url);
            for _ in 0..options.rounds {
                measure_round(options, &harness, &[service.server.pid], &mut variant).await?;
            }
            Ok(variant)
        });
        variants.push(variant.await?);
    }
    println!("{}\n", table(&variants));
    Ok(())
}

async fn compare_traces(options: &Options) -> Result<()> {
    let tools = Tools::find().await?;
    let collector = start_trace_collector().await?;
    with_fresh_service(&options.passbook, &options.folder, &[], async |service| {
        let harness = Harness::new(tools, service, RowLength::of_seconds(options.seconds)).await?;
        seed::open_accounts(&harness.passbook, 1..=ACCOUNTS).await?;
        let sampler = ("OTEL_TRACES_SAMPLER", "always_on".to_owned());
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", collector);
        let mut without = service.start_instance(&harness.postgres, "without", &[]).await?;
        let mut by_default =
            service.start_instance(&harness.postgres, "by-default", std::slice::from_ref(&endpoint)).await?;
        let mut with_all = service.start_instance(&harness.postgres, "with-all", &[endpoint, sampler]).await?;
        let variant = |name: &str, server: &Server| Variant::new(name.to_owned(), &server.url);
        let mut variants = [
            variant("without traces", &without),
            variant("1 % of requests traced (the default)", &by_default),
            variant("every request traced", &with_all),
        ];
        let processes = [service.server.pid, without.pid, by_default.pid, with_all.pid];
        measure(options, &harness, &processes, &mut variants).await?;
        for instance in [&mut without, &mut by_default, &mut with_all] {
            instance.stop().await?;
        }
        Ok(())
    })
    .await
}

/// Measures the variants alternately, round after round. The processor time of all `processes` counts, because one
/// instance runs the projector for all.
async fn measure(options: &Options, harness: &Harness, processes: &[u32], variants: &mut [Variant]) -> Result<()> {
    for _ in 0..options.rounds {
        for variant in &mut *variants {
            measure_round(options, harness, processes, variant).await?;
        }
    }
    println!("{}\n", table(variants));
    Ok(())
}

async fn measure_round(options: &Options, harness: &Harness, processes: &[u32], variant: &mut Variant) -> Result<()> {
    eprintln!("{}", variant.name);
    // An instance that was idle must first update its account cache, which is not part of the measurement.
    harness.wrk.run(SCRIPT, ACCOUNTS, options.connections, WARM_UP_SECONDS, &variant.url).await?;
    catch_up(&harness.passbook).await?;
    let cpu = || processes.iter().map(|pid| cpu_time(*pid, *pid)).collect::<Vec<Option<CpuTime>>>();
    let before = cpu();
    let load = harness.wrk.run(SCRIPT, ACCOUNTS, options.connections, options.seconds, &variant.url).await?;
    // The projections' work after the load counts as well.
    catch_up(&harness.passbook).await?;
    let readings = before.into_iter().zip(cpu());
    let per_command = |(before, after)| Some(CpuPerCommand::between(before, after, load.requests)?.service_us);
    let cpu_us = readings.map(per_command).sum();
    variant.rounds.push(Round { load, cpu_us });
    Ok(())
}

/// The mean of all rounds for each variant, and its ratio to the first variant.
fn table(variants: &[Variant]) -> String {
    let first = variants.first().map_or(1.0, |variant| variant.mean(|round| round.load.per_second));
    let row = |variant: &Variant| {
        let per_second = variant.mean(|round| round.load.per_second);
        let counted = [("refused", variant.sum(|load| load.refused)), ("broken", variant.sum(|load| load.broken))];
        [
            format!("{}{}", variant.name, error_note(&counted)),
            rate(per_second),
            format!("{:.2}", per_second / first),
            format!("{:.2}", variant.mean(|round| round.load.p50_ms)),
            format!("{:.2}", variant.mean(|round| round.load.p99_ms)),
            format!("{:.1}", variant.mean(|round| round.cpu_us.unwrap_or(f64::NAN))),
        ]
    };
    aligned(HEAD, &variants.iter().map(row).collect::<Vec<_>>())
}

/// Starts HAProxy with `ops/haproxy.cfg`, in which only the addresses are replaced. Returns the process and its URL.
async fn start_haproxy(haproxy: &Path, folder: &Path, instances: &[&Server]) -> Result<(Child, String)> {
    let (frontend, health) = (free_address()?, free_address()?);
    let servers: String = instances
        .iter()
        .enumerate()
        .map(|(number, server)| format!("    server instance-{number} {}\n", server.url.trim_start_matches("http://")))
        .collect();
    let is_server = |line: &&str| line.trim_start().starts_with("server ");
    let mut lines: Vec<&str> = HAPROXY_CFG.lines().collect();
    let first = lines.iter().position(is_server).context("ops/haproxy.cfg contains no server")?;
    lines.retain(|line| !is_server(line));
    lines.insert(first, servers.trim_end());
    let text = lines
        .join("\n")
        .replace("bind :8080", &format!("bind {frontend}"))
        .replace("bind :8404", &format!("bind {health}"));
    let file = folder.join(format!("haproxy-{}.cfg", instances.len()));
    std::fs::write(&file, text + "\n").with_context(|| format!("cannot write {}", file.display()))?;
    let mut command = Command::new(haproxy);
    command.args(["-db", "-f"]).arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let process = command.process_group(0).kill_on_drop(true).spawn().context("cannot start haproxy")?;
    let url = format!("http://{frontend}");
    let deadline = Instant::now() + Duration::from_secs(HAPROXY_START_SECONDS_MAX);
    let client = Passbook::new(&url)?;
    while client.head().await.is_err() {
        ensure!(Instant::now() < deadline, "no request through HAProxy succeeded within {HAPROXY_START_SECONDS_MAX} s");
        sleep(Duration::from_millis(POLL_MS)).await;
    }
    Ok((process, url))
}

/// Starts a server that accepts traces and discards them. Returns its URL.
async fn start_trace_collector() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("no free port")?;
    let url = format!("http://{}", listener.local_addr().context("no free port")?);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(discard_requests(stream));
        }
    });
    Ok(url)
}

async fn discard_requests(stream: TcpStream) {
    let service = service_fn(async |request: Request<Incoming>| {
        request.into_body().collect().await?;
        Ok::<_, hyper::Error>(Response::new(Empty::<Bytes>::new()))
    });
    // An error means that the client closed the connection.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
