//! The log lines of refused callers. A refusal that is repeated gets at most one line a second, with the number of repetitions, so
//! that a flood neither hides other lines nor fills a disk. The number of different refusals is limited, too.
//!
//! A thread writes the lines. While nothing reads standard error it waits, and refusals are counted until it continues: none is lost.

use std::{
    collections::HashMap,
    mem,
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use axum::http::Method;
use tokio::time::sleep;

use crate::http::{
    extract::client_ip::ClientKey,
    shares::{Reservation, Shares},
};
use passbook_telemetry::{SECURITY_TARGET, supervision};

/// The shortest pause between two lines of one refusal, in milliseconds.
const LINE_MS_MIN: u64 = 1_000;
/// How many different refusals are tracked at a time. Further ones, and those beyond a client's share, are only counted.
const REFUSALS_MAX: u64 = 1_024;
/// How many bytes of a path or of a reason a line has.
const TEXT_BYTES_MAX: usize = 1_024;
/// How long a shutdown waits for the lines, in milliseconds, and how often it checks.
const FLUSH_MS_MAX: u64 = 1_000;
const FLUSH_POLL_MS: u64 = 5;
/// The name of the thread.
const THREAD: &str = "denial log";

/// The refusals of this process.
static DENIALS: LazyLock<Mutex<Denials>> = LazyLock::new(Mutex::default);
/// Wakes the thread.
static RECORDED: Condvar = Condvar::new();

/// What makes two refusals equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Denial {
    /// The subject of the caller, or `unknown`.
    pub caller: String,
    /// The address of the client.
    pub address: Option<IpAddr>,
    /// The method of the request.
    pub method: Method,
    /// The path of the request.
    pub path: String,
    /// Why the caller was refused.
    pub reason: String,
}

/// A line of the log.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    /// `repeated` further refusals; 0 in the first line of a refusal.
    Refusal { denial: Denial, request_id: String, repeated: u64 },
    /// Refusals that are not tracked.
    Others { repeated: u64 },
}

struct Denials {
    recent: HashMap<Denial, Recent>,
    /// The places in `recent`.
    places: Shares,
    /// The first lines of new refusals, at most one for each in `recent`.
    first_lines: Vec<Line>,
    /// Refusals that are not in `recent`, and when they were last logged.
    others: u64,
    others_logged_at: Option<Instant>,
    thread: ThreadState,
    /// Repetitions are logged at once, because the process ends.
    is_flushing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum ThreadState {
    NotStarted,
    Waiting,
    Writing,
}

struct Recent {
    logged_at: Instant,
    /// The last repeated request.
    request_id: String,
    repeated: u64,
    _place: Reservation,
}

impl Default for Denials {
    fn default() -> Self {
        Self {
            recent: HashMap::new(),
            places: Shares::new(REFUSALS_MAX),
            first_lines: Vec::new(),
            others: 0,
            others_logged_at: None,
            thread: ThreadState::NotStarted,
            is_flushing: false,
        }
    }
}

/// Logs a refusal of `client`, at once or as a repetition. Does not wait for the line.
pub fn record(denial: Denial, client: Option<ClientKey>, request_id: &str) {
    let mut denials = lock();
    denials.record(denial, client, request_id, Instant::now());
    if denials.thread == ThreadState::NotStarted {
        let started = thread::Builder::new().name(THREAD.to_owned()).spawn(run_thread);
        // Without a thread the refusals are counted, and the next one tries again.
        denials.thread = if started.is_ok() { ThreadState::Waiting } else { ThreadState::NotStarted };
    }
    drop(denials);
    RECORDED.notify_one();
}

/// Logs the repetitions without their pause, and waits until all lines are written. While nothing reads standard error it gives up.
pub async fn flush() {
    lock().is_flushing = true;
    RECORDED.notify_one();
    for _ in 0..FLUSH_MS_MAX / FLUSH_POLL_MS {
        if lock().is_written() {
            break;
        }
        sleep(Duration::from_millis(FLUSH_POLL_MS)).await;
    }
    lock().is_flushing = false;
}

/// Cuts a text that the client chose, so that the tracked refusals need a limited amount of memory.
fn shorten(text: &mut String) {
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        text.shrink_to_fit();
        text.push('…');
    }
}

fn run_thread() {
    let run = AssertUnwindSafe(|| {
        supervision::panic_if_injected(THREAD);
        write_lines();
    });
    if let Err(panic) = catch_unwind(run) {
        supervision::report(THREAD, &*panic);
    }
}

fn write_lines() {
    let mut denials = lock();
    loop {
        let lines = denials.take_lines(Instant::now());
        if !lines.is_empty() {
            denials.thread = ThreadState::Writing;
            drop(denials);
            lines.iter().for_each(Line::write);
            denials = lock();
            denials.thread = ThreadState::Waiting;
            continue;
        }
        denials = match denials.recent.is_empty() && denials.others == 0 {
            true => RECORDED.wait(denials).unwrap_or_else(PoisonError::into_inner),
            false => {
                let pause = Duration::from_millis(LINE_MS_MIN);
                RECORDED.wait_timeout(denials, pause).unwrap_or_else(PoisonError::into_inner).0
            }
        };
    }
}

fn lock() -> MutexGuard<'static, Denials> {
    DENIALS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Denials {
    fn record(&mut self, mut denial: Denial, client: Option<ClientKey>, request_id: &str, now: Instant) {
        shorten(&mut denial.path);
        shorten(&mut denial.reason);
        if let Some(recent) = self.recent.get_mut(&denial) {
            recent.repeated += 1;
            request_id.clone_into(&mut recent.request_id);
            return;
        }
        let Some(place) = self.places.try_reserve(client, 1) else {
            self.others += 1;
            return;
        };
        let request_id = request_id.to_owned();
        let recent = Recent { logged_at: now, request_id: request_id.clone(), repeated: 0, _place: place };
        self.recent.insert(denial.clone(), recent);
        self.first_lines.push(Line::Refusal { denial, request_id, repeated: 0 });
    }

    /// The lines that are due. Forgets refusals that were not repeated since their last line.
    fn take_lines(&mut self, now: Instant) -> Vec<Line> {
        let pause = if self.is_flushing { Duration::ZERO } else { Duration::from_millis(LINE_MS_MIN) };
        let is_due = |logged_at: Instant| now.saturating_duration_since(logged_at) >= pause;
        let mut lines = mem::take(&mut self.first_lines);
        self.recent.retain(|_, recent| recent.repeated > 0 || !is_due(recent.logged_at));
        let due = self.recent.iter_mut().filter(|(_, recent)| recent.repeated > 0 && is_due(recent.logged_at));
        lines.extend(due.map(|(denial, recent)| {
            recent.logged_at = now;
            let repeated = mem::take(&mut recent.repeated);
            Line::Refusal { denial: denial.clone(), request_id: recent.request_id.clone(), repeated }
        }));
        if self.others > 0 && self.others_logged_at.is_none_or(is_due) {
            self.others_logged_at = Some(now);
            lines.push(Line::Others { repeated: mem::take(&mut self.others) });
        }
        lines
    }

    fn is_written(&self) -> bool {
        let is_counted = self.others > 0 || self.recent.values().any(|recent| recent.repeated > 0);
        self.first_lines.is_empty() && !is_counted && self.thread != ThreadState::Writing
    }
}

impl Line {
    fn write(&self) {
        match self {
            Self::Refusal { denial: Denial { caller, address, method, path, reason }, request_id, repeated } => {
                let address = address.map(tracing::field::display);
                tracing::warn!(
                    target: SECURITY_TARGET,
                    request_id, caller, address, %method, path, reason, repeated, "access denied"
                );
            }
            Self::Others { repeated } => {
                tracing::warn!(target: SECURITY_TARGET, repeated, "access denied to further callers");
            }
        }
    }

    #[cfg(test)]
    fn refusals(&self) -> u64 {
        match self {
            Self::Refusal { repeated: 0, .. } => 1,
            Self::Refusal { repeated, .. } | Self::Others { repeated } => *repeated,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denial(path: &str) -> Denial {
        let (caller, reason) = ("ben".to_owned(), "the account belongs to another owner".to_owned());
        Denial { caller, address: None, method: Method::GET, path: path.to_owned(), reason }
    }

    fn client(name: &str) -> Option<ClientKey> {
        Some(ClientKey::Caller(name.into()))
    }

    #[test]
    fn a_repeated_refusal_gets_one_line_a_second_with_a_count() {
        let (mut denials, start) = (Denials::default(), Instant::now());
        let second = |n: u64| start + Duration::from_secs(n);
        let line = |path, request_id: &str, repeated| Line::Refusal {
            denial: denial(path),
            request_id: request_id.to_owned(),
            repeated,
        };
        denials.record(denial("/a"), client("ben"), "r1", start);
        (0..100).for_each(|_| denials.record(denial("/a"), client("ben"), "r2", start));
        denials.record(denial("/b"), client("ben"), "r3", start);
        assert_eq!(denials.take_lines(start), [line("/a", "r1", 0), line("/b", "r3", 0)]);
        assert_eq!(denials.take_lines(start), []);
        assert_eq!(denials.take_lines(second(1)), [line("/a", "r2", 100)]);
        assert_eq!(denials.recent.len(), 1, "/b was not repeated");
        assert_eq!(denials.take_lines(second(2)), []);
        assert!(denials.recent.is_empty());
    }

    #[test]
    fn refusals_beyond_the_limit_are_counted_once_a_second() {
        let (mut denials, now) = (Denials::default(), Instant::now());
        (0..REFUSALS_MAX + 5).for_each(|n| denials.record(denial(&n.to_string()), None, "r", now));
        let lines = denials.take_lines(now);
        assert_eq!(lines.len() as u64, REFUSALS_MAX + 1);
        assert_eq!(lines.last(), Some(&Line::Others { repeated: 5 }));
        denials.record(denial("late"), None, "r", now);
        assert_eq!(denials.take_lines(now), []);
    }

    #[test]
    fn a_long_path_is_shortened_between_two_characters() {
        let (mut denials, now) = (Denials::default(), Instant::now());
        denials.record(denial(&"ä".repeat(TEXT_BYTES_MAX)), None, "r", now);
        let shortened = format!("{}…", "ä".repeat(TEXT_BYTES_MAX / 2));
        assert!(denials.recent.contains_key(&denial(&shortened)), "{:?}", denials.recent.keys());
    }

    #[test]
    fn one_prober_of_many_paths_hides_no_refusal_of_another() {
        let (mut denials, now) = (Denials::default(), Instant::now());
        (0..REFUSALS_MAX * 2).for_each(|n| denials.record(denial(&n.to_string()), client("ben"), "r", now));
        denials.record(denial("/v1/overview"), client("cleo"), "r", now);
        assert!(denials.recent.contains_key(&denial("/v1/overview")));
    }

    #[test]
    fn no_refusal_is_lost_while_the_writer_waits() {
        const ROUNDS: u64 = 3;
        let (mut denials, now) = (Denials::default(), Instant::now());
        for _ in 0..ROUNDS {
            (0..REFUSALS_MAX * 2).for_each(|n| denials.record(denial(&n.to_string()), client("ben"), "r", now));
        }
        assert!(denials.first_lines.len() as u64 <= REFUSALS_MAX, "memory is bounded");
        assert!(!denials.is_written());
        denials.is_flushing = true;
        let refusals: u64 = denials.take_lines(now).iter().map(Line::refusals).sum();
        assert_eq!(refusals, ROUNDS * REFUSALS_MAX * 2);
        assert!(denials.is_written());
    }
}
