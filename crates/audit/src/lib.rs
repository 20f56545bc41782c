//! Reads and verifies the event log.
//!
//! [`EventReader`] returns pages of recorded events, and [`feed`] streams events as they are recorded. [`verification`] checks
//! the whole log and everything derived from it. [`Audit`] checks single accounts while the service runs.

mod event_log;
pub mod verification;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::PgPool;
use tokio::sync::Semaphore;
use uuid::Uuid;

use self::verification::{
    account::{AccountCheck, Outcome},
    unfinished::{CheckInProgress, UnfinishedChecks},
};
use passbook_event_store::{Partitions, log};

pub use event_log::{
    Cursor, CursorParam, Error, EventFilter, EventReader, EventRecord, InvalidCursor, InvalidCursorPosition, LogHead,
    LogPage, feed,
};
pub use verification::Verification;

/// How many accounts are verified at the same time.
const VERIFICATIONS_MAX: usize = 3;
/// How long one request verifies an account. It is shorter than the time limit of a read.
const VERIFICATION_MS_MAX: u64 = 20_000;
/// How many events one statement of a verification reads.
const SLICE_EVENTS_MAX: i64 = 5_000;

/// Reads the heads of the log and verifies accounts. Cheap to clone.
#[derive(Clone)]
pub struct Audit {
    pool: PgPool,
    partitions: Partitions,
    verifications: Arc<Semaphore>,
    unfinished: UnfinishedChecks,
    limits: VerificationLimits,
}

/// The limits of verifying one account.
#[derive(Clone, Copy, Debug)]
pub struct VerificationLimits {
    /// How long one request verifies an account. The next one continues.
    pub request: Duration,
    /// How many events one statement reads.
    pub slice_events: i64,
}

impl Audit {
    /// Reads through `pool`.
    pub fn new(pool: PgPool, partitions: Partitions) -> Self {
        Self {
            pool,
            partitions,
            verifications: Arc::new(Semaphore::new(VERIFICATIONS_MAX)),
            unfinished: UnfinishedChecks::default(),
            limits: VerificationLimits {
                request: Duration::from_millis(VERIFICATION_MS_MAX),
                slice_events: SLICE_EVENTS_MAX,
            },
        }
    }

    /// Changes the limits of verifying one account.
    #[must_use]
    pub fn with_verification_limits(self, limits: VerificationLimits) -> Self {
        Self { limits, ..self }
    }

    /// The head of each partition.
    ///
    /// # Errors
    /// The database failed.
    pub async fn heads(&self) -> Result<Vec<LogHead>, Error> {
        let mut connection = self.pool.acquire().await?;
        let mut heads = Vec::new();
        for partition in self.partitions.all() {
            heads.push(LogHead::new(self.partitions, partition, &log::head(&mut connection, partition).await?));
        }
        Ok(heads)
    }

    /// Verifies one account: its hashes in the hash chain, and its view. `None` if the account does not exist.
    ///
    /// # Errors
    /// [`Error::Busy`] if too many accounts are being verified, [`Error::VerificationUnfinished`] if the account has more events
    /// than one request verifies, or the database failed.
    pub async fn verify_account(&self, account_id: Uuid) -> Result<Option<Verification>, Error> {
        let _permit = self.verifications.try_acquire().map_err(|_| Error::Busy)?;
        let deadline = Instant::now() + self.limits.request;
        let check = match self.unfinished.take(account_id) {
            Some(check) => check,
            None => AccountCheck::begin(&self.pool, self.partitions, account_id).await?,
        };
        let mut in_progress = CheckInProgress::new(self.unfinished.clone(), account_id, check);
        while let Some(check) = in_progress.check() {
            match check.verify_slice(&self.pool, self.limits.slice_events).await? {
                None if Instant::now() >= deadline => {
                    return Err(Error::VerificationUnfinished { events: check.events() });
                }
                None => {}
                Some(outcome) => {
                    in_progress.finish();
                    return Ok(match outcome {
                        Outcome::UnknownAccount => None,
                        Outcome::Verified(verification) => Some(verification),
                    });
                }
            }
        }
        Ok(None)
    }
}
