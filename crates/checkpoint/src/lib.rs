//! Checkpoints of the log: the position and the hash of the last event of each partition, signed with a key of the service.
//!
//! An auditor keeps checkpoints outside the database. The log must contain each of them for ever, so not even a superuser of the
//! database can rewrite the log or cut it off unnoticed. A checkpoint is a signed note (<https://c2sp.org/signed-note>).

mod body;
mod log_key;
mod saved;
mod signed_note;
mod verifier_key;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool, query_scalar};
use uuid::Uuid;

use passbook_event_store::{Partitions, log};
use passbook_keys::{Keys, OpenError, Unavailable, WrappingKeys};

use self::log_key::SigningKey;

pub use body::{Checkpoint, InvalidBody, SavedHead};
pub use log_key::{LogKey, log_id, prepare, public_keys, rotate};
pub use saved::{InvalidCheckpoint, LogIdentity, SavedCheckpoint, check_order};
pub use signed_note::{InvalidNote, NOTE_BYTES_MAX, SignedNote};
pub use verifier_key::{InvalidVerifierKey, VerifierKey};

/// Reads key and heads in one snapshot. Citus takes one for each node, and no order between partitions is stated.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// Why no checkpoint can be signed, or the keys of the log cannot be read or replaced.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The service has no wrapping keys.
    #[error(transparent)]
    NoWrappingKeys(#[from] Unavailable),
    /// No key file opens the signing key.
    #[error(
        "the signing key of the log cannot be opened ({0}): restore the key file, or run `passbook rotate-log-key`"
    )]
    Sealed(#[from] OpenError),
    /// The log has no signing key.
    #[error("the log has no signing key: start `passbook serve` with a key file once")]
    NoSigningKey,
    /// The stored private key is not that of the stored public key.
    #[error("the stored parts of the log's signing key do not belong together: run `passbook rotate-log-key`")]
    Mismatch,
    /// Two rotations ran at the same time.
    #[error("the signing key was replaced at the same time: nothing was done")]
    ReplacedMeanwhile,
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] sqlx::Error),
}

/// The name of a log: the first line of its checkpoints, and the name of the keys that sign them.
pub fn log_name(log_id: Uuid) -> String {
    format!("passbook/{log_id}")
}

/// Signs checkpoints of the log. Cheap to clone.
#[derive(Clone)]
pub struct Checkpoints {
    pool: PgPool,
    partitions: Partitions,
    keys: Keys,
}

impl Checkpoints {
    /// Reads through `pool`, whose connections must show only events that the standbys have: a signed head cannot be taken back.
    pub fn new(pool: PgPool, partitions: Partitions, keys: Keys) -> Self {
        Self { pool, partitions, keys }
    }

    /// Signs the heads of now. Returns the note and what it says.
    ///
    /// # Errors
    /// There is no key to sign with, or the database failed.
    pub async fn sign(&self) -> Result<(String, Checkpoint), Error> {
        let keys = self.keys.get().map_err(Clone::clone)?;
        let mut snapshot = self.pool.begin_with(BEGIN).await?;
        let (key, checkpoint) = self.read(keys, &mut snapshot).await?;
        snapshot.rollback().await?;
        Ok((key.sign(&checkpoint.to_string()), checkpoint))
    }

    async fn read(&self, keys: &WrappingKeys, snapshot: &mut PgConnection) -> Result<(SigningKey, Checkpoint), Error> {
        let (log_id, key) = log_key::current(keys, snapshot).await?;
        let mut heads = Vec::new();
        for partition in self.partitions.all() {
            let head = log::head(snapshot, partition).await?;
            heads.push(SavedHead { position: head.position, hash: head.hash });
        }
        // After the heads, so that no event of the checkpoint is later.
        let time = query_scalar!(r#"SELECT clock_timestamp() AS "time!: DateTime<Utc>""#).fetch_one(snapshot).await?;
        Ok((key, Checkpoint { log_id, heads, time }))
    }

    /// The public keys of the log, the first one first.
    ///
    /// # Errors
    /// The database failed.
    pub async fn keys(&self) -> Result<Vec<LogKey>, Error> {
        Ok(public_keys(&mut *self.pool.acquire().await?).await?)
    }
}
