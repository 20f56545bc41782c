//! Faults of a Patroni cluster under load. One instance finds the primary by the list of all servers, the other one through HAProxy.
//!
//! `cargo test` injects a switchover and the loss of the primary. `make chaos` injects all faults.

mod cluster;
pub mod fault;
mod node;
mod readers;

use std::{
    slice,
    sync::Arc,
    time::{Duration, Instant as StdInstant},
};

use cluster::Cluster;
use fault::ClusterFault;
use passbook_testkit::{
    Rng,
    audit::audit_database,
    eventually,
    process::{Exited, Passbook},
};
use readers::{Feed, Relay};
use tokio::time::{Instant, sleep};

use crate::{
    account_views,
    accounts::Accounts,
    books::Books,
    client::{Client, CommandRecord, Outcome},
    command::Command,
    instance::Instance,
    invariants,
    probe::Probe,
    settings::Settings,
    testbed::{prepared, verify, wait_for_expiries},
    workload::Workload,
};

/// How long only the workload runs before and after a fault.
const GAP_MS: u64 = 2_000;

/// Injects the faults one after the other, and then compares the log with what clients and readers got.
pub async fn run(settings: Settings) {
    println!("chaos test with a Patroni cluster: {settings:?}");
    let started = StdInstant::now();
    let cluster = Cluster::start(settings.synchronous_mode.as_deref()).await;
    let urls = [("list", cluster.list_of_urls()), ("haproxy", cluster.balancer_url())];
    let instances =
        urls.map(|(name, url)| Arc::new(Instance::new(name, move || prepared(Passbook::with_database(&url)))));
    for instance in &instances {
        instance.lock().await.start().await;
    }
    let on_failure = FailureReport { seed: settings.seed, instances: instances.clone() };
    println!("the cluster and the instances started in {:.1} s", started.elapsed().as_secs_f64());
    let relay = Relay::start(cluster.list_of_urls()).await;
    let feeds = instances.each_ref().map(Feed::subscribe);
    let mut rounds =
        Rounds { cluster, instances, rng: Rng::new(settings.seed), accounts: Arc::default(), records: vec![] };
    for (number, fault) in (0..).zip(&settings.cluster_faults) {
        rounds.run_round(number, *fault).await;
    }
    rounds.check(relay, feeds).await;
    println!("chaos test with a Patroni cluster passed in {:.0} s", started.elapsed().as_secs_f64());
    drop(on_failure);
}

struct Rounds {
    cluster: Cluster,
    instances: [Arc<Instance>; 2],
    rng: Rng,
    accounts: Arc<Accounts>,
    /// The commands of all rounds.
    records: Vec<CommandRecord>,
}

impl Rounds {
    /// Injects one fault while the workload runs, waits until the cluster is complete again, and prints how long no write succeeded.
    async fn run_round(&mut self, number: u64, fault: ClusterFault) {
        let probe = Probe::start(&self.instances, number, &mut self.rng).await;
        let client = Client::new(&self.instances, self.rng.fork());
        let workload = Workload::with_clients(&client, &self.accounts, number, &mut self.rng);
        sleep(Duration::from_millis(GAP_MS)).await;
        let injected_at = Instant::now();
        let mut records = vec![];
        fault.inject(&self.cluster, async || records = self.write(&format!("{number}-fault")).await).await;
        self.cluster.wait_until_complete().await;
        self.records.extend(records);
        let records = self.write(&format!("{number}-complete")).await;
        self.records.extend(records);
        sleep(Duration::from_millis(GAP_MS)).await;
        let records = workload.finish().await;
        let gaps = self.instances.each_ref().map(|instance| longest_gap(&records, instance.name, injected_at));
        let [list, haproxy] = gaps.map(|gap| gap.as_secs_f64());
        let retries: u64 = records.iter().map(|record| record.attempts - 1).sum();
        println!(
            "{fault:?}: no write for {list:.1} s with the list of servers, {haproxy:.1} s through HAProxy; \
             {} commands, {retries} retries",
            records.len()
        );
        self.records.extend(records);
        let (records, _) = probe.finish(&self.instances).await;
        self.records.extend(records);
    }

    /// Executes one command at each instance, with retries until its outcome is definite.
    async fn write(&self, name: &str) -> Vec<CommandRecord> {
        let mut records = Vec::new();
        for instance in &self.instances {
            let mut client = Client::new(slice::from_ref(instance), Rng::new(0));
            let command = Command::open(format!("{name}-{}", instance.name), uuid::Uuid::now_v7(), 1);
            records.push(client.send_until_definite(command).await);
        }
        records
    }

    /// Compares the log with the responses, the views, the feeds and the relay's stream.
    async fn check(self, relay: Relay, feeds: [Feed; 2]) {
        wait_for_expiries(async || self.cluster.connect().await).await;
        let mut database = eventually("the primary", async || self.cluster.connect().await).await;
        let log = audit_database(&mut database).await;
        let changed = invariants::recorded_after_rejection(&self.records, &log);
        assert!(changed.is_empty(), "commands were recorded after their rejection: {changed:#?}");
        let books = Books::from_log(&log.events);
        invariants::check(&self.records, &log, &books);
        account_views::check(&self.instances, &books).await;
        let verified: Exited = verify(self.cluster.list_of_urls()).await;
        assert!(verified.status.success(), "passbook verify: {verified:?}");
        for feed in feeds {
            feed.finish(&log).await;
        }
        relay.finish(&log).await;
        for instance in &self.instances {
            instance.lock().await.stop().await;
        }
        println!("{} commands and {} events, each exactly once", self.records.len(), log.events.len());
    }
}

/// The longest time without a recorded command of this instance that ended after `from`.
fn longest_gap(records: &[CommandRecord], instance: &str, from: Instant) -> Duration {
    let is_recorded = |record: &&CommandRecord| matches!(record.outcome, Outcome::Recorded(_));
    let answered = records.iter().filter(is_recorded).filter_map(|record| record.answered);
    let mut times: Vec<Instant> = answered.filter(|(name, _)| *name == instance).map(|(_, at)| at).collect();
    times.sort_unstable();
    let gaps = times.windows(2).filter(|pair| pair[1] > from).map(|pair| pair[1] - pair[0]);
    gaps.max().expect("the instance records commands after the fault")
}

/// Prints the seed and the instances' last log lines if the test fails.
struct FailureReport {
    seed: u64,
    instances: [Arc<Instance>; 2],
}

impl Drop for FailureReport {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("chaos test with a Patroni cluster failed with PASSBOOK_CHAOS_SEED={}", self.seed);
            for instance in &self.instances {
                eprintln!("standard error of {}: {}", instance.name, instance.stderr_tail());
            }
        }
    }
}
