//! Takes the lines of a request at the caller's rate, and submits their commands.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use axum::http::HeaderMap;
use futures_util::FutureExt;
use tokio::{
    select,
    task::coop::consume_budget,
    time::{Instant, sleep, timeout_at},
};

use super::{
    Batch,
    item::{ItemError, parse_item},
    lines::{LINE_BYTES_MAX, Line, Lines},
    result::CommandResult,
};
use crate::http::{
    commands::{Target, ValidCommand},
    error_code::ErrorCode,
    extract::caller::{bearer_token, end_of_authority, invalid_token},
    problem::Problem,
};
use passbook_bank::{CommandStream, PendingOutcome};

/// A line whose result is known or awaited.
#[derive(Debug)]
pub enum Slot {
    /// The result.
    Done(CommandResult),
    /// The command is being executed.
    InFlight(Target, PendingOutcome),
}

/// Reads lines and submits their commands, one after the other.
pub struct Intake {
    batch: Arc<Batch>,
    lines: Lines,
    /// Where commands are submitted; `None` while one is.
    commands: Option<CommandStream>,
    submission: Option<Submission>,
    /// A line that waits until the caller's rate allows it.
    line: Option<Line>,
    /// When the next line must have arrived; `None` if it is not awaited.
    deadline: Option<Instant>,
    /// Whether the next line is already taken from the caller's bucket: the first one counts as the request.
    is_taken: bool,
    authority: Authority,
    has_ended: bool,
    is_broken: bool,
    /// The number of lines.
    pub count: u64,
}

/// A command that waits for a place in its queue.
struct Submission {
    target: Target,
    submitted: Pin<Box<dyn Future<Output = (CommandStream, PendingOutcome)> + Send>>,
}

/// What came instead of a further line, or the line.
enum Received {
    Line(Line),
    End,
    /// The rest of the lines is not read.
    Broken(Problem),
}

/// Whether the caller's token is still accepted.
struct Authority {
    expires_at: Option<Instant>,
    end: Pin<Box<dyn Future<Output = ()> + Send>>,
    has_ended: bool,
}

impl Intake {
    /// Reads `lines` of a request with these headers.
    pub fn new(batch: Arc<Batch>, headers: &HeaderMap, lines: Lines) -> Self {
        Self {
            commands: Some(batch.app.bank.command_stream()),
            authority: Authority::of(&batch, headers),
            batch,
            lines,
            submission: None,
            line: None,
            deadline: None,
            is_taken: true,
            has_ended: false,
            is_broken: false,
            count: 0,
        }
    }

    /// The slot of the next line; `None` after the last one. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Slot> {
        loop {
            if let Some(Submission { target, submitted }) = &mut self.submission {
                let (target, (commands, outcome)) = (*target, submitted.await);
                (self.submission, self.commands) = (None, Some(commands));
                return Some(Slot::InFlight(target, outcome));
            }
            if self.line.is_none() {
                match self.receive().await? {
                    Received::Line(line) => self.line = Some(line),
                    Received::End => return None,
                    Received::Broken(problem) => return Some(Slot::Done(CommandResult::Failed(problem))),
                }
                self.count += 1;
            }
            if !self.wait_for_rate().await {
                (self.line, self.has_ended, self.is_broken) = (None, true, true);
                return Some(Slot::Done(CommandResult::Failed(shutting_down())));
            }
            let (line, commands) = self.line.take().zip(self.commands.take())?;
            match self.prepare(line) {
                Err(problem) => {
                    self.commands = Some(commands);
                    return Some(Slot::Done(CommandResult::Failed(problem)));
                }
                Ok(command) => self.submit(command, commands),
            }
        }
    }

    /// Whether no further line is read.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Whether the client may still be sending lines that are not read.
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Reads the rest of the request and drops it.
    pub async fn discard(&mut self) {
        self.lines.discard().await;
    }

    /// The next line, or why there is none; `None` after that.
    async fn receive(&mut self) -> Option<Received> {
        if self.has_ended {
            return None;
        }
        let received = self.receive_within_limit().await;
        self.deadline = None;
        self.has_ended = !matches!(received, Received::Line(_));
        self.is_broken = matches!(received, Received::Broken(_));
        Some(received)
    }

    /// Waits for a line. An empty one starts the time for the next one.
    async fn receive_within_limit(&mut self) -> Received {
        let app = &self.batch.app;
        loop {
            // Lines that reach no executor would keep the thread from other requests.
            consume_budget().await;
            // Most lines arrive together with others.
            match self.lines.buffered() {
                Some(Line::Empty) => {
                    self.deadline = None;
                    continue;
                }
                Some(line) => return Received::Line(line),
                None => {}
            }
            let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + app.idle_timeout);
            let line = select! {
                biased;
                () = app.shutdown.cancelled() => return Received::Broken(shutting_down()),
                line = timeout_at(deadline, self.lines.next()) => line,
            };
            match line {
                Ok(Some(Line::Empty)) => self.deadline = None,
                Ok(Some(line)) => return Received::Line(line),
                Ok(None) => return Received::End,
                Err(_) => return Received::Broken(idle(app.idle_timeout)),
            }
        }
    }

    /// Takes a line from the caller's bucket. It waits until the bucket has one, and returns `false` if shutdown begins before.
    async fn wait_for_rate(&mut self) -> bool {
        let app = &self.batch.app;
        let bucket = app.rate_limiter.as_ref().zip(self.batch.client_key()).filter(|_| !self.is_taken);
        if let Some((limiter, key)) = bucket {
            while let Err(wait) = limiter.take(&key) {
                select! {
                    () = app.shutdown.cancelled() => return false,
                    () = sleep(wait) => {}
                }
            }
        }
        self.is_taken = true;
        true
    }

    /// The command of a line.
    fn prepare(&mut self, line: Line) -> Result<ValidCommand, Problem> {
        self.is_taken = false;
        self.authority.require()?;
        match line {
            Line::Text(json) => {
                let item = parse_item(&json).map_err(ItemError::into_problem)?;
                self.batch.validate(item)
            }
            Line::TooLong => {
                let detail = format!("A line must have at most {LINE_BYTES_MAX} bytes.");
                Err(Problem::new(ErrorCode::PayloadTooLarge, detail))
            }
            Line::Incomplete | Line::Empty => {
                let detail = "The line did not arrive completely, and was not executed.";
                Err(Problem::new(ErrorCode::MalformedRequest, detail))
            }
        }
    }

    fn submit(&mut self, ValidCommand { command, target }: ValidCommand, mut commands: CommandStream) {
        let submitted = Box::pin(async move {
            let outcome = commands.submit(command).await;
            (commands, outcome)
        });
        self.submission = Some(Submission { target, submitted });
    }
}

impl Authority {
    fn of(batch: &Batch, headers: &HeaderMap) -> Self {
        let token = bearer_token(headers).ok().map(str::to_owned);
        let expires_at = batch.caller.expires_in().and_then(|remaining| Instant::now().checked_add(remaining));
        let end = end_of_authority(batch.app.clone(), batch.caller.clone(), token).map(drop);
        Self { expires_at, end: Box::pin(end), has_ended: false }
    }

    /// Rejects a caller whose token has expired or was withdrawn. Each line polls the end, so that it needs no task. Between two lines
    /// the end holds no lock that others wait for.
    fn require(&mut self) -> Result<(), Problem> {
        let Some(expires_at) = self.expires_at else { return Ok(()) };
        self.has_ended = self.has_ended || Instant::now() >= expires_at || self.end.as_mut().now_or_never().is_some();
        match self.has_ended {
            true => Err(invalid_token(
                "The access token is no longer accepted. Send the line again with a new one.".to_owned(),
            )),
            false => Ok(()),
        }
    }
}

fn idle(limit: Duration) -> Problem {
    let limit_ms = limit.as_millis();
    let detail = format!("No line arrived within {limit_ms} ms. Send an empty line to keep an idle request open.");
    Problem::new(ErrorCode::RequestTimeout, detail)
}

fn shutting_down() -> Problem {
    let detail = "This instance is shutting down. Send the lines without a result again, with the same keys.";
    Problem::new(ErrorCode::Overloaded, detail)
}
