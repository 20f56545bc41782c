//! The wrapping keys of the service: finds the key file that the settings name, and agrees with the database on the current key.

use super::Error;
use crate::config::Config;
use passbook_database::{self as database, Database};
use passbook_keys::{self as wrapping, DEFAULT_FILE, KeyFile, KeySource, Keys};

/// Reads the key file.
///
/// # Errors
/// It exists and cannot be used.
pub(super) fn read(config: &Config) -> Result<KeyFile, wrapping::Error> {
    KeyFile::read(&source(config))
}

fn source(config: &Config) -> KeySource {
    let is_embedded = config.database.database_url.is_none() && config.database.database_url_file.is_none();
    match &config.keys.key_file {
        Some(path) => KeySource::Named(path.clone()),
        None if is_embedded => {
            KeySource::DataFolder(database::data_dir(config.database.folder.data_dir.as_deref()).join(DEFAULT_FILE))
        }
        None => KeySource::None,
    }
}

/// The wrapping keys that the file and the database agree on.
///
/// # Errors
/// The file cannot be created, or a new log needs one that does not exist; or the database fails.
pub(super) async fn agree(file: KeyFile, database: &Database) -> Result<Keys, Error> {
    let agreed = database.with_service_role(async |connection| Ok(Keys::of_service(file, connection).await)).await?;
    Ok(agreed?)
}
