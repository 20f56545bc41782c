//! Endpoints and attempts as clients see them.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use passbook_domain::EventType;
use passbook_event_store::{Position, log, timestamp};
use serde::Serialize;
use sqlx::{PgConnection, query};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::service::{Error, Webhooks};

/// An endpoint that receives events.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Webhook {
    /// The id of the endpoint.
    pub webhook_id: Uuid,
    /// The URL to which events are sent.
    #[schema(example = "https://example.com/hooks")]
    pub url: String,
    /// The types of the events that are sent; empty: all.
    #[schema(value_type = Vec<EventType>, example = json!(["MoneyDeposited"]))]
    pub types: Vec<String>,
    /// The account whose events are sent; `null`: all.
    #[schema(required = true)]
    pub account_id: Option<Uuid>,
    /// The owner of the accounts whose events are sent; `null`: all.
    #[schema(required = true, example = "customer-17")]
    pub owner: Option<String>,
    /// `active`, `paused`, or `failing`: an event was tried for three days, and the endpoint waits for a resume.
    #[schema(example = "active")]
    pub state: String,
    /// How far the log was delivered, but for the events of accounts that wait for another attempt.
    #[schema(value_type = String, example = "42")]
    pub position: Position,
    /// The events of the log after the position, and those that wait for another attempt. Not all of them need be sent.
    #[schema(example = 0)]
    pub lag_events: i64,
    /// When the endpoint was registered.
    #[serde(with = "timestamp")]
    pub registered_at: DateTime<Utc>,
    /// Since when an event cannot be delivered; `null`: none fails.
    #[serde(serialize_with = "optional_time")]
    #[schema(required = true)]
    pub failing_since: Option<DateTime<Utc>>,
    /// The status of the last response; `null`: there was none.
    #[schema(required = true, example = 200)]
    pub last_status: Option<i16>,
    /// What was wrong with the last attempt; `null` after a success.
    #[schema(required = true, example = json!(null))]
    pub last_error: Option<String>,
}

/// An attempt to send an event.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Delivery {
    /// The id of the attempt.
    pub delivery_id: Uuid,
    /// The event, as in `webhook-id`.
    pub event_id: Uuid,
    /// The type of the event; `WebhookTest` for a test.
    #[schema(example = "MoneyDeposited")]
    pub event_type: String,
    /// The position of the event in the log; `null` for a test.
    #[schema(required = true, example = "42")]
    pub position: Option<String>,
    /// When the attempt began.
    #[serde(with = "timestamp")]
    pub attempted_at: DateTime<Utc>,
    /// The status of the response; `null`: there was none.
    #[schema(required = true, example = 200)]
    pub status: Option<i16>,
    /// How long the attempt took, in milliseconds.
    #[schema(example = 12, minimum = 0)]
    pub duration_ms: i32,
    /// What was wrong; `null` for a success.
    #[schema(required = true, example = json!(null))]
    pub error: Option<String>,
}

fn optional_time<S: serde::Serializer>(time: &Option<DateTime<Utc>>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.serialize_str(&timestamp::format(time)),
        None => serializer.serialize_none(),
    }
}

impl Webhooks {
    /// Up to `limit` endpoints after the one with this id, in the order of their ids.
    ///
    /// # Errors
    /// The database failed.
    pub async fn list(&self, after: Uuid, limit: i64) -> Result<Vec<Webhook>, Error> {
        let mut connection = self.inner().pool.acquire().await?;
        let rows = query!(
            "SELECT webhook_id, url, types, account_id, owner, state, registered_at, failing_since, last_status, last_error
             FROM webhook
             WHERE partition = 0 AND webhook_id > $1
             ORDER BY webhook_id
             LIMIT $2",
            after,
            limit
        );
        let rows = rows.fetch_all(&mut *connection).await?;
        let ids: Vec<Uuid> = rows.iter().map(|row| row.webhook_id).collect();
        let mut progress = self.progress(&mut connection, &ids).await?;
        let found = rows.into_iter().map(|row| {
            let (position, lag_events) =
                progress.remove(&row.webhook_id).unwrap_or_else(|| (self.inner().partitions.position_in(0, 0), 0));
            Webhook {
                webhook_id: row.webhook_id,
                url: row.url,
                types: row.types,
                account_id: row.account_id,
                owner: row.owner,
                state: row.state,
                position,
                lag_events,
                registered_at: row.registered_at,
                failing_since: row.failing_since,
                last_status: row.last_status,
                last_error: row.last_error,
            }
        });
        Ok(found.collect())
    }

    /// An endpoint.
    ///
    /// # Errors
    /// There is none with this id, or the database failed.
    pub async fn get(&self, webhook_id: Uuid) -> Result<Webhook, Error> {
        // The id before this one.
        let before = Uuid::from_u128(webhook_id.as_u128().saturating_sub(1));
        let found = self.list(before, 1).await?.into_iter().next();
        found.filter(|found| found.webhook_id == webhook_id).ok_or(Error::NotFound)
    }

    /// Up to `limit` attempts before the one with this id, newest first.
    ///
    /// # Errors
    /// There is no such endpoint, or the database failed.
    pub async fn deliveries(&self, webhook_id: Uuid, before: Uuid, limit: i64) -> Result<Vec<Delivery>, Error> {
        self.get(webhook_id).await?;
        let mut connection = self.inner().pool.acquire().await?;
        let rows = sqlx::query_as!(
            Delivery,
            "SELECT delivery_id, event_id, event_type, position, attempted_at, status, duration_ms, error
             FROM webhook_delivery
             WHERE partition = 0 AND webhook_id = $1 AND delivery_id < $2
             ORDER BY delivery_id DESC
             LIMIT $3",
            webhook_id,
            before,
            limit
        );
        Ok(rows.fetch_all(&mut *connection).await?)
    }

    /// The position and the lag of each endpoint.
    async fn progress(
        &self,
        connection: &mut PgConnection,
        ids: &[Uuid],
    ) -> Result<HashMap<Uuid, (Position, i64)>, Error> {
        let partitions = self.inner().partitions;
        let cursors = query!(
            "SELECT webhook_id, log_partition, position FROM webhook_cursor WHERE partition = 0 AND webhook_id = ANY($1)",
            ids
        );
        let cursors = cursors.fetch_all(&mut *connection).await?;
        let mut heads = HashMap::new();
        // After the cursors, so that no lag is negative.
        for partition in partitions.all() {
            heads.insert(partition, log::head(connection, partition).await?.position);
        }
        let parked = query!(
            r#"SELECT webhook_id, sum(events)::bigint AS "events!"
               FROM webhook_parked
               WHERE partition = 0 AND webhook_id = ANY($1)
               GROUP BY webhook_id"#,
            ids
        );
        let parked = parked.fetch_all(connection).await?.into_iter();
        let parked: HashMap<Uuid, i64> = parked.map(|row| (row.webhook_id, row.events)).collect();
        let mut progress: HashMap<Uuid, (Position, i64)> = HashMap::new();
        for cursor in cursors {
            let position = partitions.position_in(cursor.log_partition, cursor.position);
            let behind = heads.get(&cursor.log_partition).map_or(0, |head| head - cursor.position);
            let waiting = || parked.get(&cursor.webhook_id).copied().unwrap_or_default();
            let (before, lag) =
                progress.remove(&cursor.webhook_id).unwrap_or_else(|| (partitions.position_in(0, 0), waiting()));
            progress.insert(cursor.webhook_id, (before.merge(position), lag + behind));
        }
        Ok(progress)
    }
}
