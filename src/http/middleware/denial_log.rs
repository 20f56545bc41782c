//! The log lines of refused callers. A refusal that is repeated gets at most one line a second, with the number of repetitions, so
//! that a flood neither hides other lines nor fills a disk. The number of different refusals is limited, too.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{LazyLock, Mutex, PoisonError},
    time::Duration,
};

use axum::http::Method;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

use passbook_telemetry::{SECURITY_TARGET, supervision};

/// The shortest pause between two lines of one refusal, in milliseconds.
const LINE_MS_MIN: u64 = 1_000;
/// How many different refusals are tracked at a time. Further ones are only counted.
const REFUSALS_MAX: usize = 1_024;

/// The refusals of this process.
static DENIALS: LazyLock<Mutex<Denials>> = LazyLock::new(Mutex::default);

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

/// A line about `repeated` further refusals; 0 in the first line of a refusal.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    denial: Denial,
    request_id: String,
    repeated: u64,
}

#[derive(Default)]
struct Denials {
    recent: HashMap<Denial, Recent>,
    /// Refusals that are not in `recent`, because it is full.
    others: u64,
    /// The task that writes the lines of repeated refusals. It ends when there are none.
    writer: Option<JoinHandle<()>>,
}

struct Recent {
    logged_at: Instant,
    /// The last repeated request.
    request_id: String,
    repeated: u64,
}

/// Logs a refusal, at once or as a repetition.
pub fn record(denial: Denial, request_id: &str) {
    let mut denials = DENIALS.lock().unwrap_or_else(PoisonError::into_inner);
    let line = denials.record(denial, request_id, Instant::now());
    if denials.writer.as_ref().is_none_or(JoinHandle::is_finished) {
        denials.writer = Some(supervision::spawn("denial log", write_repeated()));
    }
    drop(denials);
    line.iter().for_each(Line::write);
}

async fn write_repeated() {
    loop {
        sleep(Duration::from_millis(LINE_MS_MIN)).await;
        let mut denials = DENIALS.lock().unwrap_or_else(PoisonError::into_inner);
        let (lines, others) = denials.take_repeated(Instant::now());
        let is_done = denials.recent.is_empty();
        if is_done {
            denials.writer = None;
        }
        drop(denials);
        lines.iter().for_each(Line::write);
        if others > 0 {
            tracing::warn!(target: SECURITY_TARGET, repeated = others, "access denied to further callers");
        }
        if is_done {
            return;
        }
    }
}

impl Denials {
    /// The line of a refusal that is new; `None` if it was counted.
    fn record(&mut self, denial: Denial, request_id: &str, now: Instant) -> Option<Line> {
        if let Some(recent) = self.recent.get_mut(&denial) {
            recent.repeated += 1;
            request_id.clone_into(&mut recent.request_id);
            return None;
        }
        if self.recent.len() >= REFUSALS_MAX {
            self.others += 1;
            return None;
        }
        let request_id = request_id.to_owned();
        self.recent.insert(denial.clone(), Recent { logged_at: now, request_id: request_id.clone(), repeated: 0 });
        Some(Line { denial, request_id, repeated: 0 })
    }

    /// The lines of refusals that were repeated since their last line, and the number of uncounted others. Forgets refusals that
    /// were not repeated.
    fn take_repeated(&mut self, now: Instant) -> (Vec<Line>, u64) {
        let is_due = |recent: &Recent| now - recent.logged_at >= Duration::from_millis(LINE_MS_MIN);
        self.recent.retain(|_, recent| recent.repeated > 0 || !is_due(recent));
        let due = self.recent.iter_mut().filter(|(_, recent)| recent.repeated > 0 && is_due(recent));
        let lines = due.map(|(denial, recent)| {
            recent.logged_at = now;
            let repeated = std::mem::take(&mut recent.repeated);
            Line { denial: denial.clone(), request_id: recent.request_id.clone(), repeated }
        });
        (lines.collect(), std::mem::take(&mut self.others))
    }
}

impl Line {
    fn write(&self) {
        let Self { denial: Denial { caller, address, method, path, reason }, request_id, repeated } = self;
        let address = address.map(tracing::field::display);
        tracing::warn!(
            target: SECURITY_TARGET,
            request_id, caller, address, %method, path, reason, repeated, "access denied"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denial(path: &str) -> Denial {
        let (caller, reason) = ("ben".to_owned(), "the account belongs to another owner".to_owned());
        Denial { caller, address: None, method: Method::GET, path: path.to_owned(), reason }
    }

    #[test]
    fn a_repeated_refusal_gets_one_line_a_second_with_a_count() {
        let (mut denials, start) = (Denials::default(), Instant::now());
        let second = |n: u64| start + Duration::from_secs(n);
        assert_eq!(denials.record(denial("/a"), "r1", start).map(|line| line.repeated), Some(0));
        for _ in 0..100 {
            assert_eq!(denials.record(denial("/a"), "r2", start), None);
        }
        assert_eq!(denials.record(denial("/b"), "r3", start).map(|line| line.repeated), Some(0));
        assert_eq!(denials.take_repeated(start), (vec![], 0));
        let line = Line { denial: denial("/a"), request_id: "r2".to_owned(), repeated: 100 };
        assert_eq!(denials.take_repeated(second(1)), (vec![line], 0));
        assert_eq!(denials.recent.len(), 1, "/b was not repeated");
        assert_eq!(denials.take_repeated(second(2)), (vec![], 0));
        assert!(denials.recent.is_empty());
    }

    #[test]
    fn refusals_beyond_the_limit_are_counted() {
        let mut denials = Denials::default();
        let now = Instant::now();
        let lines = (0..REFUSALS_MAX + 5).filter_map(|n| denials.record(denial(&n.to_string()), "r", now));
        assert_eq!(lines.count(), REFUSALS_MAX);
        assert_eq!(denials.take_repeated(now).1, 5);
    }
}
