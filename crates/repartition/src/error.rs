//! Why nothing more is copied; each a sentence that says what to do.

use chrono::{DateTime, Utc};

use passbook_event_store::Position;

/// Why nothing more is copied.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant says it in its sentence")]
pub enum Error {
    #[error(
        "{to} partitions cannot take what is in {from}: each must take from one alone, so ask for a multiple of {from}, up to 64"
    )]
    NotAMultiple { from: i16, to: i16 },
    #[error("the target is a log of its own already: a copy needs a database in which nobody has served")]
    NotEmpty,
    #[error("the target was copied and finished at {0}: what the old log took since is not in it, and cannot be added")]
    Finished(DateTime<Utc>),
    #[error(
        "the target was begun as a copy of a log with {begun} partitions, and this one has {found}: it is another log"
    )]
    Another { begun: i16, found: i16 },
    #[error(
        "the target was begun as a copy into {begun} partitions, and not into {asked}: go on with {begun}, or begin in an empty \
         database"
    )]
    Begun { begun: i16, asked: i16 },
    #[error("the old log is a copy itself, and not all of it is there: let the copy into it come to its end first")]
    SourceUnfinished,
    #[error(
        "the log is not in order at position {0}: `passbook verify` tells more, and nothing of this page was copied"
    )]
    Broken(Position),
    #[error(
        "the old log no longer holds at position {0} what was copied from there: a failover has lost it, so begin anew in an \
         empty database"
    )]
    Lost(Position),
    #[error("the event at position {0} of the old log is not in the new one as it was: it must not be served")]
    Differs(Position),
    #[error("the receipt of the key {key:?} of {caller:?} cannot be carried over: {reason}")]
    Receipt { caller: String, key: String, reason: &'static str },
    #[error("somebody else copies into the same log: one at a time")]
    Contended,
    #[error("a service is still connected to the old log: stop it, and run this again")]
    StillServed,
    #[error("the old log holds {source_events} events, and the new one {target_events}")]
    Uneven { source_events: i64, target_events: i64 },
    #[error("a database cannot be used: {0}")]
    Storage(#[from] sqlx::Error),
}
