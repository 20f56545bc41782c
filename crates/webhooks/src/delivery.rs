//! Delivers the events of the log to one endpoint, which this process owns: reads events, sends those that the endpoint wants, at most
//! [`IN_FLIGHT_MAX`] at a time and in order for each account, and stores at intervals how far it came.

use std::{sync::Arc, time::Duration};

use chrono::Utc;
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use passbook_domain::{Aggregate, EventType};
use passbook_event_store::{PrimaryConnector, VerifiedPrimary, reader, with_timeout};
use passbook_telemetry::metrics::METRICS;
use sqlx::{Connection, PgPool};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    client::{Attempt, DeliveryClient, Message},
    queues::{Account, Failures, Parked, Queues},
    secret::Secret,
    shared_log::{LogCursor, LogEvent, ReadError, SharedLog},
    store::{self, Claimed, DeliveryRow, Health},
    timing::Timing,
};

/// The attempts of one endpoint at the same time.
const IN_FLIGHT_MAX: usize = 16;
/// The interval between two polls of the log. It doubles while there is nothing to do.
const POLL_MS_MIN: u64 = 20;
const POLL_MS_MAX: u64 = 250;
/// The pages that are read between two looks at the deliveries.
const PAGES_MAX: usize = 8;
/// The events of a parked account that one statement reads.
const RESTORED_EVENTS_MAX: i64 = 500;
/// The interval at which progress is stored.
const STORE_MS: u64 = 500;
/// The attempts that are stored at the latest then.
const STORED_ATTEMPTS_MAX: usize = 1_000;
/// The time limit of a transaction.
const STORE_S_MAX: u64 = 5;
/// How long attempts in flight may take at a shutdown.
const SHUTDOWN_MS_MAX: u64 = 2_000;
/// The pause after the database failed, in milliseconds.
const RETRY_MS: u64 = 500;

/// What the deliveries to all endpoints share.
#[derive(Clone)]
pub(crate) struct Context {
    /// This process.
    pub(crate) process: Uuid,
    pub(crate) pool: PgPool,
    /// Finds the primary if the log seems to have another history.
    pub(crate) primary: PrimaryConnector,
    pub(crate) log: SharedLog,
    pub(crate) client: DeliveryClient,
    pub(crate) timing: Timing,
}

/// Why the deliveries to an endpoint ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The process shuts down, or owns the endpoint no more.
    Stopped,
    /// The endpoint answered 410: it is to be paused.
    Gone,
    /// An event was given up: the endpoint is failing.
    Failing,
}

/// The deliveries to one endpoint.
pub(crate) struct Deliveries {
    context: Context,
    claimed: Claimed,
    secrets: Arc<[Secret]>,
    /// How far the log was read, by partition.
    read: Vec<LogCursor>,
    /// How far it is stored as delivered.
    stored: Vec<LogCursor>,
    queues: Queues,
    in_flight: FuturesUnordered<BoxFuture<'static, (Account, Arc<LogEvent>, Attempt)>>,
    health: Health,
    attempts: Vec<DeliveryRow>,
    /// Whether the stored parked accounts differ from those of the queues.
    parked_changed: bool,
    /// No attempt begins before this time, because the endpoint asked for a pause.
    not_before: Instant,
    stored_at: Instant,
    poll_ms: u64,
}

impl Deliveries {
    /// Loads the progress of an endpoint.
    ///
    /// # Errors
    /// The database failed.
    pub(crate) async fn load(context: Context, claimed: Claimed, secrets: Vec<Secret>) -> sqlx::Result<Self> {
        let (read, parked) = with_timeout(Duration::from_secs(STORE_S_MAX), async {
            let mut connection = context.pool.acquire().await?;
            let read = store::cursors(&mut connection, claimed.webhook_id).await?;
            Ok((read, store::parked(&mut connection, claimed.webhook_id).await?))
        })
        .await?;
        let mut deliveries = Self {
            context,
            claimed,
            secrets: secrets.into(),
            stored: read.clone(),
            read,
            queues: Queues::default(),
            in_flight: FuturesUnordered::new(),
            health: Health::default(),
            attempts: Vec::new(),
            parked_changed: false,
            not_before: Instant::now(),
            stored_at: Instant::now(),
            poll_ms: POLL_MS_MIN,
        };
        let failing = parked.iter().filter(|parked| parked.failures.count > 0);
        deliveries.health.failing_since = failing.map(|parked| parked.failures.since).min();
        for parked in parked {
            deliveries.renew_lease().await?;
            deliveries.restore(parked).await?;
        }
        deliveries.health.failing_since = deliveries.queues.failing_since();
        Ok(deliveries)
    }

    /// Extends the lease if a third of it is over. Whether this process still has it is found out by the next [`Self::store`].
    async fn renew_lease(&mut self) -> sqlx::Result<()> {
        let lease = self.context.timing.lease();
        if self.stored_at.elapsed() < lease / 3 {
            return Ok(());
        }
        let mut connection = self.context.pool.acquire().await?;
        if store::keep(&mut connection, self.context.process, &self.claimed, &self.health, lease).await? {
            self.stored_at = Instant::now();
        }
        Ok(())
    }

    /// Reads the events of a parked account up to the position from which reading continues. Events that the filters leave out are
    /// passed over, so those that wait are no more than waited before.
    async fn restore(&mut self, parked: Parked) -> sqlx::Result<()> {
        let Account { partition, stream_id } = parked.account;
        let until = self.read.iter().find(|cursor| cursor.partition == partition).map_or(0, |cursor| cursor.position);
        let (mut version, mut waiting) = (parked.version, Vec::new());
        loop {
            let page = self.context.log.of_stream((partition, stream_id), version, RESTORED_EVENTS_MAX).await?;
            let is_last = (page.len() as i64) < RESTORED_EVENTS_MAX;
            for event in page {
                if event.position > until {
                    self.queues.restore(parked.account, parked.failures, waiting);
                    return Ok(());
                }
                version = event.record.version + 1;
                if wants(&self.context.log, &self.claimed, &event).await? {
                    waiting.push(event);
                }
            }
            if is_last {
                self.queues.restore(parked.account, parked.failures, waiting);
                return Ok(());
            }
        }
    }

    /// Delivers until the endpoint wants no more, fails, or `shutdown` is cancelled.
    pub(crate) async fn run(mut self, shutdown: &CancellationToken) -> Ended {
        while !shutdown.is_cancelled() {
            match self.step(shutdown).await {
                Ok(None) => {}
                Ok(Some(ended)) => return ended,
                Err(error) => {
                    let webhook_id = self.claimed.webhook_id;
                    tracing::warn!(%webhook_id, %error, "webhook progress could not be read or stored; retrying");
                    let pause = sleep_until(Instant::now() + Duration::from_millis(RETRY_MS));
                    shutdown.run_until_cancelled(pause).await;
                }
            }
        }
        self.finish().await;
        Ended::Stopped
    }

    async fn step(&mut self, shutdown: &CancellationToken) -> sqlx::Result<Option<Ended>> {
        let has_read = self.fill().await?;
        self.start_attempts();
        if let Some(ended) = self.wait(has_read || self.is_store_due(), shutdown).await {
            self.store().await?;
            return Ok(Some(ended));
        }
        if (self.is_store_due() || self.attempts.len() >= STORED_ATTEMPTS_MAX) && !self.store().await? {
            return Ok(Some(Ended::Stopped));
        }
        Ok(None)
    }

    fn is_store_due(&self) -> bool {
        self.stored_at.elapsed() >= Duration::from_millis(STORE_MS)
    }

    /// Waits for the next attempt that ends, or until something is due.
    async fn wait(&mut self, has_read: bool, shutdown: &CancellationToken) -> Option<Ended> {
        self.poll_ms = if has_read { POLL_MS_MIN } else { (self.poll_ms * 2).min(POLL_MS_MAX) };
        let mut until = Instant::now() + Duration::from_millis(if has_read { 0 } else { self.poll_ms });
        if self.in_flight.len() < IN_FLIGHT_MAX
            && let Some(next) = self.queues.next_attempt()
        {
            until = until.min(next.max(self.not_before));
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => None,
            Some(ended) = self.in_flight.next(), if !self.in_flight.is_empty() => {
                let mut result = self.ended(ended);
                // Collect the other attempts that have ended.
                while result.is_none()
                    && let Some(Some(ended)) = futures_util::FutureExt::now_or_never(self.in_flight.next())
                {
                    result = self.ended(ended);
                }
                result
            }
            () = sleep_until(until) => None,
        }
    }

    /// Reads events while there is room, until the progress is due to be stored. Returns whether there were any.
    async fn fill(&mut self) -> sqlx::Result<bool> {
        let mut has_read = false;
        for index in 0..self.read.len() {
            for _ in 0..PAGES_MAX {
                if !self.queues.has_room() || self.is_store_due() {
                    break;
                }
                let events = match self.context.log.after(&self.read[index]).await {
                    Ok(events) => events,
                    Err(ReadError::Storage(error)) => return Err(error),
                    Err(error @ ReadError::OtherHistory(_)) => {
                        if !self.has_other_history(index).await? {
                            break;
                        }
                        tracing::error!(webhook_id = %self.claimed.webhook_id, %error, "webhook stops; set its position with replay");
                        self.health.last_error = Some(error.to_string());
                        self.health.failing_since.get_or_insert(Utc::now());
                        self.health.is_given_up = true;
                        self.store().await?;
                        return Ok(false);
                    }
                };
                if events.is_empty() {
                    break;
                }
                has_read = true;
                for event in events {
                    // The look-up of an owner can take its time. What is not taken is read again.
                    if self.is_store_due() {
                        break;
                    }
                    self.take(index, event).await?;
                }
            }
        }
        Ok(has_read)
    }

    /// Whether the log of the primary does not contain the event that was read last. A former primary may have answered before.
    async fn has_other_history(&mut self, index: usize) -> sqlx::Result<bool> {
        let LogCursor { partition, position, hash } = self.read[index].clone();
        let VerifiedPrimary { mut connection, all_answered } = self.context.primary.connect_verified().await?;
        let reading = reader::hash_at(&mut connection, partition, position);
        let found = with_timeout(Duration::from_secs(STORE_S_MAX), reading).await?;
        // Best effort: the connection is closed either way.
        let _ = connection.close().await;
        Ok(all_answered && found.as_deref() != Some(&hash[..]))
    }

    async fn take(&mut self, index: usize, event: Arc<LogEvent>) -> sqlx::Result<()> {
        let is_wanted = wants(&self.context.log, &self.claimed, &event).await?;
        let cursor = &mut self.read[index];
        (cursor.position, cursor.hash) = (event.position, event.hash.clone());
        if is_wanted {
            let account = Account { partition: event.partition, stream_id: event.record.aggregate_id };
            self.queues.push(account, event);
        }
        Ok(())
    }

    fn start_attempts(&mut self) {
        let now = Instant::now();
        // Without a sign of life for so long, another process may own the endpoint.
        if self.stored_at.elapsed() >= self.context.timing.lease() {
            return;
        }
        while now >= self.not_before
            && self.in_flight.len() < IN_FLIGHT_MAX
            && let Some((account, event)) = self.queues.next(now)
        {
            let (client, url, secrets) =
                (self.context.client.clone(), self.claimed.url.clone(), Arc::clone(&self.secrets));
            let is_over = self.claimed.former_secret_until.is_some_and(|until| until <= Utc::now());
            let attempt = async move {
                let secrets = if is_over { &secrets[..1] } else { &secrets[..] };
                let message = Message { id: event.record.id.to_string(), body: event.body(), secrets };
                let attempt = client.send(&url, message).await;
                (account, event, attempt)
            };
            self.in_flight.push(Box::pin(attempt));
        }
    }

    /// Records the result of an attempt.
    fn ended(&mut self, (account, event, attempt): (Account, Arc<LogEvent>, Attempt)) -> Option<Ended> {
        self.attempts.push(delivery_row(event.record.id, &event.record.event_type, Some(&event), &attempt));
        self.health.last_status = attempt.status.and_then(|status| i16::try_from(status).ok());
        self.health.last_error.clone_from(&attempt.error);
        let outcome = if attempt.has_succeeded() { "delivered" } else { "failed" };
        METRICS.webhook_deliveries.with_label_values(&[outcome]).inc();
        let failures = self.queues.failures(account).filter(|failures| failures.count > 0);
        self.parked_changed |= self.queues.is_parked(account);
        if attempt.has_succeeded() {
            let age = Utc::now() - event.record.recorded_at;
            METRICS.webhook_delay.observe(age.as_seconds_f64().max(0.0));
            self.queues.delivered(account);
            self.health.failing_since = self.queues.failing_since();
            return None;
        }
        let now = Utc::now();
        let (count, since) = failures.map_or((1, now), |failures| (failures.count.saturating_add(1), failures.since));
        let pause = self.context.timing.pause(count, attempt.retry_after_s);
        let next_attempt = Instant::now() + pause;
        if attempt.retry_after_s.is_some() {
            self.not_before = self.not_before.max(next_attempt);
        }
        self.queues.failed(account, Failures { count, since, next_attempt });
        self.parked_changed = true;
        self.health.failing_since = self.queues.failing_since();
        let webhook_id = self.claimed.webhook_id;
        tracing::debug!(%webhook_id, event_id = %event.record.id, status = attempt.status, error = attempt.error, "webhook delivery failed");
        if attempt.is_gone() {
            return Some(Ended::Gone);
        }
        if self.context.timing.is_given_up(since, now) {
            tracing::warn!(%webhook_id, error = attempt.error, "webhook is failing; it waits for resume");
            self.health.is_given_up = true;
            return Some(Ended::Failing);
        }
        None
    }

    /// Stores how far the endpoint came. `false`: this process owns it no more.
    async fn store(&mut self) -> sqlx::Result<bool> {
        let settled: Vec<LogCursor> = self.settled().await?;
        let (context, claimed) = (&self.context, &self.claimed);
        let (lease, health) = (context.timing.lease(), &self.health);
        let writing = async {
            let mut connection = context.pool.acquire().await?;
            let mut transaction = connection.begin().await?;
            if !store::keep(&mut transaction, context.process, claimed, health, lease).await? {
                return Ok(false);
            }
            let changed: Vec<LogCursor> =
                settled.iter().filter(|cursor| !self.stored.contains(cursor)).cloned().collect();
            if !changed.is_empty() {
                store::set_cursors(&mut transaction, claimed.webhook_id, &changed).await?;
            }
            // Parked accounts and cursors are stored together: what a cursor passes is delivered or parked.
            if self.parked_changed || !changed.is_empty() && self.health.failing_since.is_some() {
                store::set_parked(&mut transaction, claimed.webhook_id, &self.queues.parked()).await?;
            }
            if !self.attempts.is_empty() {
                store::add_deliveries(&mut transaction, claimed.webhook_id, &self.attempts).await?;
            }
            transaction.commit().await?;
            Ok(true)
        };
        let is_owned = with_timeout(Duration::from_secs(STORE_S_MAX), writing).await?;
        self.stored = settled;
        self.attempts.clear();
        self.parked_changed = false;
        self.stored_at = Instant::now();
        Ok(is_owned)
    }

    /// The cursors up to which everything is delivered or parked.
    async fn settled(&mut self) -> sqlx::Result<Vec<LogCursor>> {
        let mut settled = Vec::new();
        for (read, stored) in self.read.iter().zip(&self.stored) {
            let position = self.queues.settled(read.partition, read.position);
            let cursor = match position {
                at if at == read.position => read.clone(),
                at if at <= stored.position => stored.clone(),
                at => match self.context.log.hash_at(read.partition, at).await? {
                    Some(hash) => LogCursor { partition: read.partition, position: at, hash },
                    None => stored.clone(),
                },
            };
            settled.push(cursor);
        }
        Ok(settled)
    }

    /// Waits for the attempts in flight, stores the progress and gives the endpoint back. Best effort: another process repeats what
    /// is not stored.
    async fn finish(mut self) {
        let draining = async {
            while let Some(ended) = self.in_flight.next().await {
                if self.ended(ended).is_some() {
                    break;
                }
            }
        };
        let _ = timeout(Duration::from_millis(SHUTDOWN_MS_MAX), draining).await;
        let storing = async {
            if self.store().await? {
                let mut connection = self.context.pool.acquire().await?;
                store::release(&mut connection, self.context.process, &self.claimed).await?;
            }
            sqlx::Result::<()>::Ok(())
        };
        if let Err(error) = storing.await {
            tracing::debug!(webhook_id = %self.claimed.webhook_id, %error, "webhook progress could not be stored");
        }
    }
}

/// Whether the filters of an endpoint select an event.
async fn wants(log: &SharedLog, claimed: &Claimed, event: &LogEvent) -> sqlx::Result<bool> {
    let (Claimed { types, account_id, owner, .. }, record) = (claimed, &event.record);
    let has_type = types.is_empty() || types.contains(&record.event_type);
    if !has_type || account_id.is_some_and(|account| account != record.aggregate_id) {
        return Ok(false);
    }
    match owner {
        None => Ok(true),
        Some(_) if EventType::aggregate_of(&record.event_type) != Aggregate::BankAccount => Ok(false),
        Some(owner) => Ok(log.owner(event.partition, record.aggregate_id).await?.as_deref() == Some(owner)),
    }
}

/// The row of an attempt. `event` is `None` for a test event.
pub(crate) fn delivery_row(
    event_id: Uuid,
    event_type: &str,
    event: Option<&LogEvent>,
    attempt: &Attempt,
) -> DeliveryRow {
    DeliveryRow {
        event_id,
        event_type: event_type.to_owned(),
        position: event.map(|event| event.record.position.to_string()),
        attempted_at: Utc::now() - attempt.duration,
        status: attempt.status.and_then(|status| i16::try_from(status).ok()),
        duration_ms: i32::try_from(attempt.duration.as_millis()).unwrap_or(i32::MAX),
        error: attempt.error.clone(),
    }
}
