//! Concurrent clients that send random commands. The result is a record of every command and its responses.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use passbook_testkit::Rng;
use tokio::{task::JoinSet, time::sleep};

use crate::{
    accounts::{Accounts, Mix},
    batch_client::Form,
    client::{Client, CommandRecord, Outcome},
    command::Command,
    settings::Settings,
    testbed::Testbed,
};

const CLIENTS: u64 = 20;
/// How many of the requests are batches of which all or none is executed, and with how many commands at most.
const ATOMIC_PERCENT: u64 = 12;
const ATOMIC_COMMANDS_MAX: u64 = 5;
/// How many of the requests have commands of which each is executed by itself, and how many at most.
const EACH_PERCENT: u64 = 5;
const EACH_COMMANDS_MAX: u64 = 12;
/// How many of the recorded commands are sent once more.
const REPLAYED_PERCENT: u64 = 4;
/// How many of the rejected commands are sent once more. They are rare.
const REPLAYED_REJECTIONS_PERCENT: u64 = 40;

/// A batch of which all or none is executed; some have no key.
fn atomic(accounts: &Accounts, rng: &mut Rng, key: String) -> Command {
    let commands = accounts.batch(rng, &key, ATOMIC_COMMANDS_MAX);
    Command { is_keyed: !rng.chance(20), ..Command::atomic(key, commands) }
}

/// Clients that send commands until [`finish`](Self::finish).
pub struct Workload {
    is_over: Arc<AtomicBool>,
    clients: JoinSet<Vec<CommandRecord>>,
}

impl Workload {
    pub fn start(testbed: &Testbed, accounts: &Arc<Accounts>, round: u64, rng: &mut Rng) -> Self {
        let balancer_url = testbed.balancer.as_ref().map(|balancer| Arc::clone(&balancer.url));
        let client = Client { balancer_url, ..Client::new(&testbed.all_instances(), rng.fork()) };
        Self::with_clients(&client, accounts, round, rng)
    }

    /// Starts clients that send where `client` sends.
    pub fn with_clients(client: &Client, accounts: &Arc<Accounts>, round: u64, rng: &mut Rng) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        // Releases before 0.3 record no rejections, and have neither holds nor reversals and limits.
        let mix = if Settings::read().previous.is_none() { Mix::All } else { Mix::OfPreviousRelease };
        for client_number in 0..CLIENTS {
            let (accounts, is_over) = (Arc::clone(accounts), Arc::clone(&is_over));
            let mut client = Client { rng: rng.fork(), ..client.clone() };
            clients.spawn(async move {
                let mut records = Vec::new();
                for command_number in 0.. {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    let key = format!("{round}-{client_number}-{command_number}");
                    if mix == Mix::All && client.rng.chance(EACH_PERCENT) {
                        let form = *client.rng.pick(&[Form::Json, Form::Lines]);
                        let commands = accounts.batch(&mut client.rng, &key, EACH_COMMANDS_MAX);
                        let sent = client.send_each_until_definite(&key, form, commands).await;
                        sent.iter().for_each(|record| accounts.learn(record));
                        records.extend(sent);
                        continue;
                    }
                    let command = match mix == Mix::All && client.rng.chance(ATOMIC_PERCENT) {
                        true => atomic(&accounts, &mut client.rng, key),
                        false => accounts.command(mix, &mut client.rng, key),
                    };
                    let mut record = client.send_until_definite(command).await;
                    accounts.learn(&record);
                    let percent = match record.outcome {
                        Outcome::Rejected(_) if mix == Mix::All => REPLAYED_REJECTIONS_PERCENT,
                        Outcome::Recorded(_) => REPLAYED_PERCENT,
                        Outcome::Rejected(_) | Outcome::Unknown => 0,
                    };
                    if client.rng.chance(percent) {
                        client.check_replay(&mut record).await;
                    }
                    records.push(record);
                    sleep(client.rng.millis(1, 40)).await;
                }
                records
            });
        }
        Self { is_over, clients }
    }

    /// Lets every client finish its current command, and returns the records of all commands.
    pub async fn finish(self) -> Vec<CommandRecord> {
        self.is_over.store(true, Ordering::Relaxed);
        self.clients.join_all().await.concat()
    }
}
