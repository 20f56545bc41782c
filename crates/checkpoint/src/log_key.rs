//! The keys that sign checkpoints. All instances sign with the key that the database has, whose private part the wrapping key seals.

use chrono::{DateTime, Utc};
use ring::{
    rand::{SecureRandom, SystemRandom},
    signature::{Ed25519KeyPair, KeyPair},
};
use sqlx::{Connection, PgConnection, query};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{
    Error, log_name, signed_note,
    verifier_key::{PUBLIC_KEY_BYTES, VerifierKey},
};
use passbook_keys::WrappingKeys;

const SEED_BYTES: usize = 32;

/// A public key of the log, and when it signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogKey {
    /// The key.
    pub key: VerifierKey,
    /// Since when it signs.
    pub from: DateTime<Utc>,
    /// When another key replaced it; `None` for the current key.
    pub until: Option<DateTime<Utc>>,
}

/// The current key with its private part.
pub(crate) struct SigningKey {
    pair: Ed25519KeyPair,
    public: VerifierKey,
}

impl SigningKey {
    /// The signed note of a text.
    pub(crate) fn sign(&self, text: &str) -> String {
        signed_note::render(text, &self.public, self.pair.sign(text.as_bytes()).as_ref())
    }
}

/// A row of `log_key`: the current key.
struct CurrentKey {
    number: i32,
    public_key: Vec<u8>,
    sealed: Vec<u8>,
}

/// The id of the log; `None` if no service with this table has used it.
///
/// # Errors
/// The database failed.
pub async fn log_id(connection: &mut PgConnection) -> sqlx::Result<Option<Uuid>> {
    let row = query!("SELECT id FROM log_identity WHERE partition = 0").fetch_optional(connection).await?;
    Ok(row.map(|row| row.id))
}

/// The public keys of the log, the first one first.
///
/// # Errors
/// The database failed.
pub async fn public_keys(connection: &mut PgConnection) -> sqlx::Result<Vec<LogKey>> {
    let Some(log_id) = log_id(&mut *connection).await? else { return Ok(vec![]) };
    let rows = query!("SELECT public_key, valid_from, valid_until FROM log_key WHERE partition = 0 ORDER BY number")
        .fetch_all(connection)
        .await?;
    let keys = rows.into_iter().filter_map(|row| {
        let key = verifier_key(log_id, &row.public_key)?;
        Some(LogKey { key, from: row.valid_from, until: row.valid_until })
    });
    Ok(keys.collect())
}

/// Gives the log its id and its first signing key, and seals the key anew after a replacement of the wrapping key. Instances that do so
/// at the same time agree.
///
/// # Errors
/// The current key cannot be opened, or the database failed.
pub async fn prepare(keys: &WrappingKeys, connection: &mut PgConnection) -> Result<(), Error> {
    query!(
        "INSERT INTO log_identity (partition, id) VALUES (0, $1) ON CONFLICT (partition) DO NOTHING",
        Uuid::now_v7()
    )
    .execute(&mut *connection)
    .await?;
    let log_id = log_id(&mut *connection).await?.ok_or(Error::NoSigningKey)?;
    match current_row(&mut *connection).await? {
        Some(row) => rewrap(keys, log_id, &row, connection).await,
        None => insert(keys, log_id, 1, connection).await.map(drop),
    }
}

async fn rewrap(
    keys: &WrappingKeys,
    log_id: Uuid,
    row: &CurrentKey,
    connection: &mut PgConnection,
) -> Result<(), Error> {
    let Some(sealed) = keys.rewrap(&associated_data(log_id, &row.public_key), &row.sealed)? else { return Ok(()) };
    query!(
        "UPDATE log_key SET sealed_private_key = $3 WHERE partition = 0 AND number = $1 AND sealed_private_key = $2",
        row.number,
        row.sealed,
        sealed
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Replaces the signing key. The private part of the former one is deleted.
///
/// # Errors
/// The log has no key, another process replaces it at the same time, or the database failed.
pub async fn rotate(keys: &WrappingKeys, connection: &mut PgConnection) -> Result<VerifierKey, Error> {
    let log_id = log_id(&mut *connection).await?.ok_or(Error::NoSigningKey)?;
    let last = query!("SELECT number FROM log_key WHERE partition = 0 ORDER BY number DESC LIMIT 1")
        .fetch_optional(&mut *connection)
        .await?;
    let last = last.ok_or(Error::NoSigningKey)?.number;
    let mut transaction = connection.begin().await?;
    let inserted = insert(keys, log_id, last + 1, &mut transaction).await?;
    let key = inserted.ok_or(Error::ReplacedMeanwhile)?;
    query!(
        "UPDATE log_key SET valid_until = now(), sealed_private_key = NULL WHERE partition = 0 AND number = $1",
        last
    )
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(key)
}

/// Inserts a new key. `None`: another process has taken the number.
async fn insert(
    keys: &WrappingKeys,
    log_id: Uuid,
    number: i32,
    connection: &mut PgConnection,
) -> Result<Option<VerifierKey>, Error> {
    let mut seed = Zeroizing::new([0; SEED_BYTES]);
    SystemRandom::new().fill(&mut *seed).map_err(|_| Error::Mismatch)?;
    let pair = Ed25519KeyPair::from_seed_unchecked(&*seed).map_err(|_| Error::Mismatch)?;
    let public_key = pair.public_key().as_ref();
    let sealed = keys.seal(&associated_data(log_id, public_key), &*seed);
    let inserted = query!(
        "INSERT INTO log_key (partition, number, public_key, sealed_private_key) VALUES (0, $1, $2, $3)
         ON CONFLICT (partition, number) DO NOTHING",
        number,
        public_key,
        sealed
    )
    .execute(connection)
    .await?;
    let key = verifier_key(log_id, public_key).ok_or(Error::Mismatch)?;
    Ok((inserted.rows_affected() == 1).then_some(key))
}

/// The log's id, and the key that signs now.
///
/// # Errors
/// There is none, it cannot be opened, or the database failed.
pub(crate) async fn current(keys: &WrappingKeys, connection: &mut PgConnection) -> Result<(Uuid, SigningKey), Error> {
    let log_id = log_id(&mut *connection).await?.ok_or(Error::NoSigningKey)?;
    let row = current_row(connection).await?.ok_or(Error::NoSigningKey)?;
    let seed = Zeroizing::new(keys.open(&associated_data(log_id, &row.public_key), &row.sealed)?);
    let pair = Ed25519KeyPair::from_seed_and_public_key(&seed, &row.public_key).map_err(|_| Error::Mismatch)?;
    let public = verifier_key(log_id, &row.public_key).ok_or(Error::Mismatch)?;
    Ok((log_id, SigningKey { pair, public }))
}

async fn current_row(connection: &mut PgConnection) -> sqlx::Result<Option<CurrentKey>> {
    let row = query!(
        "SELECT number, public_key, sealed_private_key FROM log_key WHERE partition = 0 ORDER BY number DESC LIMIT 1"
    );
    let row = row.fetch_optional(connection).await?;
    Ok(row.map(|row| CurrentKey {
        number: row.number,
        public_key: row.public_key,
        sealed: row.sealed_private_key.unwrap_or_default(),
    }))
}

fn verifier_key(log_id: Uuid, public_key: &[u8]) -> Option<VerifierKey> {
    let public_key: [u8; PUBLIC_KEY_BYTES] = public_key.try_into().ok()?;
    VerifierKey::new(&log_name(log_id), public_key)
}

/// Binds a private key to its log and its public key.
fn associated_data(log_id: Uuid, public_key: &[u8]) -> Vec<u8> {
    format!("log key:{log_id}:{}", hex::encode(public_key)).into_bytes()
}
