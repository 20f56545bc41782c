//! A round runs a workload, injects faults, restores the testbed, and then checks every invariant.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use passbook_testkit::{Rng, audit::audit_database, eventually};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use sqlx::query_scalar;

use crate::{
    account_views,
    accounts::Accounts,
    books::Books,
    client::{Client, CommandRecord},
    command::Command,
    fault::{Fault, inject},
    instance::Instance,
    invariants,
    late_attempt::{self, CASES, Case, LateAttempts, Scenario},
    probe::Probe,
    report::Report,
    settings::Settings,
    testbed::Testbed,
    workload::Workload,
};

/// The longest pause before a fault, in which only the workload runs.
const GAP_MS_MAX: u64 = 1_200;
const READY_S_MAX: u64 = 10;
/// How often a scenario of a late first attempt is tried without a fault: a slow machine can exceed the time for its body.
const LATE_ATTEMPTS_MAX: u64 = 5;
/// A fault that finds no target for this long is skipped.
const INJECT_S_MAX: u64 = 30;

/// Runs all rounds on one testbed.
pub async fn run(name: &str, testbed: Testbed, kinds: &[Fault], settings: Settings) {
    println!("chaos test with {name}: {settings:?}");
    let kinds: Vec<Fault> = kinds.iter().copied().filter(|fault| settings.includes(*fault)).collect();
    let (kinds, left_out): (Vec<Fault>, Vec<Fault>) =
        kinds.into_iter().partition(|fault| testbed.postgres.has_processes() || !fault.needs_server_process());
    if !left_out.is_empty() {
        println!("chaos test with {name}: left out, because they need the processes of Postgres: {left_out:?}");
    }
    let testbed = Arc::new(testbed);
    let on_failure = FailureReport { name: name.to_owned(), seed: settings.seed, testbed: Arc::clone(&testbed) };
    let mut rounds = Rounds {
        testbed: Arc::clone(&testbed),
        rng: Rng::new(settings.seed),
        settings,
        accounts: Arc::default(),
        records: vec![],
        report: Report::default(),
    };
    for round in 0..rounds.settings.rounds {
        let started = Instant::now();
        rounds.run_round(round, &kinds).await;
        rounds.check_invariants().await;
        rounds.report.rounds += 1;
        println!("chaos test with {name}: round {round} passed in {:.0} s", started.elapsed().as_secs_f64());
    }
    let seed = rounds.settings.seed;
    println!("chaos test with {name}, PASSBOOK_CHAOS_SEED={seed}\n{}", rounds.report());
    drop((on_failure, rounds));
    Arc::into_inner(testbed).expect("no task uses the testbed any more").shut_down().await;
}

struct Rounds {
    testbed: Arc<Testbed>,
    settings: Settings,
    rng: Rng,
    accounts: Arc<Accounts>,
    /// The commands of all rounds.
    records: Vec<CommandRecord>,
    report: Report,
}

impl Rounds {
    /// Runs the workload and injects the faults, then restores the testbed.
    async fn run_round(&mut self, round: u64, kinds: &[Fault]) {
        let instances = self.testbed.all_instances();
        let probe = Probe::start(&instances, round, &mut self.rng).await;
        let workload = Workload::start(&self.testbed, &self.accounts, round, &mut self.rng);
        let late_attempts = LateAttempts::start(&instances, round, &mut self.rng);
        self.inject_all(kinds).await;
        self.testbed.restore().await;

        self.records.extend(workload.finish().await);
        let (records, reads) = probe.finish(&self.testbed.instances).await;
        self.records.extend(records);
        self.report.reads += reads;
        for scenario in late_attempts.finish().await {
            self.add_scenario(scenario);
        }
        self.inject_while_idle(kinds).await;
        for instance in self.testbed.instances.clone() {
            self.run_command_alone(round, &instance).await;
        }
        for case in CASES {
            self.run_late_attempt(round, case).await;
        }
    }

    /// Runs a scenario of a late first attempt without a fault: the first attempt at one instance, and its retry at another one if
    /// there are several.
    async fn run_late_attempt(&mut self, round: u64, case: Case) {
        let (first, others) = self.testbed.instances.split_first().unwrap();
        let others = if others.is_empty() { std::slice::from_ref(first) } else { others };
        let (first, mut client) = (Arc::clone(first), Client::new(others, self.rng.fork()));
        for number in 0..LATE_ATTEMPTS_MAX {
            let name = format!("{round}-late-last-{case:?}-{number}");
            let scenario = late_attempt::run(&mut client, &first, case, &name).await;
            let is_complete = scenario.is_complete;
            self.add_scenario(scenario);
            if is_complete {
                return;
            }
        }
        panic!("no late attempt was answered: {:?}", self.records.last());
    }

    fn add_scenario(&mut self, scenario: Scenario) {
        self.report.late_attempts += u64::from(scenario.is_complete);
        self.records.extend(scenario.records);
    }

    /// Compares the log, the views and the responses with each other once the testbed is restored.
    async fn check_invariants(&mut self) {
        self.testbed.wait_for_expiries().await;
        let log = audit_database(&mut self.testbed.database().await).await;
        let changed = invariants::recorded_after_rejection(&self.records, &log);
        let count = changed.len();
        assert_eq!(count, 0, "{count} commands were recorded after their rejection: {changed:#?}");
        let books = Books::from_log(&log.events);
        invariants::check(&self.records, &log, &books);
        account_views::check(&self.testbed.instances, &books).await;
        let verified = self.testbed.verify().await;
        assert!(verified.status.success(), "passbook verify: {verified:?}");
        self.report.count_events(&log.events);
    }

    fn report(&mut self) -> &Report {
        self.report.count(&self.records);
        &self.report
    }

    /// Injects each kind of fault `times` times in random order, with `parallel_faults` faults at once.
    async fn inject_all(&mut self, kinds: &[Fault]) {
        let mut faults: Vec<Fault> = (0..self.settings.times).flat_map(|_| kinds).copied().collect();
        self.rng.shuffle(&mut faults);
        let faults = Arc::new(Mutex::new(VecDeque::from(faults)));
        let mut tasks = JoinSet::new();
        for _ in 0..self.settings.parallel_faults {
            let (testbed, faults, mut rng) = (Arc::clone(&self.testbed), Arc::clone(&faults), self.rng.fork());
            let freeze = self.settings.freeze;
            tasks.spawn(async move {
                let mut happened = Vec::new();
                loop {
                    sleep(rng.millis(200, GAP_MS_MAX)).await;
                    let Some(fault) = faults.lock().unwrap().pop_front() else { return happened };
                    if inject_with_retry(fault, &testbed, &mut rng, freeze).await {
                        happened.push(fault);
                    }
                }
            });
        }
        for fault in tasks.join_all().await.concat() {
            *self.report.faults.entry(fault).or_default() += 1;
        }
    }

    /// Injects one more fault while no command runs. The views must catch up without a further command.
    async fn inject_while_idle(&mut self, kinds: &[Fault]) {
        let kinds: Vec<Fault> = kinds.iter().copied().filter(|fault| !fault.is_message_fault()).collect();
        if !kinds.is_empty() {
            let fault = *self.rng.pick(&kinds);
            let happened = inject_with_retry(fault, &self.testbed, &mut self.rng, self.settings.freeze).await;
            *self.report.faults.entry(fault).or_default() += u64::from(happened);
            self.testbed.restore().await;
        }
        self.wait_for_views().await;
        self.wait_until_ready().await;
    }

    /// Freezes all other instances. This one must execute a command and bring the views up to date.
    ///
    /// The command waits for all earlier commands of this instance and moves the log head. No delayed write of an earlier
    /// command can commit afterwards.
    async fn run_command_alone(&mut self, round: u64, instance: &Arc<Instance>) {
        let mut frozen = Vec::new();
        for other in self.testbed.instances.iter().filter(|other| !Arc::ptr_eq(other, instance)) {
            frozen.extend(other.lock().await.freeze());
        }
        let mut client = Client::new(std::slice::from_ref(instance), self.rng.fork());
        let key = format!("{round}-last-{}", instance.name);
        let record = client.send_until_definite(Command::open(key, self.rng.uuid(), 1)).await;
        self.records.push(record);
        self.wait_for_views().await;
    }

    /// Waits until each instance is ready. Sends no command, because a load balancer sends none to an instance that is not
    /// ready.
    async fn wait_until_ready(&self) {
        let http = passbook_testkit::http_client().timeout(Duration::from_secs(READY_S_MAX)).build().unwrap();
        for instance in &self.testbed.instances {
            let ready = format!("{}/readyz", instance.base_url());
            eventually(&format!("the readiness of {}", instance.name), async || {
                http.get(&ready).send().await.ok()?.error_for_status().ok().map(drop)
            })
            .await;
        }
    }

    /// Waits until every view has reached the log head. No client writes meanwhile.
    async fn wait_for_views(&mut self) {
        let started = Instant::now();
        eventually("the views to reach the log head", async || {
            let mut database = self.testbed.postgres.connect().await.ok()?;
            let behind: bool = query_scalar(
                "SELECT EXISTS (
                     SELECT FROM projection JOIN log_head USING (partition) WHERE projection.position <> log_head.position
                 )",
            )
            .fetch_one(&mut database)
            .await
            .ok()?;
            (!behind).then_some(())
        })
        .await;
        self.report.caught_up_in = self.report.caught_up_in.max(started.elapsed());
    }
}

/// Retries a fault that finds no target, for example while Postgres is down.
async fn inject_with_retry(fault: Fault, testbed: &Testbed, rng: &mut Rng, freeze: Duration) -> bool {
    let deadline = Instant::now() + Duration::from_secs(INJECT_S_MAX);
    while Instant::now() < deadline {
        if inject(fault, testbed, rng, freeze).await {
            return true;
        }
        sleep(Duration::from_millis(300)).await;
    }
    false
}

/// Prints the seed and the instances' last log lines if the test fails.
struct FailureReport {
    name: String,
    seed: u64,
    testbed: Arc<Testbed>,
}

impl Drop for FailureReport {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("chaos test with {} failed with PASSBOOK_CHAOS_SEED={}", self.name, self.seed);
            for instance in self.testbed.all_instances() {
                eprintln!("standard error of {}: {}", instance.name, instance.stderr_tail());
            }
        }
    }
}
