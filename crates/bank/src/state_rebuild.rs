//! Folds accounts that have too many events for a batch, in separate tasks. The commands of such an account wait for its
//! task, and those of all other accounts go on. It happens if an account has no snapshot that this release can read, for example
//! after the form of the state has changed.
//!
//! A task reads slices and stores snapshots at intervals. The account is loaded from the last one, also after a restart.

use std::{collections::HashMap, future::pending, mem, sync::Arc, time::Duration};

use tokio::{
    select,
    sync::{Semaphore, mpsc},
    task::yield_now,
    time::{Instant, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::{
    QUEUE_COMMANDS_MAX,
    account_cache::{CachedAccount, FoldError, LoadedAccounts, NotLoaded, evolve},
    command::Error,
    outage::OUTAGE_WAIT_MAX,
    pending::Pending,
    storage_error::{STATE_REBUILDING, STATEMENT_TIMEOUT, StorageError},
    unsupported_event::UnsupportedEventGate,
};
use passbook_domain::{Event, account::STATE_VERSION};
use passbook_event_store::{Partitions, PrimaryConnector, StreamVersion, log::Snapshot, stream, with_timeout};
use passbook_telemetry::supervision;

/// How many accounts one process folds at the same time.
const REBUILDS_MAX: usize = 2;
/// How many events one statement reads.
const SLICE_EVENTS_MAX: i64 = 5_000;
/// A snapshot is stored after so many events, so that an interrupted rebuild continues from there.
const SNAPSHOT_EVENTS: i64 = 100_000;
/// How long opening the connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The dependencies that all rebuild tasks share.
#[derive(Clone)]
pub(super) struct RebuildContext {
    pub primary: PrimaryConnector,
    pub partitions: Partitions,
    pub gate: UnsupportedEventGate,
    /// Limits the tasks of all executors.
    pub permits: Arc<Semaphore>,
}

impl RebuildContext {
    pub(super) fn new(primary: PrimaryConnector, partitions: Partitions, gate: UnsupportedEventGate) -> Self {
        Self { primary, partitions, gate, permits: Arc::new(Semaphore::new(REBUILDS_MAX)) }
    }
}

/// The tasks of one executor, and the commands that wait for them.
pub(super) struct StateRebuilds {
    context: RebuildContext,
    running: HashMap<Uuid, AbortOnDropHandle<()>>,
    /// The commands that wait for the task of an account, in the order in which they were accepted.
    waiting: HashMap<Uuid, Vec<Pending>>,
    done: (mpsc::UnboundedSender<Uuid>, mpsc::UnboundedReceiver<Uuid>),
}

/// The accounts of waiting commands. A later command of such an account waits, too: the order of the commands of each account stays.
#[derive(Default)]
pub(super) struct Waits(HashMap<Uuid, Wait>);

/// What the commands of an account wait for.
#[derive(Clone, Copy)]
struct Wait {
    /// The account whose task they wait for.
    long: Uuid,
    /// When the first waiting command was accepted; `None`: the account cannot be loaded, and all its commands wait.
    since: Option<Instant>,
}

impl Waits {
    /// The account whose task a command has to wait for; `None` if it need not wait.
    pub(super) fn of(&self, pending: &Pending) -> Option<Uuid> {
        let waits = |wait: &&Wait| wait.since.is_none_or(|since| since <= pending.accepted_at);
        pending.accounts().find_map(|account_id| self.0.get(&account_id).filter(waits).map(|wait| wait.long))
    }

    fn add(&mut self, pending: &Pending, long: Uuid) {
        let since = Some(pending.accepted_at);
        for account_id in pending.accounts() {
            let wait = self.0.entry(account_id).or_insert(Wait { long, since });
            if since < wait.since {
                *wait = Wait { long, since };
            }
        }
    }
}

impl StateRebuilds {
    pub(super) fn new(context: RebuildContext) -> Self {
        Self { context, running: HashMap::new(), waiting: HashMap::new(), done: mpsc::unbounded_channel() }
    }

    /// Takes the commands of accounts that are [`NotLoaded::TooLong`] out of a batch, and starts a task for each such account. The
    /// later commands of all accounts of such a command wait, too, so that the order of the commands of each account stays.
    pub(super) fn put_aside(&mut self, batch: &mut Vec<Pending>, prepared: &LoadedAccounts) {
        let too_long = prepared.iter().filter(|(_, loaded)| matches!(loaded, Err(NotLoaded::TooLong)));
        let too_long: Vec<Uuid> = too_long.map(|(account_id, _)| *account_id).collect();
        if too_long.is_empty() && self.waiting.is_empty() {
            return;
        }
        let mut waits = self.waits();
        waits.0.extend(too_long.iter().map(|account_id| (*account_id, Wait { long: *account_id, since: None })));
        let mut waiting = self.waiting.values().flatten().map(|pending| pending.commands().len()).sum::<usize>();
        for pending in mem::take(batch) {
            let Some(long) = waits.of(&pending) else {
                batch.push(pending);
                continue;
            };
            if too_long.contains(&long) {
                self.start(long);
            }
            let commands = pending.commands().len();
            if waiting + commands > QUEUE_COMMANDS_MAX || pending.accepted_at.elapsed() > OUTAGE_WAIT_MAX {
                reject(pending);
            } else {
                waiting += commands;
                waits.add(&pending, long);
                let group = self.waiting.entry(long).or_default();
                group.insert(group.partition_point(|other| other.accepted_at <= pending.accepted_at), pending);
            }
        }
    }

    /// The accounts of the commands that wait.
    pub(super) fn waits(&self) -> Waits {
        let mut waits = Waits::default();
        for (long, commands) in &self.waiting {
            commands.iter().for_each(|pending| waits.add(pending, *long));
        }
        waits
    }

    /// The commands of the next account whose task has ended; the account may still be too long if the task has failed. An empty
    /// result means that commands have waited too long and were rejected. Cancellation safe.
    pub(super) async fn next_ready(&mut self) -> Vec<Pending> {
        if self.running.is_empty() {
            return pending().await;
        }
        let deadline = self.waiting.values().flatten().map(|pending| pending.accepted_at).min();
        let overdue = async {
            match deadline {
                Some(accepted_at) => sleep_until(accepted_at + OUTAGE_WAIT_MAX).await,
                None => pending().await,
            }
        };
        select! {
            Some(account_id) = self.done.1.recv() => {
                self.running.remove(&account_id);
                self.waiting.remove(&account_id).unwrap_or_default()
            }
            () = overdue => {
                self.reject_overdue();
                vec![]
            }
        }
    }

    /// Rejects all waiting commands. Nothing was written for them.
    pub(super) fn reject_all(&mut self) {
        self.waiting.drain().flat_map(|(_, commands)| commands).for_each(reject);
    }

    fn reject_overdue(&mut self) {
        let now = Instant::now();
        for commands in self.waiting.values_mut() {
            let overdue = commands.extract_if(.., |pending| now >= pending.accepted_at + OUTAGE_WAIT_MAX);
            overdue.for_each(reject);
        }
        self.waiting.retain(|_, commands| !commands.is_empty());
    }

    fn start(&mut self, account_id: Uuid) {
        let (context, done) = (self.context.clone(), self.done.0.clone());
        self.running.entry(account_id).or_insert_with(|| {
            AbortOnDropHandle::new(supervision::spawn("state rebuild", async move {
                if let Ok(_permit) = context.permits.acquire().await
                    && let Err(error) = rebuild(&context, account_id).await
                {
                    tracing::warn!(%account_id, reason = error.reason, "account state could not be rebuilt");
                }
                // Sending fails if the executor has ended.
                let _ = done.send(account_id);
            }))
        });
    }
}

fn reject(pending: Pending) {
    pending.reject(&Error::StorageUnavailable { reason: STATE_REBUILDING });
}

/// Folds the account from its last snapshot on, and stores snapshots of the state.
async fn rebuild(context: &RebuildContext, account_id: Uuid) -> Result<(), StorageError> {
    let partition = context.partitions.partition_of(account_id);
    let mut connection = with_timeout(CONNECT_TIMEOUT, context.primary.connect()).await?;
    let reading = stream::read_snapshot(&mut connection, partition, account_id, STATE_VERSION);
    let snapshot = with_timeout(STATEMENT_TIMEOUT, reading).await?;
    let mut folded = snapshot.and_then(|Snapshot { version, state, .. }| {
        Some(CachedAccount { version, account: serde_json::from_str(&state).ok()? })
    });
    let mut stored = folded.as_ref().map_or(0, |folded| folded.version);
    tracing::info!(%account_id, version = stored, "rebuilding the state of a long account");
    loop {
        let before = folded.take().unwrap_or_default();
        let after = StreamVersion { stream_id: account_id, version: before.version };
        let reading = stream::events_after(&mut connection, partition, after, SLICE_EVENTS_MAX);
        let events = with_timeout(STATEMENT_TIMEOUT, reading).await?;
        let mut is_last = (events.len() as i64) < SLICE_EVENTS_MAX;
        let mut state = before;
        for event in events {
            let decoded = Event::decode(&event.event_type, event.schema_version, &event.data);
            let decoded = context.gate.check(account_id, event.version, decoded)?;
            match evolve(state.clone(), event.version, decoded, event.recorded_at) {
                Ok(next) => state = next,
                Err(error) => {
                    if let FoldError::Damaged(reason) = error {
                        tracing::error!(%account_id, reason, "account cannot be folded; its commands fail");
                    }
                    // With a snapshot up to here, the next load reaches this event at once and fails for good.
                    is_last = true;
                    break;
                }
            }
        }
        if (is_last && state.version > stored) || state.version >= stored + SNAPSHOT_EVENTS {
            let version = state.version;
            if let Ok(state) = serde_json::to_string(&state.account) {
                let snapshot = Snapshot { stream_id: account_id, version, state };
                let writing = stream::write_snapshot(&mut connection, partition, STATE_VERSION, &snapshot);
                with_timeout(STATEMENT_TIMEOUT, writing).await?;
            }
            stored = version;
        }
        if is_last {
            tracing::info!(%account_id, version = state.version, "state of a long account is rebuilt");
            return Ok(());
        }
        folded = Some(state);
        yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sqlx::postgres::PgConnectOptions;
    use tokio::sync::{oneshot, watch};

    use super::*;
    use crate::pending::CommandResult;

    /// The accounts whose states cannot be loaded for a batch.
    const LONG: [u128; 2] = [1, 2];

    /// Rebuilds whose database refuses connections.
    fn rebuilds() -> StateRebuilds {
        let primary = PrimaryConnector::new(vec![PgConnectOptions::new().host("127.0.0.1").port(1)]);
        let gate = UnsupportedEventGate::new(Arc::new(watch::Sender::new(None)), Partitions::ONE);
        StateRebuilds::new(RebuildContext::new(primary, Partitions::ONE, gate))
    }

    fn too_long(accounts: &[u128]) -> LoadedAccounts {
        accounts.iter().map(|account| (Uuid::from_u128(*account), Err(NotLoaded::TooLong))).collect()
    }

    /// Commands to these accounts, accepted in this order.
    fn commands(accounts: &[&[u128]]) -> (Vec<Pending>, Vec<oneshot::Receiver<CommandResult>>) {
        accounts.iter().map(|accounts| Pending::of_accounts(accounts)).unzip()
    }

    fn accounts(work: &[Pending]) -> Vec<Vec<u128>> {
        work.iter().map(|pending| pending.accounts().map(|account_id| account_id.as_u128()).collect()).collect()
    }

    /// Ends the task of an account, and puts its commands aside again if they have to wait for others. Returns those that need not.
    fn end(rebuilds: &mut StateRebuilds, account: u128) -> Vec<Vec<u128>> {
        let long = Uuid::from_u128(account);
        rebuilds.running.remove(&long);
        let mut ready = rebuilds.waiting.remove(&long).unwrap_or_default();
        rebuilds.put_aside(&mut ready, &LoadedAccounts::new());
        accounts(&ready)
    }

    #[tokio::test]
    async fn later_commands_of_the_accounts_of_a_waiting_command_wait_too() {
        let mut rebuilds = rebuilds();
        let (mut batch, _results) = commands(&[&[7], &[1, 7], &[7, 8], &[8], &[9]]);
        rebuilds.put_aside(&mut batch, &too_long(&LONG));
        assert_eq!(accounts(&batch), [vec![7], vec![9]]);
        let (mut later, _later_results) = commands(&[&[8, 9], &[5]]);
        rebuilds.put_aside(&mut later, &LoadedAccounts::new());
        assert_eq!(accounts(&later), [[5]]);
        assert_eq!(end(&mut rebuilds, 1), [vec![1, 7], vec![7, 8], vec![8], vec![8, 9]]);
    }

    #[tokio::test]
    async fn command_does_not_wait_for_later_ones_of_another_task() {
        let mut rebuilds = rebuilds();
        let (mut batch, _results) = commands(&[&[1, 7], &[2, 7]]);
        rebuilds.put_aside(&mut batch, &too_long(&LONG));
        assert!(batch.is_empty());
        assert_eq!(end(&mut rebuilds, 1), [[1, 7]]);
        assert_eq!(end(&mut rebuilds, 2), [[2, 7]]);
    }

    #[tokio::test]
    async fn command_whose_task_ends_first_waits_for_earlier_ones() {
        let mut rebuilds = rebuilds();
        let (mut batch, _results) = commands(&[&[1, 7], &[2, 7], &[7]]);
        rebuilds.put_aside(&mut batch, &too_long(&LONG));
        assert!(end(&mut rebuilds, 2).is_empty());
        assert_eq!(end(&mut rebuilds, 1), [vec![1, 7], vec![2, 7], vec![7]]);
    }

    #[tokio::test]
    async fn waiting_accounts_are_known_to_commands_that_would_join_a_batch() {
        let mut rebuilds = rebuilds();
        let (mut batch, _results) = commands(&[&[1, 7]]);
        rebuilds.put_aside(&mut batch, &too_long(&LONG));
        let (later, _later_results) = commands(&[&[7], &[8]]);
        let waits = rebuilds.waits();
        assert_eq!([0, 1].map(|number| waits.of(&later[number])), [Some(Uuid::from_u128(1)), None]);
    }
}
