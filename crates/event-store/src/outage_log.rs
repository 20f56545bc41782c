//! One log line at the beginning of an outage of the database, and one at its end. Many tasks notice the same outage, each of them
//! many times.

use std::{
    fmt::Display,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::failure::StorageFailure;

/// An outage that begins earlier after the end of the one before has no log line.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

static OUTAGE: Mutex<Outage> = Mutex::new(Outage { since: None, failed_at: None, logged_at: None });

/// The outage of this process's database.
#[derive(Debug)]
struct Outage {
    /// When the first connection failed since the last one that was opened.
    since: Option<Instant>,
    /// When the last connection failed.
    failed_at: Option<Instant>,
    /// When the last line was logged.
    logged_at: Option<Instant>,
}

impl Outage {
    /// Records a failed connection. Returns whether to log a line.
    fn begin(&mut self, now: Instant) -> bool {
        let is_first = !self.lasts(now);
        if is_first {
            self.since = Some(now);
        }
        self.failed_at = Some(now);
        let is_due = is_first && self.logged_at.is_none_or(|at| now - at > LINE_INTERVAL);
        if is_due {
            self.logged_at = Some(now);
        }
        is_due
    }

    /// Whether connections fail. Tasks retry at short intervals, so an outage without a failure is over.
    fn lasts(&self, now: Instant) -> bool {
        self.since.is_some() && self.failed_at.is_some_and(|at| now - at < LINE_INTERVAL)
    }

    /// Records an open connection. Returns the duration of the outage that it ends, if its beginning was logged.
    fn end(&mut self, now: Instant) -> Option<Duration> {
        let since = self.since.take()?;
        let is_logged = self.logged_at == Some(since);
        is_logged.then(|| {
            self.logged_at = Some(now);
            now - since
        })
    }
}

/// Logs that the database cannot be reached, once for each outage. Returns `false` for a failure of another kind, which the
/// caller logs. A timeout during an outage is a part of it.
pub fn log_if_unreachable(failure: StorageFailure, error: &dyn Display) -> bool {
    match failure {
        StorageFailure::Unreachable => {}
        StorageFailure::TimedOut if lasts() => {}
        StorageFailure::TimedOut | StorageFailure::Refused => return false,
    }
    let text = error.to_string();
    let error = in_words(&text);
    match OUTAGE.lock().unwrap_or_else(PoisonError::into_inner).begin(Instant::now()) {
        true => tracing::warn!(error, "database cannot be reached; retrying"),
        false => tracing::debug!(error, "database cannot be reached; retrying"),
    }
    true
}

/// Logs as [`log_if_unreachable`] does, for a query through a pool. A pool that gives no connection in time says nothing about the
/// database by itself: without an outage, other queries may use all of its connections.
pub fn log_query_if_unreachable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::PoolTimedOut => lasts(),
        error => log_if_unreachable(StorageFailure::of(error), error),
    }
}

fn lasts() -> bool {
    OUTAGE.lock().unwrap_or_else(PoisonError::into_inner).lasts(Instant::now())
}

/// Logs the end of an outage whose beginning was logged.
pub(crate) fn log_reached() {
    if let Some(outage) = OUTAGE.lock().unwrap_or_else(PoisonError::into_inner).end(Instant::now()) {
        tracing::info!(outage_ms = outage.as_millis() as u64, "database can be reached again");
    }
}

/// Replaces an error by a sentence, if its own text does not say what has happened.
pub(crate) fn explained(error: sqlx::Error) -> sqlx::Error {
    match explanation(&error.to_string()) {
        Some(sentence) => std::io::Error::new(std::io::ErrorKind::ConnectionAborted, sentence).into(),
        None => error,
    }
}

/// The text of an error, or a sentence if it does not say what has happened.
pub fn in_words(error: &str) -> &str {
    explanation(error).unwrap_or(error)
}

/// A sentence for a connection that was closed before the server's first byte. sqlx takes the missing byte for a zero.
fn explanation(error: &str) -> Option<&'static str> {
    error.contains("unexpected response from SSLRequest: 0x00").then_some(
        "the connection was closed before the server answered: a load balancer has no server behind it, or the server stops",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_has_one_line_and_flapping_connections_have_none() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut outage = Outage { since: None, failed_at: None, logged_at: None };
        assert!(outage.begin(at(0)));
        assert!(!outage.begin(at(9)) && !outage.begin(at(18)), "the same outage");
        assert!(outage.lasts(at(19)) && !outage.lasts(at(40)));
        assert_eq!(outage.end(at(21)), Some(Duration::from_secs(21)));
        assert_eq!(outage.end(at(22)), None, "there is no outage");
        assert!(!outage.begin(at(23)), "a connection that was tried before the end");
        assert_eq!(outage.end(at(24)), None, "its beginning was not logged");
        assert!(outage.begin(at(35)));
        assert_eq!(outage.end(at(36)), Some(Duration::from_secs(1)));
        assert!(!outage.begin(at(37)), "too soon");
        assert_eq!(outage.end(at(38)), None, "its beginning was not logged");
    }

    #[test]
    fn a_connection_closed_before_the_first_byte_gets_a_sentence() {
        let error = explained(sqlx::Error::Protocol("unexpected response from SSLRequest: 0x00".into()));
        assert!(error.to_string().contains("load balancer"), "{error}");
        assert_eq!(StorageFailure::of(&error), StorageFailure::Unreachable);
        assert!(matches!(explained(sqlx::Error::PoolTimedOut), sqlx::Error::PoolTimedOut));
    }
}
