//! `passbook rotate-log-key`: replaces the key that signs checkpoints.

use passbook::{config::RotateLogKey, service};
use passbook_checkpoint as checkpoint;
use passbook_database::Database;
use passbook_telemetry as telemetry;

use crate::print;

/// Replaces the key, and prints the new public key.
///
/// # Errors
/// The text is for the operator.
pub async fn rotate(wanted: RotateLogKey) -> Result<(), String> {
    let _telemetry = telemetry::start(&wanted.log.settings())?;
    let database = Database::open_existing(&wanted.database.settings()).await.map_err(|error| error.to_string())?;
    let outcome = replace(&database, &wanted).await;
    database.close().await;
    let key = outcome?;
    eprintln!("keep this key outside of the database, and give it to those who verify checkpoints:");
    print(&format!("{key}\n"))
}

async fn replace(database: &Database, wanted: &RotateLogKey) -> Result<checkpoint::VerifierKey, String> {
    database.check_schema().await.map_err(|error| error.to_string())?;
    let keys = service::wrapping_keys(database, &wanted.database, &wanted.keys).await;
    let keys = keys.map_err(|error| error.to_string())?;
    let keys = keys.get().map_err(ToString::to_string)?;
    let rotated = database.with_service_role(async |connection| Ok(checkpoint::rotate(keys, connection).await));
    rotated.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}
