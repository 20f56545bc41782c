//! The endpoints of a service: what their commands, queries and deliveries share.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use passbook_audit::{self as audit, EventReader};
use passbook_bank as bank;
use passbook_event_store::{Partitions, PrimaryConnector, with_timeout};
use passbook_keys::{Keys, Unavailable};
use sqlx::{PgConnection, PgPool};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    client::DeliveryClient,
    target::{InvalidUrl, Targets},
    timing::Timing,
    worker::Worker,
};

/// The endpoints of a service.
pub const WEBHOOKS_MAX: i64 = 100;
/// The time limit of a connection for a command.
const CONNECT_S_MAX: u64 = 5;

/// Why a command on an endpoint was not executed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such endpoint.
    #[error("there is no webhook with this id")]
    NotFound,
    /// An endpoint has the same URL and filters.
    #[error("the webhook {0} has the same URL and the same filters")]
    Exists(Uuid),
    /// There are too many.
    #[error("there are {WEBHOOKS_MAX} webhooks, the most that a service has")]
    TooMany,
    /// No events can be sent to the URL.
    #[error(transparent)]
    InvalidUrl(#[from] InvalidUrl),
    /// There is no key to seal the secret.
    #[error("the secret of a webhook cannot be stored: {0}")]
    NoKeys(Unavailable),
    /// The cursor is not one of this log, or the log cannot be read.
    #[error(transparent)]
    Log(#[from] audit::Error),
    /// The event was not appended.
    #[error(transparent)]
    Append(#[from] bank::Error),
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] sqlx::Error),
}

/// The settings of webhooks.
pub struct Settings {
    /// The number of partitions of the log.
    pub partitions: Partitions,
    /// Connections for commands.
    pub writer: PrimaryConnector,
    /// Connections for deliveries. They show only events that the standbys have.
    pub pool: PgPool,
    /// Finds the events of cursors.
    pub reader: EventReader,
    /// Seal the secrets.
    pub keys: Keys,
    /// Where events may be sent.
    pub targets: Targets,
    /// The durations of deliveries.
    pub timing: Timing,
}

/// The endpoints. Cheap to clone.
#[derive(Clone)]
pub struct Webhooks(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) partitions: Partitions,
    pub(crate) writer: PrimaryConnector,
    pub(crate) pool: PgPool,
    pub(crate) reader: EventReader,
    pub(crate) keys: Keys,
    pub(crate) targets: Targets,
    pub(crate) client: DeliveryClient,
    pub(crate) timing: Timing,
    /// Identifies this process in claims.
    pub(crate) process: Uuid,
    /// Wakes the worker.
    pub(crate) changed: Notify,
    /// Stops the deliveries of this process to an endpoint.
    running: Mutex<HashMap<Uuid, CancellationToken>>,
}

impl fmt::Debug for Webhooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhooks").finish_non_exhaustive()
    }
}

impl Inner {
    pub(crate) fn set_running(&self, webhook_id: Uuid, stop: CancellationToken) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(webhook_id, stop);
    }

    pub(crate) fn stop_running(&self, webhook_id: Uuid) {
        if let Some(stop) = self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&webhook_id) {
            stop.cancel();
        }
    }
}

impl Webhooks {
    /// The endpoints of a service, and the worker that delivers to them.
    pub fn new(settings: Settings) -> (Self, Worker) {
        let Settings { partitions, writer, pool, reader, keys, targets, timing } = settings;
        let client = DeliveryClient::new(targets.clone(), timing);
        let webhooks = Self(Arc::new(Inner {
            partitions,
            writer,
            pool,
            reader,
            keys,
            targets,
            client,
            timing,
            process: Uuid::now_v7(),
            changed: Notify::new(),
            running: Mutex::default(),
        }));
        let worker = Worker::new(webhooks.clone());
        (webhooks, worker)
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }

    pub(crate) async fn connect(&self) -> Result<PgConnection, Error> {
        Ok(with_timeout(Duration::from_secs(CONNECT_S_MAX), self.0.writer.connect()).await?)
    }
}
