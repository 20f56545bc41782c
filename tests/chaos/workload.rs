//! Concurrent clients that send random commands. The result is a record of every command and its responses.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use passbook_testkit::Rng;
use tokio::{task::JoinSet, time::sleep};

use crate::{
    accounts::{Accounts, Mix},
    client::{Client, CommandRecord, Outcome},
    settings::Settings,
    testbed::Testbed,
};

const CLIENTS: u64 = 20;
/// How many of the recorded commands are sent once more.
const REPLAYED_PERCENT: u64 = 4;
/// How many of the rejected commands are sent once more. They are rare.
const REPLAYED_REJECTIONS_PERCENT: u64 = 40;

/// Clients that send commands until [`finish`](Self::finish).
pub struct Workload {
    is_over: Arc<AtomicBool>,
    clients: JoinSet<Vec<CommandRecord>>,
}

impl Workload {
    pub fn start(testbed: &Testbed, accounts: &Arc<Accounts>, round: u64, rng: &mut Rng) -> Self {
        let instances = testbed.all_instances();
        let is_over = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        // Releases before 0.3 record no rejections, and have neither holds nor reversals and limits.
        let mix = if Settings::read().previous.is_none() { Mix::All } else { Mix::OfPreviousRelease };
        for client_number in 0..CLIENTS {
            let (accounts, is_over) = (Arc::clone(accounts), Arc::clone(&is_over));
            let mut client = Client::new(&instances, rng.fork());
            client.balancer_url = testbed.balancer.as_ref().map(|balancer| Arc::clone(&balancer.url));
            clients.spawn(async move {
                let mut records = Vec::new();
                for command_number in 0.. {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    let key = format!("{round}-{client_number}-{command_number}");
                    let command = accounts.command(mix, &mut client.rng, key);
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
