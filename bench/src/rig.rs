//! What measuring takes, and the measuring of one row.
//!
//! Each row starts when the projections have caught up with the one before, and its processor time
//! includes their catching up: work put off is not work saved.

use std::path::PathBuf;

use anyhow::Result;

use crate::accounts::ACCOUNTS;
use crate::client::Passbook;
use crate::postgres::{self, Postgres};
use crate::process::{CpuPerCommand, cpu_time, memory};
use crate::projections::catch_up;
use crate::row::{Measured, Row};
use crate::server::Server;
use crate::service::Service;
use crate::wrk::{self, Wrk};
use crate::yardstick::{Pgbench, Yardstick};

/// The tools that must be there before anything is started.
pub struct Tools {
    wrk: PathBuf,
    postgres: PathBuf,
}

pub struct Rig {
    pub passbook: Passbook,
    pub wrk: Wrk,
    pub postgres: Postgres,
    pgbench: Pgbench,
    pub seconds: u32,
}

pub struct Plan {
    pub name: &'static str,
    pub script: &'static str,
    pub connections: u32,
    pub yardstick: Yardstick,
}

pub const fn plan(name: &'static str, script: &'static str, connections: u32, yardstick: Yardstick) -> Plan {
    Plan { name, script, connections, yardstick }
}

impl Tools {
    pub async fn find() -> Result<Self> {
        Ok(Self { wrk: wrk::find()?, postgres: postgres::find().await? })
    }
}

impl Rig {
    pub async fn new(tools: Tools, service: &Service, seconds: u32) -> Result<Self> {
        let postgres = Postgres::reach(tools.postgres, service.socket_folder())?;
        Ok(Self {
            passbook: Passbook::new(&service.server.url)?,
            wrk: Wrk::new(tools.wrk, &service.folder)?,
            pgbench: Pgbench::new(postgres.clone(), &service.folder).await?,
            postgres,
            seconds,
        })
    }

    pub async fn row(&self, plan: &Plan, accounts: u32, service: &mut Service) -> Result<Row> {
        let head = self.passbook.head().await?;
        let passbook = service.server.pid;
        let mut row = self.load(plan, accounts, Measured::Passbook, &mut service.server, passbook).await?;
        let commits = self.postgres.commits_after(head).await?;
        row.commands_per_commit = Some(row.load.requests as f64 / commits as f64).filter(|each| each.is_finite());
        Ok(row)
    }

    /// A load on another instance of Passbook, on the same database.
    pub async fn row_of_another(
        &self,
        plan: &Plan,
        accounts: u32,
        other: &mut Server,
        service: &Service,
    ) -> Result<Row> {
        self.load(plan, accounts, Measured::Passbook, other, service.server.pid).await
    }

    /// The same load on another server, whose database is on the same Postgres.
    pub async fn peer_row(&self, plan: &Plan, peer: &mut Server, service: &Service) -> Result<Row> {
        self.load(plan, ACCOUNTS, Measured::Peer, peer, service.server.pid).await
    }

    async fn load(
        &self,
        plan: &Plan,
        accounts: u32,
        measured: Measured,
        server: &mut Server,
        passbook: u32,
    ) -> Result<Row> {
        let Plan { name, script, connections, yardstick } = *plan;
        eprintln!("{name}, connections: {connections}");
        server.check_alive()?;
        let before = cpu_time(server.pid, passbook);
        let load = self.wrk.run(script, accounts, connections, self.seconds, &server.url).await?;
        server.check_alive()?;
        let lag = match measured {
            Measured::Passbook => Some(catch_up(&self.passbook).await?),
            Measured::Peer | Measured::Yardstick => None,
        };
        Ok(Row {
            name: name.to_owned(),
            measured,
            connections,
            yardstick,
            ratio: None,
            lag,
            commands_per_commit: None,
            cpu: CpuPerCommand::between(before, cpu_time(server.pid, passbook), load.requests),
            memory: memory(server.pid),
            load,
        })
    }

    pub async fn yardstick(&self, yardstick: Yardstick, service: &Service) -> Result<Row> {
        eprintln!("{}, connections: {}", yardstick.name(), yardstick.clients());
        let pid = service.server.pid;
        let before = cpu_time(pid, pid);
        let load = self.pgbench.measure(yardstick, self.seconds).await?;
        Ok(Row {
            name: yardstick.name().to_owned(),
            measured: Measured::Yardstick,
            connections: yardstick.clients(),
            yardstick,
            ratio: None,
            lag: None,
            commands_per_commit: None,
            cpu: CpuPerCommand::between(before, cpu_time(pid, pid), load.requests),
            memory: None,
            load,
        })
    }
}
