//! A round: clients at work, faults one after the other, everything up again, and then the reckoning.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use sqlx::query_scalar;

use crate::{
    books,
    command::{Accounts, Command},
    crowd::{Answer, Client, Crowd, Told},
    dice::Dice,
    eventually,
    fault::{Fault, inject},
    instance::Instance,
    probe::Probe,
    settings::Settings,
    site::Site,
    support::audit::audit,
    tally::Tally,
};

/// Clients are at work before the first fault, and between two.
const GAP_MS_MAX: u64 = 1_200;
const READY_S_MAX: u64 = 10;
/// After so long of it a fault is left out.
const INJECT_S_MAX: u64 = 30;

/// All rounds at one site.
pub async fn run(name: &str, site: Site, kinds: &[Fault], settings: Settings) {
    println!("chaos at {name}: {settings:?}");
    let kinds: Vec<Fault> = kinds.iter().copied().filter(|fault| settings.asks_for(*fault)).collect();
    let site = Arc::new(site);
    let last_words = LastWords { name: name.to_owned(), seed: settings.seed, site: Arc::clone(&site) };
    let mut rounds = Rounds {
        site: Arc::clone(&site),
        dice: Dice::new(settings.seed),
        settings,
        accounts: Arc::default(),
        told: vec![],
        tally: Tally::default(),
    };
    for round in 0..rounds.settings.rounds {
        let started = Instant::now();
        rounds.play(round, &kinds).await;
        rounds.reckon().await;
        rounds.tally.rounds += 1;
        println!("chaos at {name}: round {round} held, in {:.0} s", started.elapsed().as_secs_f64());
    }
    let seed = rounds.settings.seed;
    println!("chaos at {name}, PASSBOOK_CHAOS_SEED={seed}\n{}", rounds.tally());
    drop((last_words, rounds));
    Arc::into_inner(site).expect("nobody else is at the site").close().await;
}

struct Rounds {
    site: Arc<Site>,
    settings: Settings,
    dice: Dice,
    accounts: Arc<Accounts>,
    /// What clients were told, in all rounds.
    told: Vec<Told>,
    tally: Tally,
}

impl Rounds {
    /// Everything that happens.
    async fn play(&mut self, round: u64, kinds: &[Fault]) {
        let everybody = self.site.everybody();
        let probe = Probe::at_work(&everybody, round, &mut self.dice).await;
        let crowd = Crowd::at_work(&self.site, &self.accounts, round, &mut self.dice);
        self.inject_all(kinds).await;
        self.site.mend().await;

        self.told.extend(crowd.told().await);
        let (told, reads) = probe.told(&self.site.instances).await;
        self.told.extend(told);
        self.tally.reads += reads;
        self.break_in_silence(kinds).await;
        for instance in self.site.instances.clone() {
            self.alone(round, &instance).await;
        }
    }

    /// Everything that must hold when everything is up again.
    async fn reckon(&mut self) {
        let log = audit(&self.site).await;
        for one in books::overtaken(&mut self.told, &log) {
            let mut client = Client::new(&self.site.instances, self.dice.fork());
            // It converges: from now on it is answered with what is recorded.
            client.carry_on(one).await;
            assert!(matches!(one.answer, Answer::Recorded(_)), "{one:?} is recorded");
            self.tally.overtaken += 1;
        }
        let log = audit(&self.site).await;
        books::compare(&self.told, &log);
        let verified = self.site.verify().await;
        assert!(verified.status.success(), "passbook verify: {verified:?}");
        self.tally.events = log.events.len();
    }

    fn tally(&mut self) -> &Tally {
        self.tally.count(&self.told);
        &self.tally
    }

    /// Each kind so often, in lanes beside each other.
    async fn inject_all(&mut self, kinds: &[Fault]) {
        let mut faults: Vec<Fault> = (0..self.settings.times).flat_map(|_| kinds).copied().collect();
        self.dice.shuffle(&mut faults);
        let faults = Arc::new(Mutex::new(VecDeque::from(faults)));
        let mut lanes = JoinSet::new();
        for _ in 0..self.settings.lanes {
            let (site, faults, mut dice) = (Arc::clone(&self.site), Arc::clone(&faults), self.dice.fork());
            let freeze = self.settings.freeze;
            lanes.spawn(async move {
                let mut happened = Vec::new();
                loop {
                    sleep(dice.millis(200, GAP_MS_MAX)).await;
                    let Some(fault) = faults.lock().unwrap().pop_front() else { return happened };
                    if inject_at_last(fault, &site, &mut dice, freeze).await {
                        happened.push(fault);
                    }
                }
            });
        }
        for fault in lanes.join_all().await.concat() {
            *self.tally.faults.entry(fault).or_default() += 1;
        }
    }

    /// One more fault while nobody asks for anything: what it has disturbed comes right without a further command.
    async fn break_in_silence(&mut self, kinds: &[Fault]) {
        let kinds: Vec<Fault> = kinds.iter().copied().filter(|fault| !fault.is_theft()).collect();
        if !kinds.is_empty() {
            let fault = *self.dice.pick(&kinds);
            let happened = inject_at_last(fault, &self.site, &mut self.dice, self.settings.freeze).await;
            *self.tally.faults.entry(fault).or_default() += u64::from(happened);
            self.site.mend().await;
        }
        self.views_catch_up().await;
        self.everybody_is_ready().await;
    }

    /// While the others stand still this one carries a command out and brings the views up to it.
    ///
    /// The command waits behind whatever is still under way there, and moves the head, so that nothing that was lost on
    /// its way can succeed afterwards.
    async fn alone(&mut self, round: u64, instance: &Arc<Instance>) {
        let mut frozen = Vec::new();
        for other in self.site.instances.iter().filter(|other| !Arc::ptr_eq(other, instance)) {
            frozen.extend(other.hold().await.freeze());
        }
        let mut client = Client::new(std::slice::from_ref(instance), self.dice.fork());
        let key = format!("{round}-last-{}", instance.name);
        let told = client.carry_through(Command::open(key, self.dice.uuid(), 1)).await;
        self.told.push(told);
        self.views_catch_up().await;
    }

    /// Without a further command: to one that is not ready nobody sends any.
    async fn everybody_is_ready(&self) {
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(READY_S_MAX)).build().unwrap();
        for instance in &self.site.instances {
            let ready = format!("{}/readyz", instance.base());
            eventually(&format!("the readiness of {}", instance.name), async || {
                http.get(&ready).send().await.ok()?.error_for_status().ok().map(drop)
            })
            .await;
        }
    }

    /// Nobody writes any more.
    async fn views_catch_up(&mut self) {
        let started = Instant::now();
        eventually("the views' catching up", async || {
            let mut database = self.site.postgres.connect().await.ok()?;
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
        self.tally.caught_up_in = self.tally.caught_up_in.max(started.elapsed());
    }
}

/// What finds nobody to happen to, as while Postgres is down, happens a little later.
async fn inject_at_last(fault: Fault, site: &Site, dice: &mut Dice, freeze: Duration) -> bool {
    let deadline = Instant::now() + Duration::from_secs(INJECT_S_MAX);
    while Instant::now() < deadline {
        if inject(fault, site, dice, freeze).await {
            return true;
        }
        sleep(Duration::from_millis(300)).await;
    }
    false
}

/// On a failure: the seed, and what the passbooks had to say.
struct LastWords {
    name: String,
    seed: u64,
    site: Arc<Site>,
}

impl Drop for LastWords {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("chaos at {} failed with PASSBOOK_CHAOS_SEED={}", self.name, self.seed);
            for instance in self.site.everybody() {
                eprintln!("{} said: {}", instance.name, instance.last_words());
            }
        }
    }
}
