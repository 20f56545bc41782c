//! Scenarios in which the outcome of a key could change, or a command be executed twice. The first attempt of a command is on its way,
//! and its retry under the same key gets an outcome at another instance. If that is a refusal, the state then changes so that it would
//! allow the command. Then the first attempt arrives.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use passbook_testkit::Rng;
use serde_json::json;
use tokio::{task::JoinHandle, time::sleep};
use uuid::Uuid;

use crate::{
    client::{Client, CommandRecord, Outcome},
    command::Command,
    instance::Instance,
    unfinished_request::{LateResponse, UnfinishedRequest},
};

/// The opening balance of the account, its hold, and the amount of most commands.
const AMOUNT: u64 = 100;
/// The time until the hold expires, which is longer than the test.
const HOLD_S: u64 = 86_400;
/// The longest pause between two scenarios.
const PAUSE_MS_MAX: u64 = 500;

/// The command whose first attempt arrives late.
#[derive(Clone, Copy, Debug)]
pub enum Case {
    Withdrawal,
    PlaceHold,
    Capture,
    Reversal,
    WithdrawalWithinLimit,
    /// A batch of which all or none is executed.
    Batch,
    /// The retry succeeds, so that the late attempt would take money of the hold again.
    RepeatedCapture,
    /// The retry succeeds, so that the late attempt would pay back again.
    RepeatedReversal,
    /// The retry succeeds, so that the late attempt would execute the batch again.
    RepeatedBatch,
}

use Case::*;

pub const CASES: [Case; 9] = [
    Withdrawal,
    PlaceHold,
    Capture,
    Reversal,
    WithdrawalWithinLimit,
    Batch,
    RepeatedCapture,
    RepeatedReversal,
    RepeatedBatch,
];

/// The commands of one scenario.
pub struct Scenario {
    pub records: Vec<CommandRecord>,
    /// Whether the first attempt arrived after the retry and was answered. A fault can prevent that.
    pub is_complete: bool,
}

/// Scenarios that run one after the other until [`finish`](Self::finish).
pub struct LateAttempts {
    is_over: Arc<AtomicBool>,
    scenarios: JoinHandle<Vec<Scenario>>,
}

impl LateAttempts {
    pub fn start(instances: &[Arc<Instance>], round: u64, rng: &mut Rng) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let mut client = Client::new(instances, rng.fork());
        let scenarios = tokio::spawn({
            let is_over = Arc::clone(&is_over);
            async move {
                let mut scenarios = Vec::new();
                for number in 0.. {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    let (first, case) = (client.pick_instance(), *client.rng.pick(&CASES));
                    scenarios.push(run(&mut client, &first, case, &format!("{round}-late-{number}")).await);
                    sleep(client.rng.millis(1, PAUSE_MS_MAX)).await;
                }
                scenarios
            }
        });
        Self { is_over, scenarios }
    }

    /// Lets the current scenario end, and returns all.
    pub async fn finish(self) -> Vec<Scenario> {
        self.is_over.store(true, Ordering::Relaxed);
        self.scenarios.await.unwrap()
    }
}

/// Runs one scenario: the first attempt goes to the instance `first`, and `client` sends everything else.
pub async fn run(client: &mut Client, first: &Instance, case: Case, name: &str) -> Scenario {
    let account = client.rng.uuid();
    let opened = client.send_until_definite(Command::open(format!("{name}-open"), account, AMOUNT)).await;
    let mut records = vec![opened];
    let hold = match case {
        Capture | RepeatedCapture => {
            let place = Command::place_hold(format!("{name}-hold"), account, AMOUNT, HOLD_S);
            records.push(client.send_until_definite(place).await);
            hold_of(records.last().unwrap())
        }
        Withdrawal | PlaceHold | Reversal | WithdrawalWithinLimit | Batch | RepeatedReversal | RepeatedBatch => {
            Uuid::nil()
        }
    };
    let late = case.late_command(format!("{name}-late"), account, hold);
    let on_its_way = UnfinishedRequest::send(first, &late).await;

    let mut retry = match case.obstacle(name, account) {
        Some(Obstacle { begin, end, code }) => {
            records.push(client.send_until_definite(begin).await);
            let retry = client.send_until_definite(late).await;
            assert_eq!(retry.outcome, Outcome::Rejected(code.to_owned()), "{case:?}: {retry:?}");
            records.push(client.send_until_definite(end).await);
            retry
        }
        None => client.send_until_definite(late).await,
    };

    let response = match on_its_way {
        Some(request) => request.finish().await,
        None => None,
    };
    retry.had_unknown_attempt = true;
    retry.history.push(format!("{}, which began first: {response:?}", first.name));
    let is_complete = response.is_some_and(|response| check_late_response(&response, &retry));
    records.push(retry);
    Scenario { records, is_complete }
}

/// Asserts that a response to the first attempt is the outcome of the retry. Returns whether it is an outcome.
fn check_late_response(response: &LateResponse, retry: &CommandRecord) -> bool {
    match (response.status, &retry.outcome) {
        (422, Outcome::Rejected(code)) => {
            assert!(response.is_replay && response.body["code"] == **code, "{retry:?}");
            true
        }
        // The count of commands that were recorded after a rejection shows it, too.
        (200..300, Outcome::Rejected(_)) => true,
        (200..300, Outcome::Recorded(receipt)) => {
            assert!(response.is_replay && response.body == *receipt, "{retry:?}");
            true
        }
        (408 | 503, _) => false,
        _ => panic!("the late attempt gets another outcome: {retry:?}"),
    }
}

/// Makes the state refuse the command for a while.
struct Obstacle {
    begin: Command,
    end: Command,
    /// The code of the refusal.
    code: &'static str,
}

impl Case {
    fn late_command(self, key: String, account: Uuid, hold: Uuid) -> Command {
        match self {
            Withdrawal | WithdrawalWithinLimit => Command::withdrawal(key, account, AMOUNT),
            PlaceHold => Command::place_hold(key, account, AMOUNT, HOLD_S),
            Capture => Command::capture(key, account, hold, json!({})),
            RepeatedCapture => Command::capture(key, account, hold, json!({"amount": AMOUNT / 4, "final": false})),
            Reversal => Command::reversal(key, account, 1, None),
            RepeatedReversal => Command::reversal(key, account, 1, Some(AMOUNT / 4)),
            Batch => {
                let deposit = Command::deposit(format!("{key}-0"), account, 1);
                Command::atomic(
                    key.clone(),
                    vec![deposit, Command::withdrawal(format!("{key}-1"), account, AMOUNT + 1)],
                )
            }
            RepeatedBatch => {
                let deposit = Command::deposit(format!("{key}-0"), account, AMOUNT);
                Command::atomic(
                    key.clone(),
                    vec![deposit, Command::withdrawal(format!("{key}-1"), account, AMOUNT / 2)],
                )
            }
        }
    }

    fn obstacle(self, name: &str, account: Uuid) -> Option<Obstacle> {
        let [begin, end] = ["begin", "end"].map(|step| format!("{name}-{step}"));
        match self {
            Withdrawal | PlaceHold | Reversal | Batch => Some(Obstacle {
                begin: Command::withdrawal(begin, account, AMOUNT),
                end: Command::deposit(end, account, AMOUNT),
                code: "insufficient_funds",
            }),
            Capture => Some(Obstacle {
                begin: Command::freeze(begin, account),
                end: Command::unfreeze(end, account),
                code: "account_frozen",
            }),
            WithdrawalWithinLimit => Some(Obstacle {
                begin: Command::set_limits(begin, account, json!({"out_per_day": AMOUNT - 1})),
                end: Command::set_limits(end, account, json!({"out_per_day": AMOUNT})),
                code: "limit_exceeded",
            }),
            RepeatedCapture | RepeatedReversal | RepeatedBatch => None,
        }
    }
}

fn hold_of(placed: &CommandRecord) -> Uuid {
    let Outcome::Recorded(receipt) = &placed.outcome else { panic!("the hold is not placed: {placed:?}") };
    receipt["hold"]["hold_id"].as_str().unwrap().parse().unwrap()
}
