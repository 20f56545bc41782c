//! Clients who send commands, each again and again under the same key and to whichever passbook, until the answer is
//! definite; and what they were told.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use reqwest::{Response, StatusCode};
use serde_json::Value;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use uuid::Uuid;

use crate::{
    command::{Accounts, Command},
    dice::Dice,
    instance::Instance,
    site::Site,
};

const CLIENTS: u64 = 20;
/// Longer than a passbook may stand still and a command may wait in it.
const ANSWER_S_MAX: u64 = 25;
/// After so long without a definite answer a command has not converged.
const PATIENCE_S_MAX: u64 = 180;

/// A command with its definite answer, and how it came to that.
#[derive(Clone, Debug)]
pub struct Told {
    pub command: Command,
    pub answer: Answer,
    pub attempts: u64,
    /// Some attempt before the last was left without an answer that says what became of it.
    pub was_in_doubt: bool,
    /// How each attempt was answered.
    pub history: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Recorded; the receipt.
    Recorded(Value),
    /// Refused; the code.
    Refused(String),
    /// Nobody knows, and without a key it cannot be sent again.
    Unknown,
}

/// One answer to one attempt.
enum Attempt {
    Definite(Answer, bool),
    /// Nothing was done.
    NotDone(String),
    /// Nobody knows.
    Unknown(String),
}

/// Somebody who sends commands to anybody of `everybody`.
#[derive(Clone)]
pub struct Client {
    pub everybody: Vec<Arc<Instance>>,
    /// Where commands are sent in place of them: to whoever shares them out.
    pub through: Option<Arc<str>>,
    pub http: reqwest::Client,
    pub dice: Dice,
}

/// Clients at work until they are told that it is over.
pub struct Crowd {
    over: Arc<AtomicBool>,
    clients: JoinSet<Vec<Told>>,
}

impl Crowd {
    pub fn at_work(site: &Site, accounts: &Arc<Accounts>, round: u64, dice: &mut Dice) -> Self {
        let everybody = site.everybody();
        let over = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let (accounts, over) = (Arc::clone(accounts), Arc::clone(&over));
            let mut client = Client::new(&everybody, dice.fork());
            client.through = site.balancer.as_ref().map(|balancer| Arc::clone(&balancer.url));
            clients.spawn(async move {
                let mut told = Vec::new();
                for turn in 0.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let command = accounts.command(&mut client.dice, format!("{round}-{number}-{turn}"));
                    let one = client.carry_through(command).await;
                    note(&accounts, &one);
                    if client.dice.chance(4) {
                        client.ask_again(&one).await;
                    }
                    told.push(one);
                    sleep(client.dice.millis(1, 40)).await;
                }
                told
            });
        }
        Self { over, clients }
    }

    /// Lets them finish what they are about, and tell.
    pub async fn told(self) -> Vec<Told> {
        self.over.store(true, Ordering::Relaxed);
        self.clients.join_all().await.concat()
    }
}

impl Client {
    pub fn new(everybody: &[Arc<Instance>], dice: Dice) -> Self {
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(ANSWER_S_MAX)).build().unwrap();
        Self { everybody: everybody.to_vec(), through: None, http, dice }
    }

    /// Sends `command` until its answer is definite.
    pub async fn carry_through(&mut self, command: Command) -> Told {
        let answer = Answer::Refused("not sent yet".to_owned());
        let mut told = Told { command, answer, attempts: 0, was_in_doubt: false, history: vec![] };
        self.carry_on(&mut told).await;
        told
    }

    /// Sends a command until its answer is definite, after whatever was tried before. Without a key it is not sent again
    /// after an attempt that may have succeeded.
    pub async fn carry_on(&mut self, told: &mut Told) {
        let started = Instant::now();
        loop {
            let to = self.somebody();
            told.attempts += 1;
            let (attempt, name) = (self.attempt(&to, &told.command).await, to.name);
            match attempt {
                Attempt::Definite(answer, is_replay) => {
                    assert!(told.was_in_doubt || !is_replay, "{told:?} was done when nothing was, says {name}");
                    told.history.push(format!("{name}: definite"));
                    told.answer = answer;
                    return;
                }
                Attempt::NotDone(why) => told.history.push(format!("{name}: {why}")),
                Attempt::Unknown(why) => {
                    told.was_in_doubt = true;
                    told.history.push(format!("{name}: unknown, {why}"));
                    if !told.command.is_keyed {
                        told.answer = Answer::Unknown;
                        return;
                    }
                }
            }
            assert!(started.elapsed() < Duration::from_secs(PATIENCE_S_MAX), "{told:?} has no definite answer");
            sleep(self.dice.millis(20, 400)).await;
        }
    }

    fn somebody(&mut self) -> Arc<Instance> {
        let expected: Vec<_> = self.everybody.iter().filter(|instance| instance.is_expected()).cloned().collect();
        Arc::clone(self.dice.pick(&expected))
    }

    /// What was recorded is answered alike when it is asked for again, and is not done again.
    async fn ask_again(&mut self, told: &Told) {
        if !(told.command.is_keyed && matches!(told.answer, Answer::Recorded(_))) {
            return;
        }
        let to = self.somebody();
        if let Attempt::Definite(again, is_replay) = self.attempt(&to, &told.command).await {
            assert!(is_replay, "{told:?} was carried out twice");
            assert_eq!(again, told.answer, "a retry is answered otherwise: {told:?}");
        }
    }

    async fn attempt(&self, to: &Instance, command: &Command) -> Attempt {
        let mut request = self
            .http
            .post(format!("{}{}", self.through.clone().unwrap_or_else(|| to.base()), command.path))
            .header("x-request-id", &command.key)
            .json(&command.body);
        if command.is_keyed {
            request = request.header("idempotency-key", &command.key);
        }
        if let Some(version) = command.if_match {
            request = request.header("if-match", format!("\"{version}\""));
        }
        match request.send().await {
            Ok(response) => read(response, command).await,
            Err(error) if error.is_connect() => Attempt::NotDone("not reached".to_owned()),
            Err(error) => Attempt::Unknown(error.to_string()),
        }
    }
}

async fn read(response: Response, command: &Command) -> Attempt {
    let status = response.status();
    let is_replay = response.headers().contains_key("idempotency-replayed");
    // An answer that broke off on its way is none.
    let body: Value = match response.json().await {
        Ok(body) => body,
        Err(error) => return Attempt::Unknown(error.to_string()),
    };
    let code = body["code"].as_str().unwrap_or_default().to_owned();
    match (status, code.as_str()) {
        (StatusCode::OK | StatusCode::CREATED, _) => Attempt::Definite(Answer::Recorded(body), is_replay),
        (StatusCode::SERVICE_UNAVAILABLE, "storage_unavailable" | "overloaded") => Attempt::NotDone(code),
        (StatusCode::SERVICE_UNAVAILABLE, "outcome_unknown") => Attempt::Unknown(code),
        (
            StatusCode::NOT_FOUND | StatusCode::PRECONDITION_FAILED | StatusCode::UNPROCESSABLE_ENTITY,
            "account_not_found" | "version_mismatch" | "account_closed" | "account_frozen" | "account_not_frozen"
            | "insufficient_funds" | "balance_not_zero",
        ) => Attempt::Definite(Answer::Refused(code), is_replay),
        _ => panic!("{command:?} was answered {status}: {body}"),
    }
}

/// Every account that a receipt speaks of.
pub fn accounts_of(receipt: &Value) -> Vec<&Value> {
    match receipt.get("transfer_id") {
        Some(_) => vec![&receipt["from"], &receipt["to"]],
        None => vec![receipt],
    }
}

pub fn id_of(account: &Value) -> Uuid {
    account["account_id"].as_str().unwrap().parse().unwrap()
}

fn note(accounts: &Accounts, told: &Told) {
    match &told.answer {
        Answer::Recorded(receipt) => {
            for account in accounts_of(receipt) {
                accounts.note(id_of(account), account["version"].as_i64().unwrap(), account["status"] == "closed");
            }
        }
        Answer::Refused(code) if code == "account_closed" && told.command.accounts.len() == 1 => {
            accounts.note(told.command.accounts[0], 0, true);
        }
        Answer::Refused(_) | Answer::Unknown => {}
    }
}
