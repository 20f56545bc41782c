//! The import: sends lines, reads results, and continues with another request after an interruption.

use std::time::Duration;

use bytes::Bytes;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    endpoint::Endpoint,
    error::Error,
    input::{Block, Input},
    refusal_file::RefusalFile,
    result_reader::{End, ItemResult, receive},
    retry::RetryPolicy,
    summary::{Event, Summary},
    window::Window,
};

/// The number of batches of results that wait.
const RESULT_BATCHES_MAX: usize = 4;
/// How long the import waits for the end of an answer that is complete.
const ANSWER_END_MS_MAX: u64 = 1_000;

/// An import of one input.
pub struct Import {
    endpoint: Endpoint,
    input: Input,
    refusal_file: Option<RefusalFile>,
    policy: RetryPolicy,
    window: Window,
    /// Set when all lines that can be read are in the window or done.
    input_end: Option<Result<(), Error>>,
    /// Whether the service has ever accepted a connection.
    is_reached: bool,
    summary: Summary,
}

/// How an attempt ended, if it did not end the import.
enum Attempt {
    /// Every line has its result.
    Done,
    /// Some lines have no result.
    Interrupted { reason: String, retry_after: Option<Duration> },
    /// The service does not accept the token.
    Unauthenticated(String),
}

/// A request that is being sent, and its answer.
struct Exchange {
    /// Whether the answer has begun. Until then only one line is sent. A proxy that cannot pass on both directions at once never lets
    /// it begin, or drops a part of what is sent then: two lines could become one (Go's HTTP/1 server does that).
    has_begun: bool,
    /// Whether the service reads more of the request.
    takes_more: bool,
    /// The index of the next result.
    next_index: u64,
    /// When the wait for the next result began.
    heard_at: Instant,
}

impl Import {
    /// Prepares an import.
    pub fn new(endpoint: Endpoint, input: Input, refusal_file: Option<RefusalFile>, policy: RetryPolicy) -> Self {
        Self {
            endpoint,
            input,
            refusal_file,
            policy,
            window: Window::default(),
            input_end: None,
            is_reached: false,
            summary: Summary::default(),
        }
    }

    /// The number of bytes of the file, if it is one.
    pub fn length(&self) -> Option<u64> {
        self.input.length()
    }

    /// The results so far, also after an error.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Sends every line until it has its result. Calls `on_event` for progress and interruptions.
    ///
    /// # Errors
    /// The import cannot continue. Lines that can be read have their results if the input is the reason.
    pub async fn run(&mut self, mut on_event: impl FnMut(Event<'_>)) -> Result<(), Error> {
        let outcome = self.send_all(&mut on_event).await;
        let flushed = self.refusal_file.as_mut().map_or(Ok(()), RefusalFile::flush);
        outcome.and(flushed)
    }

    async fn send_all(&mut self, on_event: &mut impl FnMut(Event<'_>)) -> Result<(), Error> {
        let mut attempts = 0;
        while self.wait_for_lines().await {
            let before = self.summary.commands();
            let (reason, retry_after) = match self.exchange(on_event).await? {
                Attempt::Done => break,
                Attempt::Interrupted { reason, retry_after } => (reason, retry_after),
                Attempt::Unauthenticated(reason) if self.endpoint.is_token_renewed()? => (reason, None),
                Attempt::Unauthenticated(reason) => {
                    return Err(Error::TokenRejected { line: self.next_line(), reason });
                }
            };
            if self.summary.commands() > before {
                attempts = 0;
            }
            // A service may end a request that waits for input; then no line is concerned.
            if self.window.is_empty() {
                continue;
            }
            attempts += 1;
            if attempts >= self.policy.attempts_max {
                return Err(Error::GivenUp { attempts, line: self.next_line(), reason });
            }
            self.summary.retries += 1;
            let wait = self.policy.wait(attempts, retry_after);
            on_event(Event::Retry { reason: &reason, attempts, wait });
            sleep(wait).await;
        }
        self.input_end.take().unwrap_or(Ok(()))
    }

    /// The number of the first line without a result.
    fn next_line(&self) -> u64 {
        self.window.first_number().unwrap_or_default()
    }

    /// Waits until a line has no result. Returns `false` if all have one.
    async fn wait_for_lines(&mut self) -> bool {
        while self.window.is_empty() && self.input_end.is_none() {
            let block = self.input.next().await;
            self.read_block(block);
        }
        !self.window.is_empty()
    }

    fn read_block(&mut self, block: Option<Block>) {
        match block {
            Some(Ok(lines)) => self.window.push(lines),
            // The lines before the error are finished first.
            Some(Err(error)) => self.input_end = Some(Err(error)),
            None => self.input_end = Some(Ok(())),
        }
    }

    /// Sends one request, with all lines that have no result, and reads its results at the same time.
    async fn exchange(&mut self, on_event: &mut impl FnMut(Event<'_>)) -> Result<Attempt, Error> {
        let (request, body) = self.endpoint.request()?;
        let mut body = Some(body);
        let (sender, mut results) = mpsc::channel(RESULT_BATCHES_MAX);
        // Dropped at the end of this function, which closes the connection.
        let mut receiver = AbortOnDropHandle::new(tokio::spawn(receive(request, sender)));
        let mut exchange = Exchange { has_begun: false, takes_more: true, next_index: 0, heard_at: Instant::now() };
        self.window.rewind();
        loop {
            if self.has_sent_all() {
                body = None;
                if self.window.is_empty() {
                    let _ = timeout(Duration::from_millis(ANSWER_END_MS_MAX), &mut receiver).await;
                    return Ok(Attempt::Done);
                }
            }
            let is_waiting = !self.window.is_empty();
            let (can_send, can_read) = (self.can_send(&exchange), self.can_read());
            tokio::select! {
                batch = results.recv() => match batch {
                    Some(batch) => {
                        if let Some(attempt) = self.record_batch(&batch, &mut exchange, on_event)? {
                            return Ok(attempt);
                        }
                    }
                    None => return self.interpret((&mut receiver).await.map_err(|error| Error::Protocol(error.to_string()))?),
                },
                permit = reserve(body.as_ref()), if can_send => match permit {
                    Some(permit) => permit.send(self.window.next_piece(exchange.has_begun)),
                    // The service reads no more; the answer says why.
                    None => exchange.takes_more = false,
                },
                block = self.input.next(), if can_read => {
                    if !is_waiting {
                        exchange.heard_at = Instant::now();
                    }
                    self.read_block(block);
                }
                () = sleep_until(exchange.heard_at + self.policy.result_wait_max), if is_waiting => {
                    return Ok(Attempt::Interrupted { reason: self.no_result(), retry_after: None });
                }
            }
        }
    }

    /// Whether every line of the input is sent or done, so that the request ends.
    fn has_sent_all(&self) -> bool {
        self.input_end.is_some() && !self.window.has_unsent()
    }

    fn can_send(&self, exchange: &Exchange) -> bool {
        exchange.takes_more && self.window.has_unsent() && (exchange.has_begun || !self.window.has_sent())
    }

    fn can_read(&self) -> bool {
        self.input_end.is_none() && !self.window.has_unsent() && !self.window.is_full()
    }

    fn no_result(&self) -> String {
        format!(
            "no result for {} s; a proxy in front of the service must not buffer requests and answers",
            self.policy.result_wait_max.as_secs()
        )
    }

    /// Counts results that arrived together. Returns how the attempt ends, if one of them ends it.
    fn record_batch(
        &mut self,
        batch: &[ItemResult],
        exchange: &mut Exchange,
        on_event: &mut impl FnMut(Event<'_>),
    ) -> Result<Option<Attempt>, Error> {
        (exchange.heard_at, exchange.has_begun, self.is_reached) = (Instant::now(), true, true);
        let mut ended = None;
        for result in batch {
            ended = self.record(result, exchange.next_index)?;
            if ended.is_some() {
                break;
            }
            exchange.next_index += 1;
        }
        if !batch.is_empty() {
            on_event(Event::Progress { commands: self.summary.commands(), bytes_read: self.input.bytes_read() });
        }
        Ok(ended)
    }

    /// Counts a result. Returns how the attempt ends, if this result ends it.
    fn record(&mut self, result: &ItemResult, expected_index: u64) -> Result<Option<Attempt>, Error> {
        if result.index != expected_index {
            let message = format!("the result of command {} arrived instead of {expected_index}", result.index);
            return Err(Error::Protocol(message));
        }
        if result.status == 401 {
            return Ok(Some(Attempt::Unauthenticated(result.reason())));
        }
        // The service ended the answer. With 408 it waited too long for a line, so this line may not have been sent.
        if result.status == 408 || result.status >= 500 {
            let reason = format!("line {} was answered with {}", self.next_line(), result.reason());
            return Ok(Some(Attempt::Interrupted { reason, retry_after: None }));
        }
        let line = self.window.complete();
        let line =
            line.ok_or_else(|| Error::Protocol("a result arrived for a command that was not sent".to_owned()))?;
        match (200..300).contains(&result.status) {
            true if result.replayed => self.summary.replayed += 1,
            true => self.summary.executed += 1,
            false => {
                self.summary.count_refusal(result.code(), line.number);
                if let Some(file) = &mut self.refusal_file {
                    file.write(&line, result)?;
                }
            }
        }
        Ok(None)
    }

    /// Decides what follows from the end of a request whose results are all recorded.
    fn interpret(&mut self, end: End) -> Result<Attempt, Error> {
        let interrupted = |reason, retry_after| Ok(Attempt::Interrupted { reason, retry_after });
        match end {
            // A wrong URL ends the import at once. A service that was reached before may be restarting.
            End::Unreachable(reason) if !self.is_reached => {
                Err(Error::Unreachable { url: self.endpoint.base_url(), reason })
            }
            End::Unreachable(reason) => interrupted(format!("the service cannot be reached: {reason}"), None),
            End::Interrupted { reason, retry_after } => {
                self.is_reached = true;
                interrupted(reason, retry_after)
            }
            End::Complete => {
                self.is_reached = true;
                interrupted(format!("the answer ended before line {}", self.next_line()), None)
            }
            End::Unauthenticated(reason) => Ok(Attempt::Unauthenticated(reason)),
            End::Refused(reason) => Err(Error::Refused(reason)),
            End::Protocol(reason) => Err(Error::Protocol(reason)),
        }
    }
}

/// Waits until the connection takes another piece of the request. `None`: it takes none any more.
async fn reserve(body: Option<&mpsc::Sender<Bytes>>) -> Option<mpsc::Permit<'_, Bytes>> {
    match body {
        Some(body) => body.reserve().await.ok(),
        None => std::future::pending().await,
    }
}
