//! The errors of this crate. Each message is a sentence for the operator, who reads it as the last line before the process exits.

use std::{io, path::PathBuf};

use super::{citus, pooler, schema};
use passbook_event_store::StorageFailure;

/// The database cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message is its description")]
pub enum Error {
    #[error(transparent)]
    Embedded(#[from] passbook_embedded_postgres::Error),
    #[error(
        "PASSBOOK_DATABASE_URL is not a Postgres URL: set it to a URL such as postgres://user:password@host/database, or to \
         several separated by commas"
    )]
    InvalidUrl,
    #[error("PASSBOOK_DATABASE_URL and PASSBOOK_DATABASE_URL_FILE are both set: set only one of them")]
    TwoUrls,
    #[error(
        "PASSBOOK_READ_DATABASE_URL is not a Postgres URL: set it to a URL such as postgres://user:password@host/database"
    )]
    InvalidReadUrl,
    #[error("PASSBOOK_DATABASE_URL_FILE={path} cannot be read: {source}")]
    UrlFile { path: PathBuf, source: io::Error },
    #[error("the database of PASSBOOK_DATABASE_URL cannot be reached: {0}")]
    Unreachable(#[source] sqlx::Error),
    #[error("the database of PASSBOOK_DATABASE_URL refuses the connection: {0}")]
    Refused(#[source] sqlx::Error),
    #[error("the database of PASSBOOK_DATABASE_URL does not answer in time: {0}")]
    TimedOut(#[source] sqlx::Error),
    #[error(transparent)]
    Pooler(#[from] pooler::Error),
    #[error("a database statement failed: {0}")]
    Unusable(#[source] sqlx::Error),
    #[error("the database server is Postgres {0}, but Passbook needs 15 or later: upgrade the server")]
    TooOld(String),
    #[error(transparent)]
    Schema(#[from] schema::Error),
    #[error(transparent)]
    Citus(#[from] citus::Error),
}

impl Error {
    /// A connection that could not be opened.
    pub(super) fn no_connection(error: sqlx::Error) -> Self {
        if let Some(error) = pooler::Error::of(&error) {
            return Self::Pooler(error);
        }
        match StorageFailure::of(&error) {
            StorageFailure::Unreachable => Self::Unreachable(error),
            StorageFailure::Refused => Self::Refused(error),
            StorageFailure::TimedOut => Self::TimedOut(error),
        }
    }

    /// Replaces an error that a connection pooler caused by a sentence that says what to set.
    pub(super) fn explained(self) -> Self {
        pooler::Error::of(&self).map_or(self, Self::Pooler)
    }

    /// Whether the database may be available again later without any action of the operator.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Refused(_) | Self::TimedOut(_) => true,
            Self::Schema(schema::Error::Unreadable(error)) => StorageFailure::of(error) != StorageFailure::Refused,
            Self::Unusable(error) => error.as_database_error().is_none(),
            Self::Embedded(_)
            | Self::InvalidUrl
            | Self::InvalidReadUrl
            | Self::TwoUrls
            | Self::UrlFile { .. }
            | Self::Pooler(_)
            | Self::TooOld(_)
            | Self::Schema(_)
            | Self::Citus(_) => false,
        }
    }
}
