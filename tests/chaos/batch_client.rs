//! Sends commands of which each is executed by itself in one request, as a JSON batch or as lines of JSON, and repeats the request until
//! the outcome of every command is definite.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use passbook_testkit::Rng;
use reqwest::{Body, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    client::{Attempt, CONVERGENCE_S_MAX, Client, CommandRecord, Outcome, classify_body, comparable},
    command::Command,
};

/// The longest pause between two lines of a request.
const LINE_PAUSE_MS_MAX: u64 = 60;

/// How the commands are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Json,
    /// One command a line, sent while results arrive.
    Lines,
}

impl Client {
    /// Sends commands under the request id `name` until the outcome of each is definite. Every attempt sends all commands, each with its
    /// key. Outcomes that are definite already must be replayed.
    pub async fn send_each_until_definite(
        &mut self,
        name: &str,
        form: Form,
        commands: Vec<Command>,
    ) -> Vec<CommandRecord> {
        let mut records: Vec<CommandRecord> = commands
            .into_iter()
            .map(|command| Self::unsent(Command { request: Some(name.to_owned()), ..command }))
            .collect();
        let mut is_definite = vec![false; records.len()];
        let started = Instant::now();
        while !is_definite.iter().all(|is_definite| *is_definite) {
            assert!(started.elapsed() < Duration::from_secs(CONVERGENCE_S_MAX), "no definite outcome: {records:?}");
            let attempts = self.attempt_each(name, form, &records).await;
            for ((record, is_definite), attempt) in records.iter_mut().zip(&mut is_definite).zip(attempts) {
                *is_definite |= record.note(attempt, *is_definite, form);
            }
            sleep(self.rng.millis(20, 400)).await;
        }
        records
    }

    /// Sends the commands once. The result has one element for each command.
    async fn attempt_each(&mut self, name: &str, form: Form, records: &[CommandRecord]) -> Vec<Attempt> {
        let instance = self.pick_instance();
        let base_url = self.balancer_url.clone().unwrap_or_else(|| instance.base_url());
        let request = self.http.post(format!("{base_url}/v1/batches")).header("x-request-id", name);
        let sent = match form {
            Form::Json => request.json(&json!({"mode": "each", "commands": items(records)})).send().await,
            Form::Lines => with_lines(request, items(records), self.rng.fork()).send().await,
        };
        let results = match sent {
            Ok(response) if response.status() == StatusCode::OK => match form {
                Form::Json => results_of_json(response).await,
                Form::Lines => results_of_lines(response).await,
            },
            Ok(response) => return refused(response, records).await,
            Err(error) if error.is_connect() => {
                return all(records, || Attempt::NotExecuted("connection refused".to_owned()));
            }
            Err(error) => return all(records, || Attempt::Unknown(error.to_string())),
        };
        let attempt = |(number, record): (usize, &CommandRecord)| match results.get(number) {
            Some(result) => attempt_of(result, &record.command),
            None => Attempt::Unknown(format!("{} results of {}", results.len(), records.len())),
        };
        records.iter().enumerate().map(attempt).collect()
    }
}

impl CommandRecord {
    /// Notes the result of an attempt, and returns whether it is definite. `was_definite`: an earlier attempt had a definite outcome.
    fn note(&mut self, attempt: Attempt, was_definite: bool, form: Form) -> bool {
        self.attempts += 1;
        match attempt {
            Attempt::Definite(outcome, is_replay) if was_definite => {
                assert!(is_replay, "executed twice: {self:?}");
                assert_eq!(comparable(outcome), comparable(self.outcome.clone()), "another outcome: {self:?}");
                self.is_replayed = true;
                true
            }
            Attempt::Definite(outcome, is_replay) => {
                assert!(self.had_unknown_attempt || !is_replay, "replayed, but never recorded: {self:?}");
                self.history.push(format!("{form:?}: definite"));
                self.outcome = outcome;
                true
            }
            Attempt::NotExecuted(reason) => {
                self.history.push(format!("{form:?}: {reason}"));
                false
            }
            Attempt::Unknown(reason) => {
                self.had_unknown_attempt = true;
                self.history.push(format!("{form:?}: unknown, {reason}"));
                false
            }
        }
    }
}

fn items(records: &[CommandRecord]) -> Vec<Value> {
    let item = |record: &CommandRecord| {
        let mut item = record.command.as_item();
        item["idempotency_key"] = json!(record.command.key);
        item
    };
    records.iter().map(item).collect()
}

/// A request whose lines are sent with pauses.
fn with_lines(request: RequestBuilder, items: Vec<Value>, rng: Rng) -> RequestBuilder {
    let lines = stream::unfold((items.into_iter(), rng), |(mut items, mut rng)| async move {
        let line = format!("{}\n", items.next()?);
        sleep(rng.millis(0, LINE_PAUSE_MS_MAX)).await;
        Some((Ok::<_, Infallible>(Frame::data(Bytes::from(line))), (items, rng)))
    });
    request.header("content-type", "application/x-ndjson").body(Body::wrap(StreamBody::new(Box::pin(lines))))
}

/// The results of a JSON batch; none if the response is incomplete.
async fn results_of_json(response: Response) -> Vec<Value> {
    let body: Option<Value> = response.json().await.ok();
    body.and_then(|body| body["results"].as_array().cloned()).unwrap_or_default()
}

/// The results that arrived as complete lines.
async fn results_of_lines(mut response: Response) -> Vec<Value> {
    let mut text = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        text.extend(chunk);
    }
    let complete = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    let results: Vec<Value> = std::str::from_utf8(&text[..complete])
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(results.iter().zip(0..).all(|(result, index)| result["index"] == index), "results in order: {results:?}");
    results
}

fn attempt_of(result: &Value, command: &Command) -> Attempt {
    let status = StatusCode::from_u16(result["status"].as_u64().unwrap().try_into().unwrap()).unwrap();
    let body = result.get("receipt").or(result.get("problem")).unwrap();
    classify_body(status, result["replayed"] == true, body.clone(), command)
}

/// The results if the whole request is refused.
async fn refused(response: Response, records: &[CommandRecord]) -> Vec<Attempt> {
    let status = response.status();
    let body: Value = match response.json().await {
        Ok(body) => body,
        Err(error) => return all(records, || Attempt::Unknown(error.to_string())),
    };
    records
        .iter()
        .map(|record| match classify_body(status, false, body.clone(), &record.command) {
            Attempt::Definite(Outcome::Recorded(_) | Outcome::Rejected(_) | Outcome::Unknown, _) => {
                panic!("the whole request gets the outcome of a command: {status}: {body}")
            }
            attempt @ (Attempt::NotExecuted(_) | Attempt::Unknown(_)) => attempt,
        })
        .collect()
}

fn all(records: &[CommandRecord], attempt: impl Fn() -> Attempt) -> Vec<Attempt> {
    records.iter().map(|_| attempt()).collect()
}
