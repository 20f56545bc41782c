//! The commands on endpoints. Registration, pause, resume and deletion are recorded in the log, in the transaction that changes the row.

use std::time::Duration;

use chrono::Utc;
use passbook_audit::{CursorParam, EventFilter};
use passbook_auth::WEBHOOKS;
use passbook_bank::{self as bank, AccountAccess, CommandContext, OtherAppend};
use passbook_domain::{
    EventType, OtherEvent,
    other_event::{PauseCause, WebhookDeleted, WebhookPaused, WebhookRegistered, WebhookResumed},
};
use passbook_event_store::{StreamVersion, log, reader, timestamp, with_timeout};
use sqlx::{PgConnection, query};
use uuid::Uuid;

use crate::{
    client::Message,
    command_rows::{delete_rows, insert, lock, read, replace_sealed, sealed_secrets, set_state},
    delivery::delivery_row,
    secret::Secret,
    service::{Error, Webhooks},
    shared_log::LogCursor,
    store::{self, DeliveryRow},
    views::Webhook,
};

/// How long the former secret signs beside the new one, in hours.
const FORMER_SECRET_HOURS: i64 = 24;
/// The time limit of a statement outside of the append.
const STATEMENT_S_MAX: u64 = 5;
/// The partition of the rows and of the streams of all endpoints.
const PARTITION: i16 = 0;
/// The type of the event that a test sends.
const TEST_TYPE: &str = "WebhookTest";

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

impl Webhooks {
    /// Registers an endpoint. Returns it with its secret, which is shown this once.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn register(&self, new: NewWebhook, context: &CommandContext) -> Result<(Webhook, String), Error> {
        self.inner().targets.check(&new.url).await?;
        let keys = self.inner().keys.get().map_err(|reason| Error::NoKeys(reason.clone()))?;
        let secret = Secret::generate().ok_or(bank::Error::Internal)?;
        let webhook_id = self.inner().partitions.new_id_in(PARTITION);
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
        self.inner().changed.notify_one();
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
        let is_meant = generation.is_none_or(|generation| generation == row.generation);
        if row.state != "paused" && is_meant {
            set_state(append.connection(), webhook_id, "paused").await?;
            let at = StreamVersion { stream_id: webhook_id, version: row.version + 1 };
            append.append(at, &OtherEvent::WebhookPaused(WebhookPaused { cause }), context).await?;
        }
        append.commit().await?;
        if is_meant {
            self.inner().stop_running(webhook_id);
        }
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
        self.inner().changed.notify_one();
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
        self.inner().stop_running(webhook_id);
        Ok(())
    }

    /// Seals the secrets under the current wrapping key that a former one sealed, so that the former one can be removed.
    ///
    /// # Errors
    /// The database failed.
    pub(crate) async fn rewrap_secrets(&self) -> Result<(), Error> {
        let Ok(keys) = self.inner().keys.get() else { return Ok(()) };
        let mut connection = self.connect().await?;
        for (webhook_id, sealed) in sealed_secrets(&mut connection).await? {
            match Secret::rewrap(keys, webhook_id, &sealed) {
                Ok(Some(rewrapped)) => replace_sealed(&mut connection, webhook_id, (&sealed, &rewrapped)).await?,
                Ok(None) => {}
                Err(error) => tracing::error!(%webhook_id, %error, "webhook secret cannot be opened"),
            }
        }
        Ok(())
    }

    /// Gives an endpoint a new secret. The former one signs as well for 24 hours.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn rotate_secret(&self, webhook_id: Uuid) -> Result<(Webhook, String), Error> {
        let keys = self.inner().keys.get().map_err(|reason| Error::NoKeys(reason.clone()))?;
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
        self.inner().stop_running(webhook_id);
        self.inner().changed.notify_one();
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
        self.inner().stop_running(webhook_id);
        self.inner().changed.notify_one();
        self.get(webhook_id).await
    }

    /// Sends an event that is not in the log, once, whatever the state of the endpoint is. Its result is the endpoint's last one.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn test(&self, webhook_id: Uuid) -> Result<Webhook, Error> {
        let keys = self.inner().keys.get().map_err(|reason| Error::NoKeys(reason.clone()))?;
        let row = {
            let mut connection = self.inner().pool.acquire().await?;
            read(&mut connection, webhook_id).await?
        };
        let secret = Secret::open(keys, webhook_id, &row.secret).map_err(|error| {
            tracing::error!(%webhook_id, %error, "webhook secret cannot be opened");
            bank::Error::Internal
        })?;
        let event_id = Uuid::now_v7();
        let body = serde_json::json!({
            "id": event_id, "aggregate_type": "Webhook", "aggregate_id": webhook_id, "type": TEST_TYPE,
            "schema_version": 1, "data": {}, "recorded_at": timestamp::format(&Utc::now()),
        });
        let secrets = [secret];
        let message = Message { id: event_id.to_string(), body: body.to_string().into(), secrets: &secrets };
        let attempt = self.inner().client.send(&row.url, message).await;
        self.record_test(webhook_id, delivery_row(event_id, TEST_TYPE, None, &attempt)).await?;
        self.get(webhook_id).await
    }

    async fn record_test(&self, webhook_id: Uuid, delivery: DeliveryRow) -> Result<(), Error> {
        let mut connection = self.inner().pool.acquire().await?;
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

    /// The events that a cursor names, one for each partition.
    async fn cursors(&self, after: &CursorParam) -> Result<Vec<LogCursor>, Error> {
        let cursor = self.inner().reader.start(after, &EventFilter::default()).await?;
        let mut connection = self.inner().pool.acquire().await?;
        let mut cursors = Vec::new();
        for partition in self.inner().partitions.all() {
            let position = cursor.position_in(partition);
            let hash = reader::hash_at(&mut connection, partition, position).await?.unwrap_or_default();
            cursors.push(LogCursor { partition, position, hash });
        }
        Ok(cursors)
    }

    /// The last event of each partition.
    async fn heads(&self, connection: &mut PgConnection) -> Result<Vec<LogCursor>, Error> {
        let mut heads = Vec::new();
        for partition in self.inner().partitions.all() {
            let log::Head { position, hash, .. } = log::head(connection, partition).await?;
            heads.push(LogCursor { partition, position, hash: hash.to_vec() });
        }
        Ok(heads)
    }
}
