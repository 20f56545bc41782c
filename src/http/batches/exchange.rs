//! Answers the lines of a request in order while further ones arrive.

use std::{collections::VecDeque, mem, sync::Arc, time::Duration};

use axum::{body::Bytes, http::HeaderMap};
use futures_util::FutureExt;
use tokio::{
    select,
    time::{Instant, timeout},
};

use super::{
    Batch,
    intake::{Intake, Slot},
    lines::Lines,
    result::CommandResult,
};

/// The most lines without a sent result. Further ones are read when the client has read results.
const LINES_IN_FLIGHT_MAX: usize = 512;
/// Results of this size are sent before further ones are awaited.
const OUTPUT_BYTES: usize = 16 * 1024;
/// How long a request whose answer has ended early is still read, so that the client gets the last results, in milliseconds.
const LINGER_MS_MAX: u64 = 1_000;

/// The lines of one request, and their results.
pub struct Exchange {
    intake: Intake,
    results: Results,
    phase: Phase,
    started: Instant,
}

/// The results in the order of the lines.
struct Results {
    batch: Arc<Batch>,
    slots: VecDeque<Slot>,
    /// Results that are not sent yet.
    output: Vec<u8>,
    /// The number of results.
    count: u64,
    /// The number of those that are no success.
    failed: u64,
    /// Whether a failure ended the answer: the command of a later line may have been executed.
    is_broken: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Running,
    /// The answer has ended, and the client may still be sending.
    Lingering,
    Ended,
}

impl Exchange {
    /// Answers `lines` of a request with these headers.
    pub fn new(batch: Batch, headers: &HeaderMap, lines: Lines) -> Self {
        let batch = Arc::new(batch);
        let results = Results {
            batch: Arc::clone(&batch),
            slots: VecDeque::new(),
            output: Vec::new(),
            count: 0,
            failed: 0,
            is_broken: false,
        };
        Self { intake: Intake::new(batch, headers, lines), results, phase: Phase::Running, started: Instant::now() }
    }

    /// The next results, as lines; `None` after the last one.
    pub async fn next_results(&mut self) -> Option<Bytes> {
        loop {
            match self.phase {
                Phase::Running => {}
                Phase::Lingering => {
                    // The time is over, or the client has read the answer and closed the connection.
                    let _ = timeout(Duration::from_millis(LINGER_MS_MAX), self.intake.discard()).await;
                    self.phase = Phase::Ended;
                    return None;
                }
                Phase::Ended => return None,
            }
            self.results.take_ready();
            if self.results.is_broken || self.intake.is_broken() && self.results.slots.is_empty() {
                self.phase = Phase::Lingering;
            } else if self.results.slots.is_empty() && self.intake.has_ended() {
                self.phase = Phase::Ended;
            }
            if !self.results.output.is_empty() {
                return Some(self.results.take_output());
            }
            if self.phase == Phase::Running {
                self.advance().await;
            }
        }
    }

    /// Waits for the next result or the next line.
    async fn advance(&mut self) {
        let Self { intake, results, .. } = self;
        let has_space = results.slots.len() < LINES_IN_FLIGHT_MAX;
        select! {
            biased;
            () = results.wait_for_first(), if !results.slots.is_empty() => {}
            slot = intake.next(), if has_space && !intake.has_ended() => results.slots.extend(slot),
        }
    }
}

impl Results {
    /// Writes the results at the front that are known, as far as they fit into one output.
    fn take_ready(&mut self) {
        while self.output.len() < OUTPUT_BYTES && !self.is_broken {
            match self.slots.pop_front() {
                None => return,
                Some(Slot::Done(result)) => self.write(&result),
                Some(Slot::InFlight(target, mut outcome)) => match (&mut outcome).now_or_never() {
                    Some(outcome) => self.write(&CommandResult::of(target, outcome)),
                    None => return self.slots.push_front(Slot::InFlight(target, outcome)),
                },
            }
        }
    }

    /// Waits until the result at the front is known. Dropping the future loses nothing.
    async fn wait_for_first(&mut self) {
        if let Some(first) = self.slots.front_mut()
            && let Slot::InFlight(target, outcome) = first
        {
            let outcome = outcome.await;
            *first = Slot::Done(CommandResult::of(*target, outcome));
        }
    }

    fn write(&mut self, result: &CommandResult) {
        let body = self.batch.result(result, Some(self.count));
        // A result is always JSON, and a Vec takes every byte.
        let _ = serde_json::to_writer(&mut self.output, &body);
        self.output.push(b'\n');
        self.count += 1;
        self.failed += u64::from(result.problem().is_some());
        self.is_broken = result.status() >= 500;
    }

    fn take_output(&mut self) -> Bytes {
        mem::take(&mut self.output).into()
    }
}

impl Drop for Exchange {
    /// Logs the end, which the log line of the request precedes.
    fn drop(&mut self) {
        let request_id = &*self.results.batch.problems.id;
        let (commands, results, failed) = (self.intake.count, self.results.count, self.results.failed);
        let is_complete = self.phase == Phase::Ended && !self.results.is_broken && !self.intake.is_broken();
        let duration_ms = self.started.elapsed().as_micros() as f64 / 1_000.0;
        tracing::info!(request_id, commands, results, failed, is_complete, duration_ms, "batch stream ended");
    }
}
