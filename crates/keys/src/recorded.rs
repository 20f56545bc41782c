//! Compares the keys of the file with the fingerprints that the database records, so that all instances seal under the same key.

use std::path::PathBuf;

use sqlx::{Connection, PgConnection, query, query_scalar};

use crate::{
    key_file::{self, Error, KeyFile},
    wrapping::{Fingerprint, WrappingKeys},
};

/// The attempts to record a key while other instances record theirs. Each attempt fails only if another one succeeds.
const RECORD_ATTEMPTS_MAX: u32 = 64;

/// The wrapping keys of this process, or why it has none.
#[derive(Clone, Debug)]
pub enum Keys {
    /// Secrets can be sealed and opened.
    Available(WrappingKeys),
    /// Whatever needs a key is refused with this reason.
    Unavailable(Unavailable),
}

/// Why a process has no wrapping keys. Each message is a sentence for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// No file is named.
    #[error("the service has no key file: set PASSBOOK_KEY_FILE")]
    NotNamed {
        /// Whether the database records a key: other instances have a file, or this one had one.
        is_recorded: bool,
    },
    /// The file is gone.
    #[error("the key file {path} is missing: restore it from its backup, or correct PASSBOOK_KEY_FILE")]
    Lost {
        /// The file.
        path: PathBuf,
    },
    /// The file is that of another log.
    #[error(
        "the key file {path} does not contain the key {recorded} that the database records: restore the file from its backup, or \
         correct PASSBOOK_KEY_FILE"
    )]
    WrongKey {
        /// The file.
        path: PathBuf,
        /// The key that is expected.
        recorded: Fingerprint,
    },
}

impl Keys {
    /// The keys.
    ///
    /// # Errors
    /// There are none.
    pub fn get(&self) -> Result<&WrappingKeys, &Unavailable> {
        match self {
            Self::Available(keys) => Ok(keys),
            Self::Unavailable(reason) => Err(reason),
        }
    }

    /// The keys for a service: creates the file of the embedded server, records the first key, and records a key that replaces another.
    /// Logs an error if secrets exist that this process cannot open.
    ///
    /// # Errors
    /// The file cannot be created, it is missing although the log never had one, or the database fails.
    pub async fn of_service(file: KeyFile, connection: &mut PgConnection) -> Result<Self, Error> {
        let recorded = last(connection).await?;
        let (path, keys) = match (file, recorded) {
            (KeyFile::Found(path, keys), _) => (path, keys),
            (KeyFile::NotCreated(path), None) => (path.clone(), key_file::create(&path)?),
            (KeyFile::Missing(path), None) => return Err(Error::Missing { path }),
            (KeyFile::Missing(path) | KeyFile::NotCreated(path), Some(_)) => {
                return Ok(unavailable(Unavailable::Lost { path }));
            }
            (KeyFile::NotNamed, recorded) => {
                return Ok(unavailable(Unavailable::NotNamed { is_recorded: recorded.is_some() }));
            }
        };
        agree(path, keys, connection).await
    }

    /// The keys for a command beside the service: changes nothing.
    ///
    /// # Errors
    /// The database fails.
    pub async fn of_reader(file: KeyFile, connection: &mut PgConnection) -> Result<Self, Error> {
        let recorded = last(connection).await?;
        Ok(match (file, recorded) {
            (KeyFile::Found(path, keys), Some((_, recorded))) => match keys.with_current(recorded) {
                Some(keys) => Self::Available(keys),
                None => Self::Unavailable(Unavailable::WrongKey { path, recorded }),
            },
            (KeyFile::Found(_, keys), None) => Self::Available(keys),
            (KeyFile::Missing(path) | KeyFile::NotCreated(path), _) => Self::Unavailable(Unavailable::Lost { path }),
            (KeyFile::NotNamed, recorded) => {
                Self::Unavailable(Unavailable::NotNamed { is_recorded: recorded.is_some() })
            }
        })
    }
}

/// Logs the reason if an operator must act.
fn unavailable(reason: Unavailable) -> Keys {
    if reason != (Unavailable::NotNamed { is_recorded: false }) {
        tracing::error!(%reason, "wrapping keys unavailable; sealed texts and secrets cannot be read");
    }
    Keys::Unavailable(reason)
}

/// Decides which key of the file seals, and records it.
///
/// The recorded key must be in the file. The first key replaces it, unless the first key was replaced itself earlier: then this
/// instance still has the order of before, and the recorded key seals here as well.
async fn agree(path: PathBuf, keys: WrappingKeys, connection: &mut PgConnection) -> Result<Keys, Error> {
    let first = keys.fingerprint();
    for _ in 0..RECORD_ATTEMPTS_MAX {
        let number = match last(connection).await? {
            None => 1,
            Some((_, recorded)) if recorded == first => return Ok(Keys::Available(keys)),
            Some((number, recorded)) => match keys.with_current(recorded) {
                None => return Ok(unavailable(Unavailable::WrongKey { path, recorded })),
                Some(keys) if was_recorded(first, connection).await? => {
                    tracing::warn!(key = %first, current = %recorded, "key file begins with a former key; the recorded key is used");
                    return Ok(Keys::Available(keys));
                }
                Some(_) => number + 1,
            },
        };
        if record(number, first, connection).await? && number > 1 {
            tracing::info!(key = %first, "wrapping key replaced");
        }
    }
    Err(sqlx::Error::Protocol("the wrapping key could not be recorded".to_owned()).into())
}

/// The current key and its number.
async fn last(connection: &mut PgConnection) -> sqlx::Result<Option<(i32, Fingerprint)>> {
    let row = query!("SELECT number, fingerprint FROM wrapping_key WHERE partition = 0 ORDER BY number DESC LIMIT 1")
        .fetch_optional(connection)
        .await?;
    Ok(row.and_then(|row| Some((row.number, Fingerprint::from_slice(&row.fingerprint)?))))
}

async fn was_recorded(fingerprint: Fingerprint, connection: &mut PgConnection) -> sqlx::Result<bool> {
    let found = query_scalar!(
        "SELECT number FROM wrapping_key WHERE partition = 0 AND fingerprint = $1",
        fingerprint.as_bytes().as_slice()
    );
    Ok(found.fetch_optional(connection).await?.is_some())
}

/// Records a key under the next number. `false`: another instance has taken the number.
async fn record(number: i32, fingerprint: Fingerprint, connection: &mut PgConnection) -> sqlx::Result<bool> {
    let mut transaction = connection.begin().await?;
    let inserted = query!(
        "INSERT INTO wrapping_key (partition, number, fingerprint) VALUES (0, $1, $2)
         ON CONFLICT (partition, number) DO NOTHING",
        number,
        fingerprint.as_bytes().as_slice()
    )
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(inserted.rows_affected() == 1)
}
