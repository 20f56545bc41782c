//! A client that sends each command to a random instance and retries it under its key until the outcome is definite.

use std::{sync::Arc, time::Duration};

use passbook_testkit::Rng;
use reqwest::{Response, StatusCode};
use serde_json::Value;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::{command::Command, instance::Instance, settings::Settings};

/// The request timeout. Longer than an instance stays frozen plus the time that a command may wait in its queue.
const RESPONSE_S_MAX: u64 = 25;
/// The test fails if a command has no definite outcome after this time.
pub const CONVERGENCE_S_MAX: u64 = 180;

/// A command with its outcome and its attempts.
#[derive(Clone, Debug)]
pub struct CommandRecord {
    pub command: Command,
    pub outcome: Outcome,
    pub attempts: u64,
    /// Whether the outcome of an attempt before the last one is unknown.
    pub had_unknown_attempt: bool,
    /// The name of the instance that answered a command of its own request, and when.
    pub answered: Option<(&'static str, Instant)>,
    /// Whether the command was sent once more after its outcome, and got a replay.
    pub is_replayed: bool,
    /// The result of each attempt, for failure messages.
    pub history: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The command was recorded; holds the receipt.
    Recorded(Value),
    /// The command was rejected; holds the problem's code.
    Rejected(String),
    /// The outcome is unknown, and a command without a key cannot be retried.
    Unknown,
}

/// The result of one attempt.
pub enum Attempt {
    /// A definite outcome, and whether the response is a replay.
    Definite(Outcome, bool),
    /// The command was not executed, for this reason.
    NotExecuted(String),
    /// The command may have been executed, for this reason.
    Unknown(String),
}

#[derive(Clone)]
pub struct Client {
    pub instances: Vec<Arc<Instance>>,
    /// The load balancer's URL. If set, commands go there instead of directly to an instance.
    pub balancer_url: Option<Arc<str>>,
    pub http: reqwest::Client,
    pub rng: Rng,
}

impl Client {
    pub fn new(instances: &[Arc<Instance>], rng: Rng) -> Self {
        let http = passbook_testkit::http_client().timeout(Duration::from_secs(RESPONSE_S_MAX)).build().unwrap();
        Self { instances: instances.to_vec(), balancer_url: None, http, rng }
    }

    /// Sends `command` until its outcome is definite.
    pub async fn send_until_definite(&mut self, command: Command) -> CommandRecord {
        let mut record = Self::unsent(command);
        self.resume(&mut record).await;
        record
    }

    /// A record of a command that was not sent.
    pub fn unsent(command: Command) -> CommandRecord {
        let outcome = Outcome::Rejected("not sent yet".to_owned());
        CommandRecord {
            command,
            outcome,
            attempts: 0,
            had_unknown_attempt: false,
            answered: None,
            is_replayed: false,
            history: vec![],
        }
    }

    /// Sends a command until its outcome is definite. Does not retry a command without a key after an attempt that may have
    /// succeeded.
    async fn resume(&mut self, record: &mut CommandRecord) {
        let started = Instant::now();
        loop {
            let instance = self.pick_instance();
            record.attempts += 1;
            let (attempt, name) = (self.attempt(&instance, &record.command).await, instance.name);
            match attempt {
                Attempt::Definite(outcome, is_replay) => {
                    assert!(
                        record.had_unknown_attempt || !is_replay,
                        "{name} replays {record:?}, but no earlier attempt can have recorded it"
                    );
                    record.history.push(format!("{name}: definite"));
                    record.answered = Some((name, Instant::now()));
                    record.outcome = outcome;
                    return;
                }
                Attempt::NotExecuted(reason) => record.history.push(format!("{name}: {reason}")),
                Attempt::Unknown(reason) => {
                    record.had_unknown_attempt = true;
                    record.history.push(format!("{name}: unknown, {reason}"));
                    if !record.command.is_keyed {
                        record.outcome = Outcome::Unknown;
                        return;
                    }
                }
            }
            assert!(started.elapsed() < Duration::from_secs(CONVERGENCE_S_MAX), "{record:?} has no definite outcome");
            sleep(self.rng.millis(20, 400)).await;
        }
    }

    pub fn pick_instance(&mut self) -> Arc<Instance> {
        let targets: Vec<_> = self.instances.iter().filter(|instance| instance.is_target()).cloned().collect();
        Arc::clone(self.rng.pick(&targets))
    }

    /// Sends a command with a definite outcome once more, and asserts that the response is a replay of the same receipt or rejection.
    pub async fn check_replay(&mut self, record: &mut CommandRecord) {
        if !record.command.is_keyed {
            return;
        }
        let instance = self.pick_instance();
        if let Attempt::Definite(outcome, is_replay) = self.attempt(&instance, &record.command).await {
            assert!(is_replay, "{record:?} was executed twice");
            let (replay, first) = (comparable(outcome), comparable(record.outcome.clone()));
            assert_eq!(replay, first, "the replay differs from the first response: {record:?}");
            record.is_replayed = true;
        }
    }

    async fn attempt(&self, instance: &Instance, command: &Command) -> Attempt {
        let base_url = self.balancer_url.clone().unwrap_or_else(|| instance.base_url());
        let mut request = self
            .http
            .request(command.method.clone(), format!("{base_url}{}", command.path))
            .header("x-request-id", &command.key)
            .json(&command.body);
        if command.is_keyed {
            request = request.header("idempotency-key", &command.key);
        }
        if let Some(version) = command.if_match {
            request = request.header("if-match", format!("\"{version}\""));
        }
        match request.send().await {
            Ok(response) => classify(response, command).await,
            Err(error) if error.is_connect() => Attempt::NotExecuted("connection refused".to_owned()),
            Err(error) => Attempt::Unknown(error.to_string()),
        }
    }
}

pub async fn classify(response: Response, command: &Command) -> Attempt {
    let status = response.status();
    let is_replay = response.headers().contains_key("idempotency-replayed");
    // An incomplete response says nothing about the outcome.
    let body: Value = match response.json().await {
        Ok(body) => body,
        Err(error) => return Attempt::Unknown(error.to_string()),
    };
    classify_body(status, is_replay, body, command)
}

/// The result of an attempt, from its status and its receipt or problem.
pub fn classify_body(status: StatusCode, is_replay: bool, body: Value, command: &Command) -> Attempt {
    let code = body["code"].as_str().unwrap_or_default().to_owned();
    match (status, code.as_str()) {
        (StatusCode::OK | StatusCode::CREATED, _) => Attempt::Definite(Outcome::Recorded(body), is_replay),
        (StatusCode::SERVICE_UNAVAILABLE, "storage_unavailable" | "overloaded" | "clock_skewed") => {
            Attempt::NotExecuted(code)
        }
        (StatusCode::SERVICE_UNAVAILABLE, "outcome_unknown") => Attempt::Unknown(code),
        (
            StatusCode::NOT_FOUND | StatusCode::PRECONDITION_FAILED | StatusCode::UNPROCESSABLE_ENTITY,
            "account_not_found"
            | "hold_not_found"
            | "transaction_not_found"
            | "version_mismatch"
            | "account_closed"
            | "account_frozen"
            | "account_not_frozen"
            | "hold_not_active"
            | "exceeds_hold"
            | "holds_active"
            | "too_many_holds"
            | "not_reversible"
            | "already_reversed"
            | "exceeds_reversible"
            | "insufficient_funds"
            | "balance_not_zero"
            | "limit_exceeded",
        ) => Attempt::Definite(Outcome::Rejected(code), is_replay),
        _ => panic!("unexpected response to {command:?}: {status}: {body}"),
    }
}

/// The outcome without what the previous release, if it takes part, leaves out of a receipt that it replays.
pub fn comparable(outcome: Outcome) -> Outcome {
    let Outcome::Recorded(mut receipt) = outcome else { return outcome };
    if Settings::read().previous.is_some() {
        for account in ["", "/from", "/to"] {
            receipt.pointer_mut(account).and_then(Value::as_object_mut).map(|account| account.remove("available"));
        }
    }
    Outcome::Recorded(receipt)
}

/// The receipts of the commands of a batch, or the only one.
pub fn receipts_of(receipt: &Value) -> Vec<&Value> {
    match receipt.get("results") {
        Some(results) => results.as_array().unwrap().iter().collect(),
        None => vec![receipt],
    }
}

/// The part of a receipt of one command for each account: two for a transfer, else one.
pub fn accounts_of(receipt: &Value) -> Vec<&Value> {
    match receipt.get("transfer_id") {
        Some(_) => vec![&receipt["from"], &receipt["to"]],
        None => vec![receipt],
    }
}

pub fn account_id(account: &Value) -> Uuid {
    account["account_id"].as_str().unwrap().parse().unwrap()
}
