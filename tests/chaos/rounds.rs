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
    crowd::{Client, Crowd, Told},
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

/// All rounds at one site.
pub async fn run(name: &str, site: Site, kinds: &[Fault], settings: Settings) {
    let site = Arc::new(site);
    let _last_words = LastWords { name: name.to_owned(), seed: settings.seed, site: Arc::clone(&site) };
    println!("chaos at {name}: {settings:?}");
    let mut dice = Dice::new(settings.seed);
    let accounts = Arc::new(Accounts::default());
    let (mut told, mut tally) = (Vec::new(), Tally::default());
    for round in 0..settings.rounds {
        let started = Instant::now();
        let of_round = Round { site: Arc::clone(&site), number: round, settings };
        let new = of_round.play(kinds, &accounts, &mut dice, &mut tally).await;
        tally.count(&new);
        told.extend(new);
        tally.caught_up_in = tally.caught_up_in.max(of_round.views_catch_up().await);
        let log = audit(&site).await;
        books::compare(&told, &log);
        let verified = site.verify().await;
        assert!(verified.status.success(), "passbook verify: {verified:?}");
        (tally.rounds, tally.events) = (round + 1, log.events.len());
        println!("chaos at {name}: round {round} held, in {:.0} s", started.elapsed().as_secs_f64());
    }
    println!("chaos at {name}, PASSBOOK_CHAOS_SEED={}\n{tally}", settings.seed);
    drop(_last_words);
    Arc::into_inner(site).expect("nobody else is at the site").close().await;
}

struct Round {
    site: Arc<Site>,
    number: u64,
    settings: Settings,
}

impl Round {
    /// Everything that happens; returns what the clients were told.
    async fn play(&self, kinds: &[Fault], accounts: &Arc<Accounts>, dice: &mut Dice, tally: &mut Tally) -> Vec<Told> {
        let everybody = self.site.everybody();
        let probe = Probe::at_work(&everybody, self.number, dice).await;
        let crowd = Crowd::at_work(&everybody, accounts, self.number, dice);
        self.inject_all(kinds, dice, tally).await;
        self.site.mend().await;

        let mut told = crowd.told().await;
        let (of_probe, reads) = probe.told(&self.site.instances).await;
        told.extend(of_probe);
        tally.reads += reads;
        for instance in &self.site.instances {
            told.push(self.alone(instance, dice).await);
        }
        told
    }

    async fn inject_all(&self, kinds: &[Fault], dice: &mut Dice, tally: &mut Tally) {
        let mut faults: Vec<Fault> = (0..self.settings.times).flat_map(|_| kinds).copied().collect();
        dice.shuffle(&mut faults);
        let faults = Arc::new(Mutex::new(VecDeque::from(faults)));
        let mut lanes = JoinSet::new();
        for _ in 0..self.settings.lanes {
            let (site, faults, mut dice) = (Arc::clone(&self.site), Arc::clone(&faults), dice.fork());
            let freeze = self.settings.freeze;
            lanes.spawn(async move {
                let mut happened = Vec::new();
                loop {
                    sleep(dice.millis(200, GAP_MS_MAX)).await;
                    let Some(fault) = faults.lock().unwrap().pop_front() else { return happened };
                    // What finds nobody to happen to, as while Postgres is down, happens a little later.
                    for _ in 0..20 {
                        if inject(fault, &site, &mut dice, freeze).await {
                            happened.push(fault);
                            break;
                        }
                        sleep(Duration::from_millis(300)).await;
                    }
                }
            });
        }
        for fault in lanes.join_all().await.concat() {
            *tally.faults.entry(fault).or_default() += 1;
        }
    }

    /// While the others stand still this one carries a command out and brings the views up to it.
    ///
    /// The command waits behind whatever is still under way there, and moves the head, so that nothing that was lost on
    /// its way can succeed afterwards.
    async fn alone(&self, instance: &Arc<Instance>, dice: &mut Dice) -> Told {
        let mut frozen = Vec::new();
        for other in self.site.instances.iter().filter(|other| !Arc::ptr_eq(other, instance)) {
            frozen.extend(other.hold().await.freeze());
        }
        let mut client = Client::new(std::slice::from_ref(instance), dice.fork());
        let key = format!("{}-last-{}", self.number, instance.name);
        let told = client.carry_through(Command::open(key, dice.uuid(), 1)).await;
        self.views_catch_up().await;
        told
    }

    /// Nobody writes any more.
    async fn views_catch_up(&self) -> Duration {
        let started = Instant::now();
        let database = tokio::sync::Mutex::new(self.site.database().await);
        eventually("the views' catching up", async || {
            let behind: bool = query_scalar(
                "SELECT EXISTS (SELECT FROM projection WHERE position <> (SELECT position FROM log_head))",
            )
            .fetch_one(&mut *database.lock().await)
            .await
            .unwrap();
            (!behind).then_some(())
        })
        .await;
        started.elapsed()
    }
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
