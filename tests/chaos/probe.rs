//! An account that only ever gains 1, and readers who look at it on every passbook. Whatever they see must be a moment
//! of its history: not later than what was sent, and not earlier than what they asked for.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use reqwest::StatusCode;
use serde_json::Value;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use uuid::Uuid;

use crate::{
    command::Command,
    crowd::{Answer, Client, Told},
    dice::Dice,
    eventually,
    instance::Instance,
};

/// A view that is asked to wait gives up before.
const READ_S_MAX: u64 = 20;

pub struct Probe {
    account: Uuid,
    history: Arc<History>,
    over: Arc<AtomicBool>,
    writer: JoinSet<Vec<Told>>,
    readers: JoinSet<()>,
    everybody: Vec<Arc<Instance>>,
}

/// What is known of the account while it goes on.
#[derive(Default)]
struct History {
    /// So many deposits were sent.
    sent: AtomicI64,
    /// The last that was answered: the balance, and the position that a reader may ask for.
    answered: Mutex<(i64, String)>,
    reads: AtomicU64,
}

/// What a reader saw.
enum Sight {
    Balance(i64),
    /// There is no such account, which it once was.
    Nothing,
    /// No answer that says anything of the account.
    Refused,
}

impl Probe {
    /// A new account, with a writer and a reader for each passbook.
    pub async fn at_work(everybody: &[Arc<Instance>], round: u64, dice: &mut Dice) -> Self {
        let account = dice.uuid();
        let history = Arc::new(History::default());
        let over = Arc::new(AtomicBool::new(false));
        let mut client = Client::new(everybody, dice.fork());
        let opened = client.carry_through(Command::open(format!("{round}-probe"), account, 0)).await;
        history.note(&opened);

        let mut writer = JoinSet::new();
        writer.spawn({
            let (history, over) = (Arc::clone(&history), Arc::clone(&over));
            async move {
                let mut told = vec![opened];
                while !over.load(Ordering::Relaxed) {
                    let number = history.sent.fetch_add(1, Ordering::SeqCst) + 1;
                    let deposit = Command::deposit(format!("{round}-probe-{number}"), account, 1);
                    let one = client.carry_through(deposit).await;
                    history.note(&one);
                    told.push(one);
                    sleep(client.dice.millis(1, 30)).await;
                }
                told
            }
        });
        let mut readers = JoinSet::new();
        for instance in everybody {
            let (history, over, instance) = (Arc::clone(&history), Arc::clone(&over), Arc::clone(instance));
            let mut client = Client::new(everybody, dice.fork());
            readers.spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let is_fresh = client.dice.chance(50);
                    look(&client, &instance, account, &history, is_fresh).await;
                    sleep(client.dice.millis(5, 50)).await;
                }
            });
        }
        Self { account, history, over, writer, readers, everybody: everybody.to_vec() }
    }

    /// Everybody goes home. Once everything is up again each passbook shows the account as it is.
    pub async fn told(self, running: &[Arc<Instance>]) -> (Vec<Told>, u64) {
        self.over.store(true, Ordering::Relaxed);
        let told = self.writer.join_all().await.concat();
        self.readers.join_all().await;
        let client = Client::new(&self.everybody, Dice::new(0));
        for instance in running {
            eventually("a fresh reading", async || {
                match look(&client, instance, self.account, &self.history, true).await {
                    Sight::Balance(_) => Some(()),
                    Sight::Nothing | Sight::Refused => None,
                }
            })
            .await;
        }
        (told, self.history.reads.load(Ordering::Relaxed))
    }
}

impl History {
    fn note(&self, told: &Told) {
        let Answer::Recorded(receipt) = &told.answer else { panic!("the probe was refused: {told:?}") };
        let position = receipt["position"].as_str().unwrap().to_owned();
        *self.answered.lock().unwrap() = (receipt["balance"].as_i64().unwrap(), position);
    }
}

async fn look(client: &Client, at: &Instance, account: Uuid, history: &History, is_fresh: bool) -> Sight {
    let (least, position) = if is_fresh { history.answered.lock().unwrap().clone() } else { (0, "0".to_owned()) };
    let sight = timeout(Duration::from_secs(READ_S_MAX), read(client, at, account, &position)).await;
    let sight = sight.unwrap_or(Sight::Refused);
    let most = history.sent.load(Ordering::SeqCst);
    let name = at.name;
    match sight {
        Sight::Balance(balance) => {
            history.reads.fetch_add(1, Ordering::Relaxed);
            assert!(balance <= most, "{name} shows {balance} when {most} deposits were sent");
            assert!(balance >= least, "{name} shows {balance} at position {position}, when {least} were recorded");
        }
        Sight::Nothing => assert!(!is_fresh, "{name} does not know the account at position {position}"),
        Sight::Refused => {}
    }
    sight
}

async fn read(client: &Client, at: &Instance, account: Uuid, position: &str) -> Sight {
    let base = at.base();
    let url = format!("{base}/v1/accounts/{account}?min_position={position}");
    let Ok(answer) = client.http.get(url).send().await else { return Sight::Refused };
    let status = answer.status();
    let read_up_to = answer.headers().get("passbook-position").map(|value| value.to_str().unwrap().to_owned());
    let Ok(view) = answer.json::<Value>().await else { return Sight::Refused };
    match status {
        StatusCode::OK => {
            let read_up_to = read_up_to.unwrap();
            assert!(
                place(&read_up_to) >= place(position),
                "{} read up to {read_up_to} and was asked for {position}",
                at.name
            );
            let [balance, version, count] =
                ["balance", "version", "transaction_count"].map(|name| view[name].as_i64().unwrap());
            assert_eq!((version, count), (balance + 1, balance), "{} shows a moment that never was: {view}", at.name);
            Sight::Balance(balance)
        }
        StatusCode::NOT_FOUND => Sight::Nothing,
        StatusCode::SERVICE_UNAVAILABLE => Sight::Refused,
        _ => panic!("{} answers {status} to a reader: {view}", at.name),
    }
}

/// How far a position is in the account's partition: its own positions name no other.
fn place(position: &str) -> i64 {
    position.rsplit(':').next().unwrap().parse().unwrap()
}
