//! Queries for single accounts share statements (the DataLoader pattern): queries that arrive while a statement runs are answered
//! together by the next one. Many concurrent readers thus cost the database little more than one. There is no timer, so a single
//! reader does not wait.

use std::collections::HashMap;

use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::view::{AccountView, ReadAccount, read_live};
use crate::{positioned::Positioned, query_router::QueryRouter};
use passbook_event_store::{Partitions, with_timeout};
use passbook_telemetry::supervision;

/// Limit of queries in the queue.
const QUEUE_LOADS_MAX: usize = 1_024;
/// Limit of queries that share one statement.
const BATCH_LOADS_MAX: usize = 256;

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
    pub(crate) fn start(router: QueryRouter, partitions: Partitions, partition: i16) -> Self {
        let (sender, mut queue) = mpsc::channel::<Load>(QUEUE_LOADS_MAX);
        supervision::spawn("account loader", async move {
            let mut batch = Vec::with_capacity(BATCH_LOADS_MAX);
            while queue.recv_many(&mut batch, BATCH_LOADS_MAX).await > 0 {
                load_batch(&router, partitions, partition, batch.drain(..)).await;
            }
        });
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

async fn load_batch(router: &QueryRouter, partitions: Partitions, partition: i16, batch: impl Iterator<Item = Load>) {
    let batch: Vec<Load> = batch.collect();
    let mut ids: Vec<Uuid> = batch.iter().map(|load| load.account_id).collect();
    ids.sort_unstable();
    ids.dedup();
    let target = router.shared_target();
    let accounts = with_timeout(target.timeout(), read_live(target.pool, partitions, partition, &ids)).await;
    // On an error the senders are dropped, so each caller runs its own statement.
    let Ok(accounts) = accounts else { return };
    let accounts: Option<Positioned<HashMap<Uuid, AccountView>>> = accounts.map(|accounts| accounts.map(by_id));
    for Load { account_id, result } in batch {
        let account = accounts.as_ref().map(|accounts| Positioned {
            value: accounts.value.get(&account_id).cloned(),
            position: accounts.position.clone(),
            generation: accounts.generation,
        });
        // The caller may have been cancelled.
        let _ = result.send(account);
    }
}

fn by_id(accounts: Vec<ReadAccount>) -> HashMap<Uuid, AccountView> {
    accounts.into_iter().map(|account| (account.row.account_id, account.view())).collect()
}
