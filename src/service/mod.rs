//! Wires the crates into one process: starts the database, the write side, the projections and the HTTP server, supervises
//! their tasks, and stops them in reverse order.

mod access;
mod doctor;
mod due_holds;
mod keys;
mod relay;
mod task_group;

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU16,
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use tokio::{
    net::TcpListener,
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use self::{due_holds::HoldsView, task_group::TaskGroup};
use crate::config::{Auth, Config};
use crate::http;
use passbook_audit::{Audit, EventReader, feed::Feed};
use passbook_auth::{self as auth, Access};
use passbook_bank::{self as bank, Bank, HoldExpiry, KeyDeletion};
use passbook_checkpoint::Checkpoints;
use passbook_database::{self as database, Database};
use passbook_event_store::{Partitions, import, log, partition_count};
use passbook_keys::{self as wrapping, KeyFile};
use passbook_read_model::{self as read_model, Projector, QueryRouter, ReadModel, Rebuilder};
use passbook_telemetry::supervision;
use passbook_webhooks::{self as webhooks, SystemLookUp, Targets, Webhooks};

pub use doctor::examine;
pub use keys::wrapping_keys;
pub use relay::run_relay;
pub use task_group::TaskEnded;

/// How long a shutdown may take after the shutdown delay, in milliseconds. Longer than the HTTP server's time for requests in
/// flight, and than the default timeout of a command.
const SHUTDOWN_MS_MAX: u64 = 25_000;

/// A running service.
#[derive(Debug)]
pub struct Service {
    address: SocketAddr,
    partitions: Partitions,
    tasks: Tasks,
    database: Database,
    /// Makes `/readyz` answer 503, so that load balancers send new requests to other instances.
    draining: CancellationToken,
    shutdown_delay: Duration,
}

/// The background tasks, in the order in which they stop.
#[derive(Debug)]
struct Tasks {
    /// Ends after the requests in flight.
    http: TaskGroup,
    /// Ends after all accepted commands are answered.
    bank: TaskGroup,
    /// Keeps the executors running when the HTTP server panics, so that the panic is reported as the reason of the exit.
    _bank_handle: Bank,
    /// Ends at the log's head.
    projections: TaskGroup,
    partitions: Partitions,
}

/// What is made of the settings before the database is opened.
struct Prepared {
    listener: TcpListener,
    access: Access,
    key_file: KeyFile,
}

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says it")]
pub enum Error {
    #[error(
        "{0} can be reached from other machines and access control is off: listen on 127.0.0.1, set PASSBOOK_AUTH_ISSUER or \
         PASSBOOK_AUTH_JWKS_FILE, or set PASSBOOK_AUTH=off to give every client that reaches the address every permission"
    )]
    OpenToNetwork(SocketAddr),
    #[error(
        "PASSBOOK_AUTH=off turns access control off, and PASSBOOK_AUTH_ISSUER, PASSBOOK_AUTH_AUDIENCE or \
         PASSBOOK_AUTH_JWKS_FILE turns it on: set only one of them"
    )]
    ContradictoryAuth,
    #[error("{0}")]
    Settings(String),
    #[error(
        "PASSBOOK_AUTH_CLIENT_ID lets users sign in to the console with an OpenID Connect provider: set PASSBOOK_AUTH_ISSUER to its \
         URL, which starts with https:// (or http:// on a loopback address)"
    )]
    ClientIdWithoutIssuer,
    #[error(transparent)]
    Auth(#[from] auth::Error),
    #[error("another program listens on {address}: stop it, or choose another address with PASSBOOK_LISTEN")]
    AddressInUse { address: SocketAddr },
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Database(#[from] database::Error),
    #[error(transparent)]
    KeyFile(#[from] wrapping::Error),
    #[error("the log is an incomplete copy of another log: let `passbook copy` finish first")]
    IncompleteCopy,
    #[error("the log was moved to another database by `passbook copy` at {0}: connect to that one")]
    LogMoved(DateTime<Utc>),
    #[error(
        "the log has {found} partitions and PASSBOOK_PARTITIONS is {asked}: unset it, or create a log with {asked} partitions \
         by `passbook copy --to <url> --partitions {asked}`"
    )]
    Partitions { found: i16, asked: i16 },
}

/// The service did not stop within its time limit.
#[derive(Debug, thiserror::Error)]
#[error("the shutdown took longer than {SHUTDOWN_MS_MAX} ms and was aborted; no acknowledged command is lost")]
pub struct ShutdownTimeout;

impl Service {
    /// Starts the service. It serves requests when this function returns.
    ///
    /// # Errors
    /// A setting, the address or the database prevents the start.
    pub async fn start(config: &Config) -> Result<Self, Error> {
        let key_file = check_settings(config)?;
        let listener = listen(config.listen).await?;
        let address = listener.local_addr().unwrap_or(config.listen);
        let prepared = Prepared { listener, access: access::access(config).await?, key_file };
        let database = Database::open(&config.database()).await?;
        let draining = CancellationToken::new();
        match start_tasks(config, prepared, &database, draining.clone()).await {
            Ok(tasks) => {
                if !access::is_controlled(config) {
                    tracing::warn!("access control is off; every client has every permission");
                }
                let shutdown_delay = Duration::from_millis(config.shutdown_delay_ms.into());
                Ok(Self { address, partitions: tasks.partitions, tasks, database, draining, shutdown_delay })
            }
            Err(error) => {
                database.close().await;
                Err(error)
            }
        }
    }

    /// The address on which the service listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until a background task ends although the service runs. The service is then incomplete: log it and exit.
    pub async fn task_ended(&mut self) -> TaskEnded {
        let Tasks { http, bank, projections, .. } = &mut self.tasks;
        tokio::select! {
            ended = http.unexpected_end() => ended,
            ended = bank.unexpected_end() => ended,
            ended = projections.unexpected_end() => ended,
            failed = supervision::failed() => failed.into(),
        }
    }

    /// Stops the service: it accepts no new requests, answers the accepted ones, projects the log to its end and closes the
    /// database.
    ///
    /// # Errors
    /// The tasks did not end within [`SHUTDOWN_MS_MAX`]. They are abandoned, and the database is closed all the same.
    pub async fn stop(self) -> Result<(), ShutdownTimeout> {
        let Self { tasks: Tasks { http, bank, projections, .. }, database, draining, shutdown_delay, .. } = self;
        draining.cancel();
        sleep(shutdown_delay).await;
        let stopped = timeout(Duration::from_millis(SHUTDOWN_MS_MAX), async {
            http.stop().await;
            bank.stop().await;
            // Now the log holds every event of this process, and the projectors read it to its end.
            projections.stop().await;
        })
        .await;
        database.close().await;
        stopped.map_err(|_| ShutdownTimeout)
    }
}

async fn start_tasks(
    config: &Config,
    prepared: Prepared,
    database: &Database,
    draining: CancellationToken,
) -> Result<Tasks, Error> {
    let Prepared { listener, access, key_file } = prepared;
    database.ensure_schema().await?;
    let partitions = ensure_partitions(config, database).await?;
    let keys = keys::agree(key_file, database).await?;
    keys::prepare_log_key(&keys, database).await?;
    if let Err(error) = read_model::register(&database.projector(), partitions).await {
        tracing::warn!(%error, "views could not be registered; the projector retries");
    }
    let (mut http_tasks, mut bank_tasks, mut projections) = (TaskGroup::new(), TaskGroup::new(), TaskGroup::new());
    let appended: Arc<[_]> = partitions.all().map(|_| Arc::new(watch::Sender::new(0))).collect();
    let unsupported_event = Arc::new(watch::Sender::new(None));

    let mut progress = Vec::new();
    for (partition, appended) in partitions.all().zip(&*appended) {
        let unsupported_event = Arc::clone(&unsupported_event);
        let (projector, projected) =
            Projector::new(partitions, partition, &database.projector(), appended.subscribe(), unsupported_event);
        progress.push(projected);
        projections.spawn("projector", projector.run(projections.token()));
    }
    let rebuilder = Rebuilder::new(database.projector(), partitions);
    projections.spawn("rebuilder", rebuilder.run(projections.token()));

    let followed = database.feed().confirmed(0..partitions.count());
    let pages = database.log_pages(partitions);
    let checkpoints = Checkpoints::new(pages.clone(), partitions, keys.clone());
    let reader = EventReader::new(pages, followed.clone(), partitions);
    let new_events = appended.iter().map(|appended| appended.subscribe()).collect();
    let feed = Feed::new(reader, followed, new_events, http_tasks.token());

    let settings = bank::Settings {
        partitions,
        is_distributed: database.is_distributed(),
        command_timeout: Duration::from_millis(config.command_timeout_ms.get().into()),
        snapshot_every: config.snapshot_every.get().into(),
        cache_accounts: config.cache_accounts.get() as usize,
        clock_skew_max: Duration::from_millis(config.clock.clock_skew_ms_max.get().into()),
    };
    let (bank, executors) =
        Bank::start(settings, database.writer().recording_timeline(), appended, unsupported_event, bank_tasks.token());
    executors.into_iter().for_each(|executor| bank_tasks.add("executor", executor));
    if let Some(retention_days) = NonZeroU16::new(config.idempotency_retention_days) {
        let deletion = KeyDeletion::new(database.key_deletion(), partitions, retention_days);
        bank_tasks.spawn("key deletion", deletion.run(bank_tasks.token()));
    }

    let queries = database.queries();
    let router = QueryRouter::new(queries.clone(), database.replica(), partitions);
    let read_model = ReadModel::new(router, partitions, progress);
    let expiry = HoldExpiry::new(bank.clone(), partitions, HoldsView(read_model.clone()), auth::EXPIRY);
    bank_tasks.spawn("hold expiry", expiry.run(bank_tasks.token()));
    let (webhooks, worker) = Webhooks::new(webhooks::Settings {
        partitions,
        writer: database.writer(),
        pool: database.webhooks(partitions),
        reader: feed.reader().clone(),
        keys: keys.clone(),
        targets: Targets::new(Arc::new(SystemLookUp), config.webhooks.webhooks_allow_private),
        timing: config.webhooks.timing,
    });
    bank_tasks.spawn("webhooks", worker.run(bank_tasks.token()));
    let services = http::Services {
        bank: bank.clone(),
        read_model,
        audit: Audit::new(queries, partitions),
        feed,
        checkpoints,
        keys,
        webhooks,
        access,
        sign_in: access::sign_in(config)?,
        rate_limiter: access::rate_limiter(config),
        trusted_proxies: http::TrustedProxies::new(&config.trusted_proxies),
        idle_timeout: Duration::from_millis(config.idle_timeout_ms.get().into()),
        draining,
        shutdown: http_tasks.token(),
    };
    let server = http::serve(listener, http::AppState::new(services), http_tasks.token());
    http_tasks.spawn("http server", server);
    Ok(Tasks { http: http_tasks, bank: bank_tasks, _bank_handle: bank, projections, partitions })
}

/// Announces the addresses, the data folder and the access mode on standard error: as one log line if the log is JSON, else as lines
/// for people.
pub fn announce_start(config: &Config, service: &Service, log_is_json: bool) {
    let (address, partitions) = (service.address, service.partitions.count());
    let data = match config.database.database_url.is_some() || config.database.database_url_file.is_some() {
        true => "in the Postgres of PASSBOOK_DATABASE_URL".to_owned(),
        false => database::data_dir(config.database.folder.data_dir.as_deref()).display().to_string(),
    };
    let access = match (access::is_controlled(config), config.auth) {
        (true, _) => "bearer tokens",
        (false, Some(Auth::Off)) => "OFF: every client that reaches this address has every permission",
        (false, None) => "OFF: every program on this machine has every permission",
    };
    // A client cannot connect to a wildcard address.
    let ip = if address.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { address.ip() };
    let base = format!("http://{}", SocketAddr::new(ip, address.port()));
    let [console, api, swagger_ui, readiness] =
        ["/", "/v1/accounts", "/swagger-ui/", "/readyz"].map(|path| format!("{base}{path}"));
    if log_is_json {
        let version = env!("PASSBOOK_VERSION");
        tracing::info!(version, console, api, swagger_ui, readiness, partitions, data, access, "service is running");
        return;
    }
    eprintln!(
        "
  Passbook is running.

    Console     {console}
    API         {api}
    Swagger UI  {swagger_ui}
    Documents   {base}/docs/
    Readiness   {readiness}
    Data        {data}
    Access      {access}

  Press Ctrl-C to stop. Data is kept.
"
    );
}

/// The number of partitions of the log; an empty database gets a log with the configured number.
async fn ensure_partitions(config: &Config, database: &Database) -> Result<Partitions, Error> {
    let asked = config.partitions.get();
    let new = asked.unwrap_or(Partitions::ONE);
    let (found, is_incomplete_copy, moved_at) = database
        .with_service_role(async |connection| {
            let found = partition_count::ensure(connection, new).await?;
            Ok((found, import::is_in_progress(connection).await?, log::moved_at(connection).await?))
        })
        .await?;
    if is_incomplete_copy {
        return Err(Error::IncompleteCopy);
    }
    if let Some(moved_at) = moved_at {
        return Err(Error::LogMoved(moved_at));
    }
    match asked {
        Some(asked) if asked != found => Err(Error::Partitions { found: found.count(), asked: asked.count() }),
        Some(_) | None => Ok(found),
    }
}

/// The number of partitions of an existing log.
///
/// # Errors
/// The database cannot be read.
pub async fn partitions_of(database: &Database) -> Result<Partitions, Error> {
    let found = database.with_service_role(async |connection| partition_count::read(connection).await).await?;
    Ok(found.unwrap_or(Partitions::ONE))
}

/// Checks all settings before anything is started, and reports all of their faults. Returns the key file.
fn check_settings(config: &Config) -> Result<KeyFile, Error> {
    let checks = [
        access::check(config),
        access::sign_in(config).map(drop),
        database::check(&config.database()).map_err(Error::from),
    ];
    let mut faults: Vec<Error> = checks.into_iter().filter_map(Result::err).collect();
    match (keys::read(config), faults.len()) {
        (Ok(key_file), 0) => return Ok(key_file),
        (Ok(_), _) => {}
        (Err(error), _) => faults.push(error.into()),
    }
    match faults.len() {
        1 => Err(faults.remove(0)),
        _ => Err(Error::Settings(faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))),
    }
}

/// Binds the address before the database starts, so that an address in use is reported at once.
async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => Error::AddressInUse { address },
        _ => Error::Listen { address, source },
    })
}
