//! The wrapping keys of the service: finds the key file that the settings name, and agrees with the database on the current key.

use super::Error;
use crate::config::{Config, DatabaseArgs, KeyArgs};
use passbook_checkpoint as checkpoint;
use passbook_database::{self as database, Database};
use passbook_keys::{self as wrapping, DEFAULT_FILE, KeyFile, KeySource, Keys};

/// Reads the key file.
///
/// # Errors
/// It exists and cannot be used.
pub(super) fn read(config: &Config) -> Result<KeyFile, wrapping::Error> {
    KeyFile::read(&source(&config.database, &config.keys))
}

fn source(database: &DatabaseArgs, keys: &KeyArgs) -> KeySource {
    let is_embedded = database.database_url.is_none() && database.database_url_file.is_none();
    match &keys.key_file {
        Some(path) => KeySource::Named(path.clone()),
        None if is_embedded => {
            KeySource::DataFolder(database::data_dir(database.folder.data_dir.as_deref()).join(DEFAULT_FILE))
        }
        None => KeySource::None,
    }
}

/// The wrapping keys for a command beside the service, which changes nothing.
///
/// # Errors
/// The file exists and cannot be used, or the database fails.
pub async fn wrapping_keys(database: &Database, settings: &DatabaseArgs, keys: &KeyArgs) -> Result<Keys, Error> {
    let file = KeyFile::read(&source(settings, keys))?;
    let found = database.with_service_role(async |connection| Ok(Keys::of_reader(file, connection).await)).await?;
    Ok(found?)
}

/// Gives the log its first signing key, if there is a wrapping key. Checkpoints cannot be signed without one; all else works.
///
/// # Errors
/// The database fails.
pub(super) async fn prepare_log_key(keys: &Keys, database: &Database) -> Result<(), Error> {
    let Ok(keys) = keys.get() else { return Ok(()) };
    let prepared = database.with_service_role(async |connection| match checkpoint::prepare(keys, connection).await {
        Err(checkpoint::Error::Storage(error)) => Err(error),
        prepared => Ok(prepared),
    });
    if let Err(error) = prepared.await? {
        tracing::error!(%error, "log signing key unavailable; checkpoints cannot be signed");
    }
    Ok(())
}

/// The wrapping keys that the file and the database agree on.
///
/// # Errors
/// The file cannot be created, or a new log needs one that does not exist; or the database fails.
pub(super) async fn agree(file: KeyFile, database: &Database) -> Result<Keys, Error> {
    let agreed = database.with_service_role(async |connection| Ok(Keys::of_service(file, connection).await)).await?;
    Ok(agreed?)
}
