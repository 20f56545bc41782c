//! The kinds of fault of a Patroni cluster, and how each one is injected.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::{cluster::Cluster, node::Node};
use crate::postgres::FrozenProcess;

/// How long processes stay suspended at least: longer than Patroni's `ttl`.
const FREEZE_S_MIN: u64 = 30;
/// How long a former primary stays suspended or away after the new one takes writes.
const AFTER_RECOVERY_S: u64 = 3;
const ETCD_S: u64 = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterFault {
    /// A planned change of the primary.
    Switchover,
    /// SIGKILL to Patroni and Postgres of the primary's node, which returns later.
    KillPrimary,
    /// Patroni and Postgres of the primary's node are suspended for a while.
    FreezePrimary,
    /// Only Postgres of that node is suspended for a while.
    FreezePostgres,
    /// SIGKILL to Patroni and Postgres of a synchronous standby's node, which returns later.
    KillStandby,
    /// Patroni and Postgres of a synchronous standby's node are suspended for a while.
    FreezeStandby,
    /// SIGKILL to etcd, followed by a start.
    StopEtcd,
}

use ClusterFault::*;

impl ClusterFault {
    pub const ALL: &[Self] =
        &[Switchover, KillPrimary, FreezePrimary, FreezePostgres, KillStandby, FreezeStandby, StopEtcd];

    /// Injects the fault, waits with `until_written` until writes succeed again, and ends the fault.
    pub async fn inject(self, cluster: &Cluster, until_written: impl AsyncFnOnce()) {
        match self {
            Switchover => cluster.switch_over().await,
            KillPrimary => keep_down(cluster.leader().await, until_written).await,
            KillStandby => keep_down(cluster.synchronous_standby().await, until_written).await,
            FreezePrimary => keep_frozen(cluster.leader().await.freeze(), until_written).await,
            FreezePostgres => keep_frozen(cluster.leader().await.freeze_postgres(), until_written).await,
            FreezeStandby => keep_frozen(cluster.synchronous_standby().await.freeze(), until_written).await,
            StopEtcd => {
                cluster.etcd.kill();
                sleep(Duration::from_secs(ETCD_S)).await;
                cluster.etcd.start();
            }
        }
    }
}

async fn keep_down(node: &Node, until_written: impl AsyncFnOnce()) {
    node.kill();
    until_written().await;
    sleep(Duration::from_secs(AFTER_RECOVERY_S)).await;
    node.start();
}

async fn keep_frozen(frozen: Vec<FrozenProcess>, until_written: impl AsyncFnOnce()) {
    let thaws_at = Instant::now() + Duration::from_secs(FREEZE_S_MIN);
    until_written().await;
    sleep(Duration::from_secs(AFTER_RECOVERY_S)).await;
    sleep_until(thaws_at).await;
    drop(frozen);
}
