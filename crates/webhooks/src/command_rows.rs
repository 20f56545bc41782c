//! The rows of endpoints, as commands read and write them. The caller holds the log-head lock of partition 0, which all commands that
//! record an event take first.

use chrono::{DateTime, Utc};
use passbook_bank::OtherAppend;
use passbook_domain::other_event::WebhookRegistered;
use sha2::{Digest, Sha256};
use sqlx::{PgConnection, query, query_scalar};
use uuid::Uuid;

use crate::service::{Error, WEBHOOKS_MAX};

/// The row of an endpoint that a command changes.
pub(crate) struct Row {
    pub(crate) version: i64,
    pub(crate) url: String,
    pub(crate) state: String,
    pub(crate) generation: i64,
    pub(crate) failing_since: Option<DateTime<Utc>>,
    pub(crate) secret: Vec<u8>,
}

pub(crate) async fn insert(
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
pub(crate) async fn lock(connection: &mut PgConnection, webhook_id: Uuid) -> Result<Row, Error> {
    query_scalar!("SELECT webhook_id FROM webhook WHERE partition = 0 AND webhook_id = $1 FOR UPDATE", webhook_id)
        .fetch_optional(&mut *connection)
        .await?
        .ok_or(Error::NotFound)?;
    read(connection, webhook_id).await
}

pub(crate) async fn read(connection: &mut PgConnection, webhook_id: Uuid) -> Result<Row, Error> {
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
pub(crate) async fn set_state(connection: &mut PgConnection, webhook_id: Uuid, state: &str) -> sqlx::Result<()> {
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

/// The sealed secrets of all endpoints, former ones included.
pub(crate) async fn sealed_secrets(connection: &mut PgConnection) -> sqlx::Result<Vec<(Uuid, Vec<u8>)>> {
    let rows = query!("SELECT webhook_id, secret, former_secret FROM webhook WHERE partition = 0");
    let rows = rows.fetch_all(connection).await?.into_iter();
    Ok(rows
        .flat_map(|row| [Some(row.secret), row.former_secret].map(|sealed| Some((row.webhook_id, sealed?))))
        .flatten()
        .collect())
}

/// Replaces a sealed secret, unless it was replaced meanwhile.
pub(crate) async fn replace_sealed(
    connection: &mut PgConnection,
    webhook_id: Uuid,
    (sealed, rewrapped): (&[u8], &[u8]),
) -> sqlx::Result<()> {
    query!(
        "UPDATE webhook
         SET secret = CASE WHEN secret = $2 THEN $3 ELSE secret END,
             former_secret = CASE WHEN former_secret = $2 THEN $3 ELSE former_secret END
         WHERE partition = 0 AND webhook_id = $1",
        webhook_id,
        sealed,
        rewrapped
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes the rows of an endpoint but for its attempts, which age.
pub(crate) async fn delete_rows(connection: &mut PgConnection, webhook_id: Uuid) -> sqlx::Result<()> {
    query!("DELETE FROM webhook_parked WHERE partition = 0 AND webhook_id = $1", webhook_id)
        .execute(&mut *connection)
        .await?;
    query!("DELETE FROM webhook_cursor WHERE partition = 0 AND webhook_id = $1", webhook_id)
        .execute(&mut *connection)
        .await?;
    query!("DELETE FROM webhook WHERE partition = 0 AND webhook_id = $1", webhook_id).execute(connection).await?;
    Ok(())
}
