//! The worker of a process: claims endpoints that no process owns and delivers to each in a task of its own. No instance is a leader: a
//! claim is a lease in the row of the endpoint, and ends with the process.

use std::{collections::HashMap, time::Duration};

use chrono::{TimeDelta, Utc};
use passbook_event_store::with_timeout;
use passbook_telemetry::supervision;
use sqlx::Connection;
use tokio::{
    select,
    sync::mpsc,
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use uuid::Uuid;

use crate::{
    delivery::{Context, Deliveries, Ended},
    secret::Secret,
    service::Webhooks,
    shared_log::SharedLog,
    store::{self, Claimed},
};

/// How a task ended.
struct EndedTask {
    webhook_id: Uuid,
    task: u64,
    generation: i64,
    ended: Ended,
}

/// The interval at which the endpoints of this process are looked at: another instance may have paused one.
const OWNED_POLL_MS: u64 = 250;
/// The interval of the search for endpoints while this process has none.
const IDLE_POLL_MS: u64 = 1_000;
/// The endpoints that are claimed at once, so that instances which start together share them.
const CLAIMS_MAX: usize = 4;
/// The time limit of a look.
const LOOK_S_MAX: u64 = 5;
/// The interval at which the lag is reported.
const LAG_MS: u64 = 5_000;
/// How many days attempts are kept.
const DELIVERY_DAYS: i64 = 30;
/// The attempts that one statement deletes, and the pause between two.
const DELETED_ROWS_MAX: i64 = 1_000;
const DELETION_PAUSE_MS: u64 = 50;
/// The interval between two deletions of old attempts, in seconds.
const DELETION_INTERVAL_S: u64 = 600;

/// The worker of a process.
pub struct Worker {
    webhooks: Webhooks,
    context: Context,
    tasks: HashMap<Uuid, Task>,
    ended: (mpsc::UnboundedSender<EndedTask>, mpsc::UnboundedReceiver<EndedTask>),
    lag_at: Instant,
    /// The number of the next task.
    next_task: u64,
}

/// The deliveries to one endpoint.
struct Task {
    /// A process can claim an endpoint again in the same generation, while the message of the former task is on its way.
    number: u64,
    generation: i64,
    stop: CancellationToken,
    handle: AbortOnDropHandle<()>,
}

impl Worker {
    pub(crate) fn new(webhooks: Webhooks) -> Self {
        let inner = webhooks.inner();
        let context = Context {
            process: inner.process,
            pool: inner.pool.clone(),
            primary: inner.writer.clone(),
            log: SharedLog::new(inner.pool.clone(), inner.partitions),
            client: inner.client.clone(),
            timing: inner.timing,
        };
        Self {
            webhooks,
            context,
            tasks: HashMap::new(),
            ended: mpsc::unbounded_channel(),
            lag_at: Instant::now(),
            next_task: 0,
        }
    }

    /// Delivers until `shutdown` is cancelled, then gives all endpoints back. Meanwhile it deletes old attempts.
    pub async fn run(self, shutdown: CancellationToken) {
        if let Err(error) = self.webhooks.rewrap_secrets().await {
            tracing::warn!(%error, "webhook secrets could not be sealed under the current key; the next start tries again");
        }
        let webhooks = self.webhooks.clone();
        let deleting = shutdown.run_until_cancelled(webhooks.delete_at_intervals());
        tokio::join!(self.deliver(&shutdown), deleting);
    }

    async fn deliver(mut self, shutdown: &CancellationToken) {
        while !shutdown.is_cancelled() {
            if let Err(error) = self.look().await {
                tracing::debug!(%error, "endpoints could not be read; retrying");
            }
            if Instant::now() >= self.lag_at {
                self.lag_at = Instant::now() + Duration::from_millis(LAG_MS);
                if let Err(error) = self.webhooks.report_lag().await {
                    tracing::debug!(%error, "lag of webhooks could not be read");
                }
            }
            let pause_ms = if self.tasks.is_empty() { IDLE_POLL_MS } else { OWNED_POLL_MS };
            select! {
                () = shutdown.cancelled() => {}
                () = self.webhooks.inner().changed.notified() => {}
                Some(ended) = self.ended.1.recv() => self.on_end(ended).await,
                () = sleep(Duration::from_millis(pause_ms)) => {}
            }
        }
        for task in self.tasks.values() {
            task.stop.cancel();
        }
        for task in self.tasks.into_values() {
            // A panic is reported by the supervision.
            let _ = task.handle.await;
        }
    }

    /// Stops the deliveries to endpoints that this process owns no more, and claims others.
    async fn look(&mut self) -> sqlx::Result<()> {
        let (context, has_tasks) = (&self.context, !self.tasks.is_empty());
        // Without keys it cannot sign. Another instance may have them.
        let claims_max = if self.webhooks.inner().keys.get().is_ok() { CLAIMS_MAX } else { 0 };
        let looking = async {
            let mut connection = context.pool.acquire().await?;
            let owned = match has_tasks {
                true => store::owned(&mut connection, context.process).await?,
                false => vec![],
            };
            let mut claimed = Vec::new();
            for _ in 0..claims_max {
                let mut transaction = connection.begin().await?;
                let Some(found) = store::claim(&mut transaction, context.process, context.timing.lease()).await? else {
                    break;
                };
                transaction.commit().await?;
                claimed.push(found);
            }
            Ok((owned, claimed))
        };
        let (owned, claimed) = with_timeout(Duration::from_secs(LOOK_S_MAX), looking).await?;
        for (id, task) in self.tasks.iter().filter(|(id, task)| !owned.contains(&(**id, task.generation))) {
            tracing::debug!(webhook_id = %id, "webhook was changed, or another instance delivers");
            task.stop.cancel();
        }
        for claimed in claimed {
            self.start(claimed).await;
        }
        self.tasks.retain(|_, task| !task.handle.is_finished());
        Ok(())
    }

    async fn start(&mut self, claimed: Claimed) {
        let (webhook_id, generation) = (claimed.webhook_id, claimed.generation);
        if let Some(former) = self.tasks.remove(&webhook_id) {
            former.stop.cancel();
            // A panic is reported by the supervision.
            let _ = former.handle.await;
        }
        let secrets = match self.open_secrets(&claimed) {
            Ok(secrets) => secrets,
            Err(error) => {
                tracing::error!(%webhook_id, error, "webhook secret cannot be opened; nothing is delivered");
                return;
            }
        };
        let (stop, number) = (CancellationToken::new(), self.next_task);
        self.next_task += 1;
        let (context, sender, stopped) = (self.context.clone(), self.ended.0.clone(), stop.clone());
        let handle = supervision::spawn("webhook", async move {
            let loading = Deliveries::load(context, claimed, secrets);
            let ended = match stopped.run_until_cancelled(loading).await {
                Some(Ok(deliveries)) => deliveries.run(&stopped).await,
                Some(Err(error)) => {
                    tracing::warn!(%webhook_id, %error, "webhook progress could not be read; retrying");
                    Ended::Stopped
                }
                None => Ended::Stopped,
            };
            // The receiver is gone only at a shutdown.
            let _ = sender.send(EndedTask { webhook_id, task: number, generation, ended });
        });
        self.webhooks.inner().set_running(webhook_id, stop.clone());
        let handle = AbortOnDropHandle::new(handle);
        self.tasks.insert(webhook_id, Task { number, generation, stop, handle });
    }

    fn open_secrets(&self, claimed: &Claimed) -> Result<Vec<Secret>, String> {
        let keys = self.webhooks.inner().keys.get().map_err(|reason| reason.to_string())?;
        let open = |sealed: &[u8]| Secret::open(keys, claimed.webhook_id, sealed).map_err(|error| error.to_string());
        let mut secrets = vec![open(&claimed.secret)?];
        // The current secret is enough for a delivery. The former one may be sealed under a key that was lost.
        secrets.extend(claimed.former_secret.as_deref().and_then(|former| open(former).ok()));
        Ok(secrets)
    }

    async fn on_end(&mut self, EndedTask { webhook_id, task: number, generation, ended }: EndedTask) {
        if self.tasks.get(&webhook_id).is_some_and(|task| task.number == number) {
            self.tasks.remove(&webhook_id);
        }
        if ended == Ended::Gone
            && let Err(error) = self.webhooks.pause_gone(webhook_id, generation).await
        {
            tracing::warn!(%webhook_id, %error, "webhook that answered 410 could not be paused; retrying");
        }
    }
}

impl Webhooks {
    async fn delete_at_intervals(&self) {
        loop {
            if let Err(error) = self.delete_old_deliveries().await {
                tracing::warn!(%error, "deletion of old webhook attempts failed; retrying");
            }
            sleep(Duration::from_secs(DELETION_INTERVAL_S)).await;
        }
    }

    /// Deletes attempts that are older than 30 days, in slices.
    async fn delete_old_deliveries(&self) -> sqlx::Result<()> {
        let before = Utc::now() - TimeDelta::days(DELIVERY_DAYS);
        loop {
            let mut connection = self.inner().pool.acquire().await?;
            let slice = store::delete_deliveries(&mut connection, before, DELETED_ROWS_MAX);
            let rows = with_timeout(Duration::from_secs(LOOK_S_MAX), slice).await?;
            if rows < DELETED_ROWS_MAX.unsigned_abs() {
                return Ok(());
            }
            drop(connection);
            sleep(Duration::from_millis(DELETION_PAUSE_MS)).await;
        }
    }
}
