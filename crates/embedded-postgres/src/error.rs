//! Why the embedded Postgres cannot serve. Each message is one sentence that says what to do, because it is the last
//! thing an operator reads before the process ends.

use std::io;
use std::path::{Path, PathBuf};

/// A reason for which the embedded Postgres could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No folder searched holds both `postgres` and `initdb`.
    #[error(
        "no Postgres was found: install Postgres 15 or later (Debian: apt-get install postgresql, macOS: brew install \
         postgresql@17), name its folder of binaries in PASSBOOK_PG_BIN, or set PASSBOOK_DATABASE_URL to a running server"
    )]
    NoPostgres,

    /// The folder that the operator named holds no Postgres.
    #[error(
        "PASSBOOK_PG_BIN is {}, which holds no working postgres and initdb: name the folder that holds both, or unset it \
         to have them searched for", .0.display()
    )]
    NoPostgresIn(PathBuf),

    /// Everything found is of an older major version.
    #[error(
        "only Postgres {major} was found, in {}: install Postgres 15 or later, name its folder of binaries in \
         PASSBOOK_PG_BIN, or set PASSBOOK_DATABASE_URL to a running server", .bin.display()
    )]
    TooOld {
        /// The newest major version found.
        major: u32,
        /// Where it was found.
        bin: PathBuf,
    },

    /// The data were written by a major version that is not installed.
    #[error(
        "the data folder {} was written by Postgres {written_by}, but Postgres {found} was found: install Postgres \
         {written_by} or name its folder of binaries in PASSBOOK_PG_BIN, for data are never upgraded silently", .path.display()
    )]
    OtherMajor {
        /// Postgres's folder.
        path: PathBuf,
        /// The major version in its `PG_VERSION`.
        written_by: u32,
        /// The major version that would have been used.
        found: u32,
    },

    /// There is nothing to look at.
    #[error("there is no bank in the data folder {}: name the folder of one in PASSBOOK_DATA_DIR", .0.display())]
    NoData(PathBuf),

    /// Another passbook holds the data folder's lock.
    #[error("the data folder {} is in use by another passbook: stop that one, or set PASSBOOK_DATA_DIR to another folder", .0.display())]
    InUse(PathBuf),

    /// A Postgres of a previous life works in the data folder and cannot be stopped.
    #[error("a Postgres server (process {pid}) still works in the data folder {} and does not stop: end it, then start again", .path.display())]
    LeftOver {
        /// The data folder.
        path: PathBuf,
        /// The server's process id.
        pid: i32,
    },

    /// The user that Postgres runs as may not enter a folder on the way to the data.
    #[error(
        "Postgres runs as the user {user}, who may not enter {}: set PASSBOOK_DATA_DIR to a folder that this user can \
         reach, such as /var/lib/passbook", .path.display()
    )]
    Unreachable {
        /// The folder that is closed to the user.
        path: PathBuf,
        /// The user's name.
        user: String,
    },

    /// As root there is neither a `postgres` nor a `nobody` to run as.
    #[error(
        "Postgres refuses to run as root, and there is no user postgres or nobody: create the user postgres, or run passbook as a plain user"
    )]
    NoUser,

    /// The data belong to root, as whom Postgres does not run.
    #[error("the data folder {path} belongs to root, as whom Postgres refuses to run: give it to its user by chown -R {user} {path}", path = .path.display())]
    OwnedByRoot {
        /// Postgres's folder.
        path: PathBuf,
        /// The user that Postgres runs as.
        user: String,
    },

    /// What stands in the place of the data is something else.
    #[error(
        "{} is not a data folder of passbook: set PASSBOOK_DATA_DIR to an empty or a new folder, or restore this one from a backup",
        .0.display()
    )]
    NotOurs(PathBuf),

    /// The operating system refused a file or folder.
    #[error(
        "the data folder cannot be used, {}: {source}; make it readable and writable for the user that runs Postgres, or \
         set PASSBOOK_DATA_DIR to another folder", .path.display()
    )]
    Folder {
        /// The file or folder refused.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },

    /// `initdb` failed.
    #[error("a new database could not be created in {}: {reason}; put that right and start again", .path.display())]
    Initdb {
        /// The data folder.
        path: PathBuf,
        /// The telling line of what `initdb` wrote.
        reason: String,
    },

    /// The server ended, or never began, before it answered.
    #[error("Postgres did not start: {reason}; {} says more", .log.display())]
    Died {
        /// How it ended, with the last line of its log.
        reason: String,
        /// Its log file.
        log: PathBuf,
    },

    /// The server runs but accepts no connection.
    #[error("Postgres was started but accepts no connection: {source}; {} says more", .log.display())]
    Unanswered {
        /// The last refusal.
        source: sqlx::Error,
        /// Its log file.
        log: PathBuf,
    },
}

impl Error {
    /// For `map_err` on what the operating system says about one path.
    pub(super) fn folder(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Folder { path: path.to_owned(), source }
    }
}
