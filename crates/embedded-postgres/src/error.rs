//! The errors of the embedded Postgres. Each message is one sentence that says what to do, because it is the last line that the
//! operator reads before the process exits.

use std::io;
use std::path::{Path, PathBuf};

/// The embedded Postgres cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No searched folder contains both `postgres` and `initdb`.
    #[error(
        "no Postgres was found: install Postgres 15 or later (Debian: apt-get install postgresql, macOS: brew install \
         postgresql@17), set PASSBOOK_PG_BIN to its folder of programs, or set PASSBOOK_DATABASE_URL to a running server"
    )]
    NoPostgres,

    /// The configured folder contains no Postgres.
    #[error(
        "PASSBOOK_PG_BIN is {}, which contains no working postgres and initdb: set it to a folder that contains both, or unset \
         it to search the usual folders", .0.display()
    )]
    NoPostgresIn(PathBuf),

    /// Every Postgres that was found has an older major version.
    #[error(
        "only Postgres {major} was found, in {}: install Postgres 15 or later, set PASSBOOK_PG_BIN to its folder of programs, \
         or set PASSBOOK_DATABASE_URL to a running server", .bin.display()
    )]
    TooOld {
        /// The newest major version that was found.
        major: u32,
        /// The folder of its programs.
        bin: PathBuf,
    },

    /// The major version that wrote the data is not installed.
    #[error(
        "the data folder {} was written by Postgres {written_by}, but only Postgres {found} was found: install Postgres \
         {written_by}, or set PASSBOOK_PG_BIN to its folder of programs; data are never upgraded silently", .path.display()
    )]
    OtherMajor {
        /// The folder of Postgres's data.
        path: PathBuf,
        /// The major version in `PG_VERSION`.
        written_by: u32,
        /// The major version that would have been used.
        found: u32,
    },

    /// The command needs an existing data folder.
    #[error("the data folder {} contains no bank: set PASSBOOK_DATA_DIR to the data folder of a bank", .0.display())]
    NoData(PathBuf),

    /// Another Passbook process has locked the data folder.
    #[error(
        "the data folder {} is in use by another Passbook process: stop that process, or set PASSBOOK_DATA_DIR to another folder",
        .0.display()
    )]
    InUse(PathBuf),

    /// The Postgres of a previous Passbook process uses the data folder and does not stop.
    #[error(
        "a Postgres server (process {pid}) of a previous Passbook process uses the data folder {} and does not stop: end that \
         process and start again", .path.display()
    )]
    StaleServer {
        /// The data folder.
        path: PathBuf,
        /// The server's process id.
        pid: i32,
    },

    /// The user that Postgres runs as cannot enter the data folder or one of its parents.
    #[error(
        "Postgres runs as the user {user}, who cannot enter {}: set PASSBOOK_DATA_DIR to a folder that this user can enter, \
         such as /var/lib/passbook", .path.display()
    )]
    NoAccess {
        /// The folder that the user cannot enter.
        path: PathBuf,
        /// The user's name.
        user: String,
    },

    /// Passbook runs as root, and neither the user `postgres` nor `nobody` exists.
    #[error(
        "Postgres refuses to run as root, and neither the user postgres nor nobody exists: create the user postgres, or run \
         Passbook as another user"
    )]
    NoUser,

    /// The data belong to root, and Postgres does not run as root.
    #[error(
        "the data folder {path} belongs to root, but Postgres runs as the user {user}: run chown -R {user} {path}",
        path = .path.display()
    )]
    OwnedByRoot {
        /// The folder of Postgres's data.
        path: PathBuf,
        /// The user that Postgres runs as.
        user: String,
    },

    /// The folder contains other files than those of a data folder.
    #[error(
        "{} is not a data folder of Passbook: set PASSBOOK_DATA_DIR to an empty or a new folder, or restore this one from a backup",
        .0.display()
    )]
    NotADataDir(PathBuf),

    /// The operating system denied access to a file or folder.
    #[error(
        "the data folder cannot be used, {}: {source}; make it readable and writable for the user that runs Postgres, or set \
         PASSBOOK_DATA_DIR to another folder", .path.display()
    )]
    DataDir {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },

    /// `initdb` failed.
    #[error("a new database could not be created in {}: {reason}; correct that and start again", .path.display())]
    Initdb {
        /// The data folder.
        path: PathBuf,
        /// The last error line of `initdb`.
        reason: String,
    },

    /// The server did not start, or exited before it accepted a connection.
    #[error("Postgres did not start: {reason}; see {}", .log.display())]
    Exited {
        /// The exit status and the last error line of the log.
        reason: String,
        /// The server's log file.
        log: PathBuf,
    },

    /// The server runs but accepts no connection.
    #[error("Postgres started but accepts no connections: {source}; see {}", .log.display())]
    NoConnection {
        /// The last connection error.
        source: sqlx::Error,
        /// The server's log file.
        log: PathBuf,
    },
}

impl Error {
    /// For `map_err`: turns the operating system's error about `path` into [`Error::DataDir`].
    pub(super) fn data_dir(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::DataDir { path: path.to_owned(), source }
    }
}
