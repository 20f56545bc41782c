//! Runs one measurement and returns its result row.
//!
//! Each row starts after the projections have caught up with the row before. Its processor time includes the projections'
//! work after the load, so that deferred work counts as well.

use std::path::PathBuf;

use anyhow::Result;

use crate::baseline::{Baseline, Pgbench};
use crate::client::Passbook;
use crate::latency::LoadSummary;
use crate::postgres::{self, Postgres};
use crate::process::Server;
use crate::projections::catch_up;
use crate::resource_usage::{CpuPerCommand, cpu_time, memory};
use crate::result_row::{ResultRow, Target};
use crate::row_length::RowLength;
use crate::service::Service;
use crate::wrk::{self, Wrk};

const STARTS: usize = 3;

/// The external programs that a measurement requires. They are located before anything is started.
pub struct Tools {
    wrk: PathBuf,
    postgres: PathBuf,
}

/// The clients and load generators of one measured service.
pub struct Harness {
    pub passbook: Passbook,
    pub wrk: Wrk,
    pub postgres: Postgres,
    pub pgbench: Pgbench,
    pub length: RowLength,
}

/// A closed-loop load: a wrk script with a number of connections, and the baseline to compare it with.
pub struct Workload {
    pub name: &'static str,
    pub script: &'static str,
    pub connections: u32,
    pub baseline: Baseline,
    pub commands_per_request: u32,
}

pub const fn workload(name: &'static str, script: &'static str, connections: u32, baseline: Baseline) -> Workload {
    Workload { name, script, connections, baseline, commands_per_request: 1 }
}

impl Tools {
    pub async fn find() -> Result<Self> {
        Ok(Self { wrk: wrk::find()?, postgres: postgres::find().await? })
    }
}

impl Harness {
    /// Prepares measurements of this length against a running service.
    pub async fn new(tools: Tools, service: &Service, length: RowLength) -> Result<Self> {
        let postgres = Postgres::connect(tools.postgres, service.socket_folder())?;
        Ok(Self {
            passbook: Passbook::new(&service.server.url)?,
            wrk: Wrk::new(tools.wrk, &service.folder)?,
            pgbench: Pgbench::new(postgres.clone(), &service.folder).await?,
            postgres,
            length,
        })
    }

    /// Measures the service, including the number of commands per commit.
    pub async fn measure_passbook(
        &self,
        workload: &Workload,
        accounts: u32,
        service: &mut Service,
    ) -> Result<ResultRow> {
        let head = self.passbook.head().await?;
        let passbook = service.server.pid;
        let mut row = self.measure(workload, accounts, Target::Passbook, &mut service.server, passbook).await?;
        row.commands_per_commit = self.commands_per_commit(row.load.requests, head).await?;
        Ok(row)
    }

    /// Commands divided by the transactions that wrote the events after position `head`; `None` without events.
    pub async fn commands_per_commit(&self, commands: u64, head: u64) -> Result<Option<f64>> {
        let commits = self.postgres.commits_after(head).await?;
        Ok((commits > 0).then(|| commands as f64 / commits as f64))
    }

    /// The bytes of WAL written since the reading `before`, per command; `None` for reads.
    async fn wal_per_command(&self, baseline: Baseline, before: u64, commands: u64) -> Result<Option<f64>> {
        if !baseline.is_append() {
            return Ok(None);
        }
        let after = self.postgres.wal_bytes().await?;
        Ok(Some(after.saturating_sub(before) as f64 / commands.max(1) as f64))
    }

    /// Measures commands that `load` sends. It returns the seconds that they took. Their latencies are unknown.
    pub async fn measure_commands(
        &self,
        name: &str,
        connections: u32,
        commands: u64,
        service: &mut Service,
        load: impl Future<Output = Result<f64>>,
    ) -> Result<ResultRow> {
        let pid = service.server.pid;
        let wal = self.postgres.wal_bytes().await?;
        let before = cpu_time(pid, pid);
        let seconds = load.await?;
        service.server.check_alive()?;
        let lag = catch_up(&self.passbook).await?;
        Ok(ResultRow {
            name: name.to_owned(),
            target: Target::Passbook,
            connections,
            baseline: Baseline::AppendBy64,
            load: LoadSummary::without_latencies(commands, seconds),
            ratio: None,
            lag: Some(lag),
            commands_per_commit: None,
            cpu: CpuPerCommand::between(before, cpu_time(pid, pid), commands),
            wal_bytes_per_command: self.wal_per_command(Baseline::AppendBy64, wal, commands).await?,
            memory: memory(pid),
        })
    }

    /// Measures another server on the same Postgres: a second instance of Passbook, or the peer.
    pub async fn measure_other(
        &self,
        workload: &Workload,
        accounts: u32,
        target: Target,
        server: &mut Server,
        service: &Service,
    ) -> Result<ResultRow> {
        self.measure(workload, accounts, target, server, service.server.pid).await
    }

    /// `passbook` is the process id of the service that runs Postgres.
    async fn measure(
        &self,
        workload: &Workload,
        accounts: u32,
        target: Target,
        server: &mut Server,
        passbook: u32,
    ) -> Result<ResultRow> {
        let Workload { name, script, baseline, commands_per_request, .. } = *workload;
        let connections = self.length.connections(workload.connections);
        eprintln!("{name}, connections: {connections}");
        server.check_alive()?;
        let wal = self.postgres.wal_bytes().await?;
        let before = cpu_time(server.pid, passbook);
        let load = self.wrk.run(script, accounts, connections, self.length.seconds(), &server.url).await?;
        let load = load.in_commands(commands_per_request);
        server.check_alive()?;
        let lag = match target {
            Target::Passbook => Some(catch_up(&self.passbook).await?),
            Target::Peer | Target::Baseline => None,
        };
        Ok(ResultRow {
            name: name.to_owned(),
            target,
            connections,
            baseline,
            ratio: None,
            lag,
            commands_per_commit: None,
            cpu: CpuPerCommand::between(before, cpu_time(server.pid, passbook), load.requests),
            wal_bytes_per_command: self.wal_per_command(baseline, wal, load.requests).await?,
            memory: memory(server.pid),
            load,
        })
    }

    /// Measures pgbench while the service is idle.
    pub async fn measure_baseline(&self, baseline: Baseline, service: &Service) -> Result<ResultRow> {
        eprintln!("{}, connections: {}", baseline.name(), baseline.clients());
        let pid = service.server.pid;
        let wal = self.postgres.wal_bytes().await?;
        let before = cpu_time(pid, pid);
        let load = self.pgbench.measure(baseline, self.length).await?;
        Ok(ResultRow {
            name: baseline.name().to_owned(),
            target: Target::Baseline,
            connections: baseline.clients(),
            baseline,
            ratio: None,
            lag: None,
            commands_per_commit: None,
            cpu: CpuPerCommand::between(before, cpu_time(pid, pid), load.requests),
            wal_bytes_per_command: self.wal_per_command(baseline, wal, load.requests).await?,
            memory: None,
            load,
        })
    }
}

/// Restarts the service several times on its data. Returns the times to ready in milliseconds, in ascending order.
pub async fn measure_starts(service: &mut Service, length: RowLength) -> Result<Vec<f64>> {
    let count = length.choose(STARTS, 1);
    eprintln!("restarting {count} times on the existing data");
    let mut starts = Vec::new();
    for _ in 0..count {
        starts.push(service.restart().await?);
    }
    starts.sort_by(f64::total_cmp);
    Ok(starts)
}
