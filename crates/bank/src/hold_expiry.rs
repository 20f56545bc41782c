//! Records the expiry of holds, in the background. A hold that is over counts for nothing whether its expiry is recorded or not, so no
//! decision waits for this task. It records the expiries for the readers of the log.
//!
//! The accounts come from a view, the expiries from the state: a command for an account without such a hold records nothing. So several
//! instances may do this at the same time.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures_util::{
    StreamExt,
    future::{BoxFuture, join_all},
    stream,
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Bank,
    clock::LogInterval,
    command::{AccountAccess, CommandContext, Error},
};
use passbook_domain::{AccountCommand, Command, holds::ACTIVE_HOLDS_MAX};
use passbook_event_store::{Partitions, in_words};
use passbook_telemetry::metrics::METRICS;

/// How many expiries one slice records.
const SLICE_RELEASES_MAX: usize = 500;
/// How many accounts of a slice are released at a time. The rest of a batch is free for other commands.
const CONCURRENT_RELEASES_MAX: usize = 64;
/// How many accounts a sweep skips because their state cannot be read. With more it ends.
const FAILED_ACCOUNTS_MAX: usize = 100;
/// The pause between two slices of a partition, in milliseconds. Meanwhile other commands run, and the view follows.
const SLICE_PAUSE_MS: u64 = 250;
/// The pause after a slice that recorded nothing, because the view is behind, in milliseconds.
const IDLE_PAUSE_MS: u64 = 1_000;
/// After so many slices in a row that recorded nothing, the partition waits for the next sweep.
const IDLE_SLICES_MAX: u32 = 3;
/// The interval between two sweeps, in seconds. A sweep ends when no expiry is due.
const SWEEP_INTERVAL_S: u64 = 5;

/// Finds accounts with holds that are over without a recorded expiry.
pub trait DueHolds: Send + Sync + 'static {
    /// The accounts that have such holds now, on the clock of the database. Those that have waited longest come first. It considers
    /// at most `holds_max` holds.
    ///
    /// # Errors
    /// The reason why the view cannot be read, for the log.
    fn due_accounts(&self, partition: i16, holds_max: usize) -> BoxFuture<'_, Result<Vec<Uuid>, String>>;
}

/// The task that records expiries.
pub struct HoldExpiry<D> {
    bank: Bank,
    partitions: Partitions,
    due: D,
    /// The reserved caller of expiries. No token may have this subject.
    caller: Arc<str>,
    warnings: LogInterval,
}

impl<D: DueHolds> HoldExpiry<D> {
    /// A task that has not started. It records expiries as `caller`.
    pub fn new(bank: Bank, partitions: Partitions, due: D, caller: &str) -> Self {
        Self { bank, partitions, due, caller: Arc::from(caller), warnings: LogInterval::default() }
    }

    /// Sweeps every partition at intervals until `shutdown` is cancelled. The partitions do not wait for each other.
    pub async fn run(self, shutdown: CancellationToken) {
        let partitions = join_all(self.partitions.all().map(async |partition| self.run_partition(partition).await));
        shutdown.run_until_cancelled(partitions).await;
    }

    async fn run_partition(&self, partition: i16) {
        loop {
            if let Err(reason) = self.sweep(partition).await
                && self.warnings.is_due()
            {
                tracing::warn!(partition, reason = in_words(&reason), "expiry of holds cannot be recorded; retrying");
            }
            sleep(Duration::from_secs(SWEEP_INTERVAL_S)).await;
        }
    }

    /// Records the expiries of a partition that are due.
    async fn sweep(&self, partition: i16) -> Result<(), String> {
        let mut failed = HashSet::new();
        let mut idle_slices = 0;
        loop {
            let Slice { accounts, released } = self.slice(partition, &mut failed).await?;
            idle_slices = if released > 0 { 0 } else { idle_slices + 1 };
            if accounts == 0 || idle_slices >= IDLE_SLICES_MAX {
                return Ok(());
            }
            // The view may not show yet what this instance or another one has recorded.
            let pause_ms = if released > 0 { SLICE_PAUSE_MS } else { IDLE_PAUSE_MS };
            sleep(Duration::from_millis(pause_ms)).await;
        }
    }

    /// Records up to [`SLICE_RELEASES_MAX`] expiries of a partition. Accounts that cannot be decided join `failed`, and others follow
    /// in their place.
    async fn slice(&self, partition: i16, failed: &mut HashSet<Uuid>) -> Result<Slice, String> {
        let holds_max = SLICE_RELEASES_MAX + failed.len() * ACTIVE_HOLDS_MAX;
        let mut accounts = self.due.due_accounts(partition, holds_max).await?;
        accounts.retain(|account_id| !failed.contains(account_id));
        accounts.truncate(SLICE_RELEASES_MAX);
        // Together they release at most the maximum. An account that has more holds is due again.
        let due = accounts.len();
        let holds_max = SLICE_RELEASES_MAX / due.max(1);
        let releases = accounts.into_iter().map(async |id| (id, self.release(id, holds_max).await));
        let mut releases = stream::iter(releases).buffer_unordered(CONCURRENT_RELEASES_MAX);
        let mut released = 0;
        while let Some((account_id, result)) = releases.next().await {
            match result {
                Ok(expiries) => {
                    METRICS.expired_holds.inc_by(expiries);
                    released += expiries;
                }
                Err(Error::Internal) if failed.len() < FAILED_ACCOUNTS_MAX => drop(failed.insert(account_id)),
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(Slice { accounts: due, released })
    }

    /// Records the expiries of one account, and returns their number.
    async fn release(&self, account_id: Uuid, holds_max: usize) -> Result<u64, Error> {
        let command = Command::Account { account_id, command: AccountCommand::ReleaseExpired { holds_max } };
        let causation_id = Uuid::now_v7();
        let context = CommandContext {
            caller: Arc::clone(&self.caller),
            access: AccountAccess::Any,
            visibility: AccountAccess::Any,
            correlation_id: Arc::from(causation_id.to_string()),
            causation_id,
            idempotency_key: None,
            if_match: None,
            dry_run: false,
            batch_id: None,
        };
        let outcome = self.bank.execute(command, context).await?;
        Ok(outcome.receipt.event_count())
    }
}

/// The result of one slice.
#[derive(Clone, Copy, Debug)]
struct Slice {
    /// The accounts that were due.
    accounts: usize,
    /// The recorded expiries.
    released: u64,
}
