//! Runs `passbook relay nats`: waits until the database contains a complete log, publishes it, and serves the metrics.

use std::{future::pending, net::SocketAddr, time::Duration};

use sqlx::PgConnection;
use tokio::{net::TcpListener, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::config::{DatabaseArgs, KeyArgs, RelayNats};
use crate::http;
use passbook_checkpoint::Checkpoints;
use passbook_database::{self as database, Database};
use passbook_event_store::{Partitions, import, partition_count};
use passbook_keys::Keys;
use passbook_relay as relay;
use passbook_telemetry::supervision;

use super::{Error, TaskEnded, keys};

/// The pause between two attempts to find the log.
const LOG_RETRY_MS: u64 = 500;

/// Publishes the log until `shutdown` is cancelled. `on_listening` receives the address of the metrics endpoint, if there is one.
///
/// # Errors
/// The metrics address cannot be used, or an operator must act before the relay can continue. The text is for the operator.
pub async fn run_relay(
    command: RelayNats,
    shutdown: CancellationToken,
    on_listening: impl FnOnce(SocketAddr) -> Result<(), String>,
) -> Result<(), String> {
    let listener = match command.relay_listen {
        Some(address) => Some(TcpListener::bind(address).await.map_err(|error| format!("{address}: {error}"))?),
        None => None,
    };
    if let Some(address) = listener.as_ref().and_then(|listener| listener.local_addr().ok()) {
        on_listening(address)?;
    }
    let metrics = async {
        match listener {
            Some(listener) => http::serve_metrics(listener).await,
            None => pending().await,
        }
    };
    tokio::select! {
        outcome = publish(command, shutdown) => outcome,
        failed = supervision::failed() => Err(TaskEnded::from(failed).to_string()),
        () = metrics => Err("the metrics endpoint ended unexpectedly: start the relay again".to_owned()),
    }
}

async fn publish(command: RelayNats, shutdown: CancellationToken) -> Result<(), String> {
    let database = Database::lazy(&command.database.settings()).map_err(|error| error.to_string())?;
    let Some(partitions) = shutdown.run_until_cancelled(wait_for_log(&database)).await else { return Ok(()) };
    let settings = relay::Settings {
        url: command.relay_nats_url,
        credentials: command.relay_nats_credentials_file,
        stream: command.relay_stream,
        refill: command.refill,
    };
    let partitions = partitions?;
    let checkpoints = match command.relay_checkpoints {
        true => {
            let keys = wrapping_keys(&database, &command.database, &command.keys);
            let Some(keys) = shutdown.run_until_cancelled(keys).await else { return Ok(()) };
            Some(Checkpoints::new(database.log_pages(partitions), partitions, keys?))
        }
        false => None,
    };
    let outcome = relay::run(settings, partitions, &database.relay(), checkpoints, shutdown).await;
    outcome.map_err(|error| error.to_string())
}

/// The wrapping keys, which checkpoints need. Waits for a database that cannot be reached.
async fn wrapping_keys(database: &Database, settings: &DatabaseArgs, keys: &KeyArgs) -> Result<Keys, String> {
    loop {
        match keys::wrapping_keys(database, settings, keys).await {
            Ok(keys) => {
                keys.get().map_err(|reason| format!("PASSBOOK_RELAY_CHECKPOINTS needs the key file: {reason}"))?;
                return Ok(keys);
            }
            Err(Error::Database(error)) if error.is_outage() => sleep(Duration::from_millis(LOG_RETRY_MS)).await,
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Waits until the database contains a complete log. Returns its number of partitions.
async fn wait_for_log(database: &Database) -> Result<Partitions, String> {
    let mut is_logged = false;
    loop {
        let reason = match find_log(database).await {
            Ok((Some(_), true)) => "the log is an incomplete copy: let `passbook copy` finish".to_owned(),
            Ok((Some(partitions), false)) => return Ok(partitions),
            Ok((None, _)) => "the database contains no log: start `passbook serve` once".to_owned(),
            Err(error) if error.is_outage() => error.to_string(),
            Err(error) => return Err(error.to_string()),
        };
        if !std::mem::replace(&mut is_logged, true) {
            tracing::warn!(reason, "waiting for the log");
        }
        sleep(Duration::from_millis(LOG_RETRY_MS)).await;
    }
}

/// The number of partitions, or `None` if there is no log, and whether the log is an incomplete copy.
async fn find_log(database: &Database) -> Result<(Option<Partitions>, bool), database::Error> {
    database.check_schema().await?;
    let query = async |connection: &mut PgConnection| {
        Ok((partition_count::read(connection).await?, import::is_in_progress(connection).await?))
    };
    database.with_service_role(query).await
}
