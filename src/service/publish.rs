//! A relay put together: it waits for the database, and shows its figures.

use std::{net::SocketAddr, time::Duration};

use sqlx::PgConnection;
use tokio::{net::TcpListener, sync::watch, time::sleep};

use crate::config::RelayNats;
use crate::http;
use passbook_database::{self as database, Database};
use passbook_event_store::{Partitions, copied, layout};
use passbook_relay as relay;

/// Pause before a database that is away is looked for again.
const DATABASE_RETRY_MS: u64 = 500;

/// Publishes the log until `stopping`, once the database is there. Where figures are shown, `listens` is told the address.
///
/// # Errors
/// A sentence.
pub async fn publish(
    wanted: RelayNats,
    mut stopping: watch::Receiver<bool>,
    listens: impl FnOnce(SocketAddr) -> Result<(), String>,
) -> Result<(), String> {
    let listener = match wanted.relay_listen {
        Some(address) => Some(TcpListener::bind(address).await.map_err(|error| format!("{address}: {error}"))?),
        None => None,
    };
    if let Some(address) = listener.as_ref().and_then(|listener| listener.local_addr().ok()) {
        listens(address)?;
    }
    let _figures = listener.map(|listener| tokio::spawn(http::serve_metrics(listener)));
    let database = Database::expect(&wanted.config.database()).map_err(|error| error.to_string())?;
    let partitions = tokio::select! {
        partitions = partitions_once_there(&database) => partitions?,
        _ = stopping.wait_for(|stopping| *stopping) => return Ok(()),
    };
    let settings = relay::Settings {
        url: wanted.relay_nats_url,
        credentials: wanted.relay_nats_credentials_file,
        stream: wanted.relay_stream,
        refill: wanted.refill,
    };
    let relayed = relay::run(settings, partitions, &database.relay(), stopping).await;
    relayed.map_err(|error| error.to_string())
}

/// How many partitions the log has, once there is one that can be read.
async fn partitions_once_there(database: &Database) -> Result<Partitions, String> {
    let mut is_told = false;
    loop {
        let reason = match look(database).await {
            Ok((Some(_), true)) => "another log is being copied into this one, and not all of it is here".to_owned(),
            Ok((Some(partitions), false)) => return Ok(partitions),
            Ok((None, _)) => "nobody has served this bank yet".to_owned(),
            Err(error) if error.is_outage() => error.to_string(),
            Err(error) => return Err(error.to_string()),
        };
        if !std::mem::replace(&mut is_told, true) {
            tracing::warn!(reason, "the relay waits for the log");
        }
        sleep(Duration::from_millis(DATABASE_RETRY_MS)).await;
    }
}

/// How many partitions the log has, if there is one, and whether it is still being copied.
async fn look(database: &Database) -> Result<(Option<Partitions>, bool), database::Error> {
    database.check().await?;
    let looking = async |connection: &mut PgConnection| {
        Ok((layout::fixed(connection).await?, copied::is_under_way(connection).await?))
    };
    database.with_service(looking).await
}
