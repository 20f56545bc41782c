//! The kinds of database failures, which responses, readiness and log lines tell apart: an operator looks for a broken network, a
//! slow server or a rejected statement in different places.

use std::{borrow::Cow, io};

use sqlx::Error;

/// How the database failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageFailure {
    /// There is no connection, or it broke: nothing says that the database received the statement.
    Unreachable,
    /// The database answered with an error, or with rows that this release cannot read. A retry gets the same answer until an
    /// operator acts.
    Refused,
    /// The database did not answer in time, or it cancelled the statement because of a time limit.
    TimedOut,
}

impl StorageFailure {
    /// The kind of this error.
    pub fn of(error: &Error) -> Self {
        match error {
            Error::Io(error) if error.kind() == io::ErrorKind::TimedOut => Self::TimedOut,
            // The pool retries refused connections until its time limit.
            Error::PoolTimedOut | Error::Io(_) | Error::Tls(_) | Error::Protocol(_) => Self::Unreachable,
            Error::PoolClosed | Error::WorkerCrashed => Self::Unreachable,
            Error::Database(error) => error.code().map_or(Self::Refused, |code| Self::of_sqlstate(&code)),
            _ => Self::Refused,
        }
    }

    fn of_sqlstate(code: &str) -> Self {
        match code {
            // lock_not_available, query_canceled, idle_in_transaction_session_timeout, transaction_timeout
            "55P03" | "57014" | "25P03" | "25P04" => Self::TimedOut,
            // too_many_connections, admin_shutdown, crash_shutdown, cannot_connect_now
            "53300" | "57P01" | "57P02" | "57P03" => Self::Unreachable,
            _ if code.starts_with("08") => Self::Unreachable,
            _ => Self::Refused,
        }
    }

    /// The value of the log field `failure`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
        }
    }

    /// A sentence for clients and operators. It reveals nothing of the statement.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Unreachable => "The database cannot be reached.",
            Self::Refused => "The database refuses a statement of this service.",
            Self::TimedOut => "The database did not answer in time.",
        }
    }
}

/// The SQLSTATE of a database's error response, for the log field `sqlstate`; empty for other errors.
pub fn sqlstate(error: &Error) -> Cow<'_, str> {
    error.as_database_error().and_then(|error| error.code()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_unreachable_refused_or_timed_out() {
        let io = |kind| StorageFailure::of(&Error::Io(io::Error::from(kind)));
        assert_eq!(io(io::ErrorKind::ConnectionRefused), StorageFailure::Unreachable);
        assert_eq!(io(io::ErrorKind::TimedOut), StorageFailure::TimedOut);
        assert_eq!(StorageFailure::of(&Error::PoolTimedOut), StorageFailure::Unreachable);
        assert_eq!(StorageFailure::of(&Error::RowNotFound), StorageFailure::Refused);
        for (code, failure) in [
            ("57P01", StorageFailure::Unreachable),
            ("08006", StorageFailure::Unreachable),
            ("57014", StorageFailure::TimedOut),
            ("58P01", StorageFailure::Refused),
            ("42883", StorageFailure::Refused),
        ] {
            assert_eq!(StorageFailure::of_sqlstate(code), failure, "{code}");
        }
    }
}
