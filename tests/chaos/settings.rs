//! Settings of the chaos tests, read from the environment.

use std::{env, path::PathBuf, str::FromStr, time::Duration};

use uuid::Uuid;

use crate::{fault::Fault, patroni::fault::ClusterFault};

/// All names begin with `PASSBOOK_CHAOS_`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `SEED`: determines the commands and the faults. Default: random.
    pub seed: u64,
    /// `ROUNDS`: the number of rounds. Default: 1.
    pub rounds: u64,
    /// `FAULTS`: the kinds of fault to inject, as names separated by commas. Default: all.
    pub faults: Option<String>,
    /// `TIMES`: how often each kind of fault is injected per round. Default: 1.
    pub times: u64,
    /// `PARALLEL_FAULTS`: how many faults are active at once. Default: 1.
    pub parallel_faults: u64,
    /// `FREEZE_MS`: how long a process stays suspended, or the disk full. Default: 2 800.
    pub freeze: Duration,
    /// `PARTITIONS`: the number of partitions of the log. Default: 1.
    pub partitions: i16,
    /// `CLUSTER_FAULTS`: the kinds of fault of the Patroni cluster in the order of their injection, as names separated by commas, or
    /// `all`. Default: a switchover and the loss of the primary.
    pub cluster_faults: Vec<ClusterFault>,
    /// `SYNCHRONOUS_MODE`: that setting of Patroni. Default: that of `ops/patroni.yml`.
    pub synchronous_mode: Option<String>,
    /// `PREVIOUS`: the binary of the release to upgrade from. Default: the current one.
    pub previous: Option<PathBuf>,
}

impl Settings {
    pub fn read() -> Self {
        Self {
            seed: read("SEED").unwrap_or_else(|| Uuid::now_v7().as_u64_pair().1 % 1_000_000),
            rounds: read("ROUNDS").unwrap_or(1),
            faults: read("FAULTS"),
            times: read("TIMES").unwrap_or(1),
            parallel_faults: read("PARALLEL_FAULTS").unwrap_or(1),
            freeze: Duration::from_millis(read("FREEZE_MS").unwrap_or(2_800)),
            partitions: read("PARTITIONS").unwrap_or(1),
            cluster_faults: cluster_faults(read("CLUSTER_FAULTS")),
            synchronous_mode: read("SYNCHRONOUS_MODE"),
            previous: read("PREVIOUS"),
        }
    }

    pub fn includes(&self, fault: Fault) -> bool {
        self.faults.as_ref().is_none_or(|faults| faults.split(',').any(|name| name == format!("{fault:?}")))
    }
}

fn cluster_faults(names: Option<String>) -> Vec<ClusterFault> {
    let Some(names) = names else { return vec![ClusterFault::Switchover, ClusterFault::KillPrimary] };
    if names == "all" {
        return ClusterFault::ALL.to_vec();
    }
    let of_name = |name: &str| ClusterFault::ALL.iter().copied().find(|fault| format!("{fault:?}") == name);
    let fault =
        |name: &str| of_name(name).unwrap_or_else(|| panic!("no fault of the Patroni cluster is called {name}"));
    names.split(',').map(fault).collect()
}

fn read<T: FromStr>(name: &str) -> Option<T> {
    let name = format!("PASSBOOK_CHAOS_{name}");
    let text = env::var(&name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} has an invalid value: {text}")))
}
