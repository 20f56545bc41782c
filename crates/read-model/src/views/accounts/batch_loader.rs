//! Queries for single accounts share statements (the DataLoader pattern): queries that arrive while a statement runs are answered
//! together by the next one. Many concurrent readers thus cost the database little more than one. There is no timer, so a single
//! reader does not wait.
//!
//! A loader keeps its connection between two statements. A pool pings a connection before and after each use, which are two more
//! round trips to the database.

use std::{collections::HashMap, sync::Arc, time::Duration};

use sqlx::{Postgres, Result, pool::PoolConnection};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::yield_now,
    time::{Instant, timeout},
};
use uuid::Uuid;

use super::view::{AccountView, ReadAccount, read_live};
use crate::{
    positioned::Positioned,
    query_router::{QueryRouter, Target},
};
use passbook_event_store::{Partitions, with_timeout};
use passbook_telemetry::supervision;

/// Limit of queries in the queue.
const QUEUE_LOADS_MAX: usize = 1_024;
/// Limit of queries that share one statement.
const BATCH_LOADS_MAX: usize = 256;
/// Limit of connections that the loaders of all partitions keep. It is smaller than the pool, so other queries get a connection.
const KEPT_CONNECTIONS_MAX: usize = 4;
/// How long a connection is kept while no query arrives, in milliseconds.
const KEPT_IDLE_MS_MAX: u64 = 50;
/// How long a connection is kept, in milliseconds. The pool then checks it again, so that no connection leads to a former primary
/// for longer.
const KEPT_MS_MAX: u64 = 500;

/// The account in the live generation; `None` if no generation is live.
type LoadedAccount = Option<Positioned<Option<AccountView>>>;

/// The handle to the task that loads accounts of one partition, cheap to clone. The task ends with its last clone.
#[derive(Clone)]
pub(crate) struct AccountLoader(mpsc::Sender<Load>);

struct Load {
    account_id: Uuid,
    result: oneshot::Sender<LoadedAccount>,
}

impl AccountLoader {
    /// Starts one loader per partition, in order.
    pub(crate) fn start_all(router: &QueryRouter, partitions: Partitions) -> Vec<Self> {
        let slots = Arc::new(Semaphore::new(KEPT_CONNECTIONS_MAX));
        partitions
            .all()
            .map(|partition| Self::start(router.clone(), partitions, partition, Arc::clone(&slots)))
            .collect()
    }

    fn start(router: QueryRouter, partitions: Partitions, partition: i16, slots: Arc<Semaphore>) -> Self {
        let (sender, queue) = mpsc::channel(QUEUE_LOADS_MAX);
        let reader = Reader { partitions, partition, slots, kept: None };
        let loader = Loader { router, queue, reader };
        supervision::spawn("account loader", loader.run());
        Self(sender)
    }

    /// Loads an account. `None`: the shared statement failed, or the task has ended. The caller then runs a statement of its own and
    /// gets its error.
    pub(crate) async fn load(&self, account_id: Uuid) -> Option<LoadedAccount> {
        let (result, loaded) = oneshot::channel();
        self.0.send(Load { account_id, result }).await.ok()?;
        loaded.await.ok()
    }
}

struct Loader {
    router: QueryRouter,
    queue: mpsc::Receiver<Load>,
    reader: Reader,
}

impl Loader {
    async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH_LOADS_MAX);
        loop {
            let received = self.queue.recv_many(&mut batch, BATCH_LOADS_MAX);
            let received = match self.reader.kept {
                None => received.await,
                Some(_) => match timeout(Duration::from_millis(KEPT_IDLE_MS_MAX), received).await {
                    Ok(received) => received,
                    Err(_) => {
                        self.reader.kept = None;
                        continue;
                    }
                },
            };
            if received == 0 {
                return;
            }
            self.gather(&mut batch).await;
            self.load(&mut batch).await;
        }
    }

    /// Adds the queries of requests that have arrived and wait for a thread. The first query wakes this task before they get one.
    async fn gather(&mut self, batch: &mut Vec<Load>) {
        let mut gathered = 0;
        while gathered < batch.len() && batch.len() < BATCH_LOADS_MAX {
            gathered = batch.len();
            yield_now().await;
            while batch.len() < BATCH_LOADS_MAX
                && let Ok(load) = self.queue.try_recv()
            {
                batch.push(load);
            }
        }
    }

    /// Answers a batch with one statement. On an error the senders are dropped, so each caller runs its own statement.
    async fn load(&mut self, batch: &mut Vec<Load>) {
        let mut ids: Vec<Uuid> = batch.iter().map(|load| load.account_id).collect();
        ids.sort_unstable();
        ids.dedup();
        let loads = batch.drain(..);
        let target = self.router.shared_target();
        let Ok(accounts) = with_timeout(target.timeout(), self.reader.read(&target, &ids)).await else { return };
        let accounts: Option<Positioned<HashMap<Uuid, AccountView>>> = accounts.map(|accounts| accounts.map(by_id));
        for Load { account_id, result } in loads {
            let account = accounts.as_ref().map(|accounts| Positioned {
                value: accounts.value.get(&account_id).cloned(),
                position: accounts.position.clone(),
                generation: accounts.generation,
            });
            // The caller may have been cancelled.
            let _ = result.send(account);
        }
    }
}

/// Reads accounts of one partition, and keeps its connection between two statements.
struct Reader {
    partitions: Partitions,
    partition: i16,
    /// One permit for each connection that may be kept.
    slots: Arc<Semaphore>,
    kept: Option<KeptConnection>,
}

struct KeptConnection {
    connection: PoolConnection<Postgres>,
    is_replica: bool,
    kept_since: Instant,
    _slot: OwnedSemaphorePermit,
}

impl KeptConnection {
    /// Whether the connection leads to the server of `target`, and its pool need not check it again.
    fn is_usable(&self, target: &Target<'_>) -> bool {
        self.is_replica == target.is_replica && self.kept_since.elapsed() < Duration::from_millis(KEPT_MS_MAX)
    }
}

impl Reader {
    /// Reads accounts with the kept connection, or with one of the pool. A kept connection that fails is replaced, because it may
    /// have been lost since its last statement.
    async fn read(&mut self, target: &Target<'_>, ids: &[Uuid]) -> Result<Option<Positioned<Vec<ReadAccount>>>> {
        let (partitions, partition) = (self.partitions, self.partition);
        if let Some(mut kept) = self.kept.take().filter(|kept| kept.is_usable(target))
            && let Ok(accounts) = read_live(&mut *kept.connection, partitions, partition, ids).await
        {
            self.kept = Some(kept);
            return Ok(accounts);
        }
        let mut connection = target.pool.acquire().await?;
        let accounts = read_live(&mut *connection, partitions, partition, ids).await?;
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            let (is_replica, kept_since) = (target.is_replica, Instant::now());
            self.kept = Some(KeptConnection { connection, is_replica, kept_since, _slot: slot });
        }
        Ok(accounts)
    }
}

fn by_id(accounts: Vec<ReadAccount>) -> HashMap<Uuid, AccountView> {
    accounts.into_iter().map(|account| (account.row.account_id, account.view())).collect()
}
