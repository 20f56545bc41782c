//! The commands on endpoints. Registration, pause, resume and deletion are recorded in the log, in the transaction that changes the row.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use passbook_audit::{self as audit, CursorParam, EventFilter, EventReader};
use passbook_auth::WEBHOOKS;
use passbook_bank::{self as bank, AccountAccess, CommandContext, OtherAppend};
use passbook_domain::{
    EventType, OtherEvent,
    other_event::{PauseCause, WebhookDeleted, WebhookPaused, WebhookRegistered, WebhookResumed},
};
use passbook_event_store::{Partitions, PrimaryConnector, StreamVersion, log, reader, with_timeout};
use passbook_keys::{Keys, Unavailable};
use sha2::{Digest, Sha256};
use sqlx::{PgConnection, PgPool, query, query_scalar};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    client::{DeliveryClient, Message},
    delivery::delivery_row,
    secret::Secret,
    shared_log::LogCursor,
    store::{self, DeliveryRow},
    target::{InvalidUrl, Targets},
    timing::Timing,
    views::Webhook,
    worker::Worker,
};

/// The endpoints of a service.
pub const WEBHOOKS_MAX: i64 = 100;
/// How long the former secret signs beside the new one, in hours.
const FORMER_SECRET_HOURS: i64 = 24;
/// The time limit of a statement outside of the append.
const STATEMENT_S_MAX: u64 = 5;
/// The partition of the rows and of the streams of all endpoints.
const PARTITION: i16 = 0;

/// An endpoint to register.
#[derive(Clone, Debug)]
pub struct NewWebhook {
    /// The URL.
    pub url: String,
    /// The types of the events that it receives; empty: all.
    pub types: Vec<EventType>,
    /// The account whose events it receives; `None`: all.
    pub account_id: Option<Uuid>,
    /// The owner of the accounts whose events it receives; `None`: all.
    pub owner: Option<String>,
    /// It receives the events after this cursor; `None`: those after its registration.
    pub after: Option<CursorParam>,
}

/// Why a command on an endpoint was not executed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such endpoint.
    #[error("there is no webhook with this id")]
    NotFound,
    /// An endpoint has the same URL and filters.
    #[error("the webhook {0} has the same URL and the same filters")]
    Exists(Uuid),
    /// There are too many.
    #[error("there are {WEBHOOKS_MAX} webhooks, the most that a service has")]
    TooMany,
    /// No events can be sent to the URL.
    #[error(transparent)]
    InvalidUrl(#[from] InvalidUrl),
    /// There is no key to seal the secret.
    #[error("the secret of a webhook cannot be stored: {0}")]
    NoKeys(Unavailable),
    /// The cursor is not one of this log, or the log cannot be read.
    #[error(transparent)]
    Log(#[from] audit::Error),
    /// The event was not appended.
    #[error(transparent)]
    Append(#[from] bank::Error),
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] sqlx::Error),
}

/// The settings of webhooks.
pub struct Settings {
    /// The number of partitions of the log.
    pub partitions: Partitions,
    /// Connections for commands.
    pub writer: PrimaryConnector,
    /// Connections for deliveries. They show only events that the standbys have.
    pub pool: PgPool,
    /// Finds the events of cursors.
    pub reader: EventReader,
    /// Seal the secrets.
    pub keys: Keys,
    /// Where events may be sent.
    pub targets: Targets,
    /// The durations of deliveries.
    pub timing: Timing,
}

/// The endpoints. Cheap to clone.
#[derive(Clone)]
pub struct Webhooks(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) partitions: Partitions,
    pub(crate) writer: PrimaryConnector,
    pub(crate) pool: PgPool,
    reader: EventReader,
    pub(crate) keys: Keys,
    targets: Targets,
    pub(crate) client: DeliveryClient,
    pub(crate) timing: Timing,
    /// Identifies this process in claims.
    pub(crate) process: Uuid,
    /// Wakes the worker.
    pub(crate) changed: Notify,
    /// Stops the deliveries of this process to an endpoint.
    running: Mutex<HashMap<Uuid, CancellationToken>>,
}

impl fmt::Debug for Webhooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhooks").finish_non_exhaustive()
    }
}

impl Inner {
    pub(crate) fn set_running(&self, webhook_id: Uuid, stop: CancellationToken) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(webhook_id, stop);
    }

    fn stop_running(&self, webhook_id: Uuid) {
        if let Some(stop) = self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&webhook_id) {
            stop.cancel();
        }
    }
}

/// The row of an endpoint that a command changes.
struct Row {
    version: i64,
    url: String,
    state: String,
    generation: i64,
    failing_since: Option<DateTime<Utc>>,
    secret: Vec<u8>,
}

impl Webhooks {
    /// The endpoints of a service, and the worker that delivers to them.
    ///
    /// # Errors
    /// The certificates of this machine cannot be loaded. The text is for the operator.
    pub fn new(settings: Settings) -> Result<(Self, Worker), String> {
        let Settings { partitions, writer, pool, reader, keys, targets, timing } = settings;
        let client = DeliveryClient::new(targets.clone(), timing).map_err(|error| error.to_string())?;
        let webhooks = Self(Arc::new(Inner {
            partitions,
            writer,
            pool,
            reader,
            keys,
            targets,
            client,
            timing,
            process: Uuid::now_v7(),
            changed: Notify::new(),
            running: Mutex::default(),
        }));
        let worker = Worker::new(webhooks.clone());
        Ok((webhooks, worker))
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }

    /// Registers an endpoint. Returns it with its secret, which is shown this once.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn register(&self, new: NewWebhook, context: &CommandContext) -> Result<(Webhook, String), Error> {
        self.0.targets.check(&new.url).await?;
        let keys = self.0.keys.get().map_err(|reason| Error::NoKeys(reason.clone()))?;
        let secret = Secret::generate().ok_or(bank::Error::Internal)?;
        let webhook_id = self.0.partitions.new_id_in(PARTITION);
        let sealed = secret.seal(keys, webhook_id);
        let cursors = match &new.after {
            Some(after) => Some(self.cursors(after).await?),
            None => None,
        };
        let mut types: Vec<String> = new.types.iter().map(|event_type| event_type.name().to_owned()).collect();
        types.sort_unstable();
        types.dedup();
        let registered = WebhookRegistered { url: new.url, types, account_id: new.account_id, owner: new.owner };
        let mut connection = self.connect().await?;
        let mut append = OtherAppend::begin(&mut connection, PARTITION).await?;
        insert(&mut append, webhook_id, &registered, &sealed).await?;
        let event = OtherEvent::WebhookRegistered(registered);
        append.append(StreamVersion { stream_id: webhook_id, version: 1 }, &event, context).await?;
        let cursors = match cursors {
            Some(cursors) => cursors,
            None => self.heads(append.connection()).await?,
        };
        store::set_cursors(append.connection(), webhook_id, &cursors).await?;
        append.commit().await?;
        self.0.changed.notify_one();
        Ok((self.get(webhook_id).await?, secret.text()))
    }

    /// Stops the deliveries. Those in flight end.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn pause(&self, webhook_id: Uuid, context: &CommandContext) -> Result<Webhook, Error> {
        self.set_paused((webhook_id, None), PauseCause::Requested, context).await?;
        self.get(webhook_id).await
    }

    /// Stops the deliveries to an endpoint that answered 410, unless it was changed since.
    pub(crate) async fn pause_gone(&self, webhook_id: Uuid, generation: i64) -> Result<(), Error> {
        let context = CommandContext {
            caller: WEBHOOKS.into(),
            access: AccountAccess::Any,
            visibility: AccountAccess::Any,
            correlation_id: Uuid::now_v7().to_string().into(),
            causation_id: Uuid::now_v7(),
            idempotency_key: None,
            if_match: None,
            dry_run: false,
            batch_id: None,
        };
        self.set_paused((webhook_id, Some(generation)), PauseCause::Gone, &context).await
    }

    async fn set_paused(
        &self,
        (webhook_id, generation): (Uuid, Option<i64>),
        cause: PauseCause,
        context: &CommandContext,
    ) -> Result<(), Error> {
        let mut connection = self.connect().await?;
        let mut append = OtherAppend::begin(&mut connection, PARTITION).await?;
        let row = lock(append.connection(), webhook_id).await?;
        if row.state != "paused" && generation.is_none_or(|generation| generation == row.generation) {
            set_state(append.connection(), webhook_id, "paused").await?;
            let at = StreamVersion { stream_id: webhook_id, version: row.version + 1 };
            append.append(at, &OtherEvent::WebhookPaused(WebhookPaused { cause }), context).await?;
        }
        append.commit().await?;
        self.0.stop_running(webhook_id);
        Ok(())
    }

    /// Starts the deliveries again, where they stopped. What failed is sent at once.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn resume(&self, webhook_id: Uuid, context: &CommandContext) -> Result<Webhook, Error> {
        let mut connection = self.connect().await?;
        let mut append = OtherAppend::begin(&mut connection, PARTITION).await?;
        let row = lock(append.connection(), webhook_id).await?;
        if row.state != "active" {
            set_state(append.connection(), webhook_id, "active").await?;
            query!(
                "UPDATE webhook_parked
                 SET failures = 0, failing_since = clock_timestamp(), next_attempt_at = clock_timestamp()
                 WHERE partition = 0 AND webhook_id = $1",
                webhook_id
            )
            .execute(append.connection())
            .await?;
            let at = StreamVersion { stream_id: webhook_id, version: row.version + 1 };
            let resumed = WebhookResumed { failing_since: row.failing_since };
            append.append(at, &OtherEvent::WebhookResumed(resumed), context).await?;
        }
        append.commit().await?;
        self.0.changed.notify_one();
        self.get(webhook_id).await
    }

    /// Deletes an endpoint.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete(&self, webhook_id: Uuid, context: &CommandContext) -> Result<(), Error> {
        let mut connection = self.connect().await?;
        let mut append = OtherAppend::begin(&mut connection, PARTITION).await?;
        let row = lock(append.connection(), webhook_id).await?;
        let at = StreamVersion { stream_id: webhook_id, version: row.version + 1 };
        append.append(at, &OtherEvent::WebhookDeleted(WebhookDeleted {}), context).await?;
        delete_rows(append.connection(), webhook_id).await?;
        append.commit().await?;
        self.0.stop_running(webhook_id);
        Ok(())
    }

    /// Gives an endpoint a new secret. The former one signs as well for 24 hours.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn rotate_secret(&self, webhook_id: Uuid) -> Result<(Webhook, String), Error> {
        let keys = self.0.keys.get().map_err(|reason| Error::NoKeys(reason.clone()))?;
        let secret = Secret::generate().ok_or(bank::Error::Internal)?;
        let sealed = secret.seal(keys, webhook_id);
        let mut connection = self.connect().await?;
        let rotated = query!(
            "UPDATE webhook
             SET former_secret = secret, former_secret_until = clock_timestamp() + $3 * interval '1 hour', secret = $2,
                 generation = generation + 1, claimed_by = NULL, claimed_until = NULL
             WHERE partition = 0 AND webhook_id = $1",
            webhook_id,
            sealed,
            FORMER_SECRET_HOURS as f64
        );
        let rotated = with_timeout(Duration::from_secs(STATEMENT_S_MAX), rotated.execute(&mut connection)).await?;
        if rotated.rows_affected() == 0 {
            return Err(Error::NotFound);
        }
        self.0.stop_running(webhook_id);
        self.0.changed.notify_one();
        Ok((self.get(webhook_id).await?, secret.text()))
    }

    /// Sets the position of an endpoint. It does not resume it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn replay(&self, webhook_id: Uuid, after: &CursorParam) -> Result<Webhook, Error> {
        let cursors = self.cursors(after).await?;
        let mut connection = self.connect().await?;
        let mut append = OtherAppend::begin(&mut connection, PARTITION).await?;
        let row = lock(append.connection(), webhook_id).await?;
        set_state(append.connection(), webhook_id, &row.state).await?;
        store::set_cursors(append.connection(), webhook_id, &cursors).await?;
        store::set_parked(append.connection(), webhook_id, &[]).await?;
        append.commit().await?;
        self.0.stop_running(webhook_id);
        self.0.changed.notify_one();
        self.get(webhook_id).await
    }

    /// Sends an event that is not in the log, once, whatever the state of the endpoint is. Its result is the endpoint's last one.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn test(&self, webhook_id: Uuid) -> Result<Webhook, Error> {
        let keys = self.0.keys.get().map_err(|reason| Error::NoKeys(reason.clone()))?;
        let row = {
            let mut connection = self.0.pool.acquire().await?;
            read(&mut connection, webhook_id).await?
        };
        let secret = Secret::open(keys, webhook_id, &row.secret).map_err(|error| {
            tracing::error!(%webhook_id, %error, "webhook secret cannot be opened");
            bank::Error::Internal
        })?;
        let event_id = Uuid::now_v7();
        let body = serde_json::json!({
            "id": event_id, "aggregate_type": "Webhook", "aggregate_id": webhook_id, "type": TEST_TYPE,
            "schema_version": 1, "data": {}, "recorded_at": passbook_event_store::timestamp::format(&Utc::now()),
        });
        let secrets = [secret];
        let message = Message { id: event_id.to_string(), body: body.to_string().into(), secrets: &secrets };
        let attempt = self.0.client.send(&row.url, message).await;
        self.record_test(webhook_id, delivery_row(event_id, TEST_TYPE, None, &attempt)).await?;
        self.get(webhook_id).await
    }

    async fn record_test(&self, webhook_id: Uuid, delivery: DeliveryRow) -> Result<(), Error> {
        let mut connection = self.0.pool.acquire().await?;
        query!(
            "UPDATE webhook SET last_status = $2, last_error = $3 WHERE partition = 0 AND webhook_id = $1",
            webhook_id,
            delivery.status,
            delivery.error
        )
        .execute(&mut *connection)
        .await?;
        Ok(store::add_deliveries(&mut connection, webhook_id, &[delivery]).await?)
    }

    async fn connect(&self) -> Result<PgConnection, Error> {
        Ok(with_timeout(Duration::from_secs(STATEMENT_S_MAX), self.0.writer.connect()).await?)
    }

    /// The events that a cursor names, one for each partition.
    async fn cursors(&self, after: &CursorParam) -> Result<Vec<LogCursor>, Error> {
        let cursor = self.0.reader.start(after, &EventFilter::default()).await?;
        let mut connection = self.0.pool.acquire().await?;
        let mut cursors = Vec::new();
        for partition in self.0.partitions.all() {
            let position = cursor.position_in(partition);
            let hash = reader::hash_at(&mut connection, partition, position).await?.unwrap_or_default();
            cursors.push(LogCursor { partition, position, hash });
        }
        Ok(cursors)
    }

    /// The last event of each partition.
    async fn heads(&self, connection: &mut PgConnection) -> Result<Vec<LogCursor>, Error> {
        let mut heads = Vec::new();
        for partition in self.0.partitions.all() {
            let log::Head { position, hash, .. } = log::head(connection, partition).await?;
            heads.push(LogCursor { partition, position, hash: hash.to_vec() });
        }
        Ok(heads)
    }
}

/// The type of the event that a test sends.
const TEST_TYPE: &str = "WebhookTest";

async fn insert(
    append: &mut OtherAppend<'_>,
    webhook_id: Uuid,
    registered: &WebhookRegistered,
    sealed: &[u8],
) -> Result<(), Error> {
    let (now, filter_hash) = (append.now(), filter_hash(registered));
    let connection = append.connection();
    let count = query_scalar!(r#"SELECT count(*) AS "count!" FROM webhook WHERE partition = 0"#);
    if count.fetch_one(&mut *connection).await? >= WEBHOOKS_MAX {
        return Err(Error::TooMany);
    }
    let same =
        query_scalar!("SELECT webhook_id FROM webhook WHERE partition = 0 AND filter_hash = $1", &filter_hash[..]);
    if let Some(same) = same.fetch_optional(&mut *connection).await? {
        return Err(Error::Exists(same));
    }
    let WebhookRegistered { url, types, account_id, owner } = registered;
    query!(
        "INSERT INTO webhook
             (partition, webhook_id, version, url, types, account_id, owner, filter_hash, secret, state, generation, registered_at)
         VALUES (0, $1, 1, $2, $3, $4, $5, $6, $7, 'active', 1, $8)",
        webhook_id,
        url,
        types,
        *account_id,
        owner.as_deref(),
        &filter_hash[..],
        sealed,
        now
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Equal for endpoints with the same URL and filters.
fn filter_hash(registered: &WebhookRegistered) -> [u8; 32] {
    Sha256::digest(serde_json::to_vec(registered).unwrap_or_default()).into()
}

/// Locks the row of an endpoint. The caller holds the log-head lock, which all commands that record an event take first.
async fn lock(connection: &mut PgConnection, webhook_id: Uuid) -> Result<Row, Error> {
    query_scalar!("SELECT webhook_id FROM webhook WHERE partition = 0 AND webhook_id = $1 FOR UPDATE", webhook_id)
        .fetch_optional(&mut *connection)
        .await?
        .ok_or(Error::NotFound)?;
    read(connection, webhook_id).await
}

async fn read(connection: &mut PgConnection, webhook_id: Uuid) -> Result<Row, Error> {
    let row = sqlx::query_as!(
        Row,
        "SELECT version, url, state, generation, failing_since, secret
         FROM webhook
         WHERE partition = 0 AND webhook_id = $1",
        webhook_id
    );
    row.fetch_optional(connection).await?.ok_or(Error::NotFound)
}

/// Sets the state, and ends the claim of the worker. A state that changes adds an event, so the version grows.
async fn set_state(connection: &mut PgConnection, webhook_id: Uuid, state: &str) -> sqlx::Result<()> {
    query!(
        "UPDATE webhook
         SET version = version + CASE WHEN state = $2 THEN 0 ELSE 1 END,
             failing_since = CASE WHEN $2 = 'active' THEN NULL ELSE failing_since END,
             state = $2, generation = generation + 1, claimed_by = NULL, claimed_until = NULL
         WHERE partition = 0 AND webhook_id = $1",
        webhook_id,
        state
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes the rows of an endpoint but for its attempts, which age.
async fn delete_rows(connection: &mut PgConnection, webhook_id: Uuid) -> sqlx::Result<()> {
    query!("DELETE FROM webhook_parked WHERE partition = 0 AND webhook_id = $1", webhook_id)
        .execute(&mut *connection)
        .await?;
    query!("DELETE FROM webhook_cursor WHERE partition = 0 AND webhook_id = $1", webhook_id)
        .execute(&mut *connection)
        .await?;
    query!("DELETE FROM webhook WHERE partition = 0 AND webhook_id = $1", webhook_id).execute(connection).await?;
    Ok(())
}
