//! The only wiring: Config → Database → Bank and ReadModel → HTTP and projector, and the way back down in order.

mod relay;

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::config::{Auth, Config};
use crate::http;
use passbook_audit::{Audit, Trail, feed::Feed};
use passbook_auth::{self as auth, Access, TokenVerifier};
use passbook_bank::{self as application, Bank};
use passbook_database::{self as database, Database};
use passbook_event_store::{Partitions, copied, layout};
use passbook_read_model::{self as read_model, Projector, QueryRouter, ReadModel, Rebuilder};

pub use relay::run_relay;

/// How many requests a second one caller may send where others can reach the bank and nothing else was said.
const RATE_LIMIT_PER_SECOND: u32 = 1_000;

/// A running bank.
#[derive(Debug)]
pub struct Service {
    address: SocketAddr,
    running: Running,
    database: Database,
    shutdown_delay: Duration,
}

/// What runs until the service stops.
#[derive(Debug)]
struct Running {
    server: http::Server,
    executors: Vec<JoinHandle<()>>,
    /// Ends the executors after they have answered all accepted commands.
    bank_shutdown: DropGuard,
    projectors: Vec<JoinHandle<()>>,
    rebuilder: JoinHandle<()>,
    /// Ends the projectors and the rebuilder.
    projection_shutdown: DropGuard,
}

/// Why the bank did not start; each a sentence that says what to do.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant says it in its sentence")]
pub enum Error {
    #[error(
        "{0} can be reached by others and access control is off: listen on 127.0.0.1, name who may come in with PASSBOOK_AUTH_ISSUER or PASSBOOK_AUTH_JWKS_FILE, or set PASSBOOK_AUTH=off to let everybody who reaches it do everything"
    )]
    Open(SocketAddr),
    #[error(
        "PASSBOOK_AUTH=off lets everybody do everything, and PASSBOOK_AUTH_ISSUER or PASSBOOK_AUTH_JWKS_FILE says who may: set one of them"
    )]
    Contradiction,
    #[error(transparent)]
    Auth(#[from] auth::Error),
    #[error("{address} is taken by another program: end it, or choose another address with PASSBOOK_LISTEN")]
    AddressInUse { address: SocketAddr },
    #[error("{address} cannot be listened on: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Database(#[from] database::Error),
    #[error(
        "another log is being copied into this one, and not all of it is here: let `passbook copy` come to its end first"
    )]
    Copying,
    #[error(
        "the log was created with {found} partitions, and PASSBOOK_PARTITIONS asks for {asked}: leave it away, or let `passbook copy --to <url> --partitions {asked}` make a new log with so many"
    )]
    Partitions { found: i16, asked: i16 },
}

impl Service {
    /// Starts everything; on return the bank answers.
    pub async fn start(config: &Config) -> Result<Self, Error> {
        let listener = listen(config).await?;
        let access = access(config).await?;
        let database = Database::open(&config.database()).await?;
        match Self::start_on(config, listener, access, &database).await {
            Ok((address, running)) => {
                if !controls_access(config) {
                    tracing::warn!("access control is off: everybody who reaches this bank may do everything");
                }
                let shutdown_delay = Duration::from_millis(config.shutdown_delay_ms.into());
                Ok(Self { address, running, database, shutdown_delay })
            }
            Err(error) => {
                database.close().await;
                Err(error)
            }
        }
    }

    async fn start_on(
        config: &Config,
        listener: TcpListener,
        access: Access,
        database: &Database,
    ) -> Result<(SocketAddr, Running), Error> {
        database.prepare().await?;
        let partitions = partitions(config, database).await?;
        if let Err(error) = read_model::register(&database.projector(), partitions).await {
            tracing::warn!(%error, "the views are not registered yet; the projector tries again");
        }
        let address = listener.local_addr().unwrap_or(config.listen);

        let newer = Arc::new(watch::Sender::new(None));
        let appended: Arc<[_]> = partitions.all().map(|_| Arc::new(watch::Sender::new(0))).collect();
        let shutdown = CancellationToken::new();
        let (mut projectors, mut progress) = (Vec::new(), Vec::new());
        for (partition, appended) in partitions.all().zip(&*appended) {
            let (projector, projected) =
                Projector::new(partition, database.projector(), appended.subscribe(), Arc::clone(&newer));
            progress.push(projected);
            projectors.push(tokio::spawn(projector.run(shutdown.clone())));
        }
        let follow = || appended.iter().map(|appended| appended.subscribe());
        let rebuilder = tokio::spawn(Rebuilder::new(database.projector(), partitions).run(shutdown.clone()));

        let trail = Trail::new(database.trail(), partitions);
        let feed = Feed::new(trail, partitions, database.feed(), follow().collect());

        let command_timeout = Duration::from_millis(config.command_timeout_ms.get().into());
        let settings = application::Settings {
            partitions,
            command_timeout,
            snapshot_every: config.snapshot_every.get().into(),
            cache_accounts: config.cache_accounts.get() as usize,
        };
        let bank_shutdown = CancellationToken::new();
        let (bank, executors) = Bank::start(settings, database.writer(), appended, newer, bank_shutdown.clone());
        let queries = database.queries();
        let read_model =
            ReadModel::new(QueryRouter::new(queries.clone(), database.replica(), partitions), partitions, progress);
        let audit = Audit::new(queries, partitions);
        let rooms = http::Rooms::new(bank, read_model, audit, feed, access)
            .limited(limits(config))
            .behind(http::Proxies::new(&config.trusted_proxies));
        let server = http::serve(listener, rooms);
        let (bank_shutdown, projection_shutdown) = (bank_shutdown.drop_guard(), shutdown.drop_guard());
        Ok((address, Running { server, executors, bank_shutdown, projectors, rebuilder, projection_shutdown }))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends in order: no new requests, the accepted ones answered, the log projected, the database closed.
    pub async fn stop(self) {
        let Running { server, executors, bank_shutdown, projectors, rebuilder, projection_shutdown } = self.running;
        server.leave(self.shutdown_delay).await;
        server.stop().await;
        drop(bank_shutdown);
        join(executors).await;
        // Now the log has every event of this process: the projectors read up to its head and end.
        drop(projection_shutdown);
        join(projectors.into_iter().chain([rebuilder])).await;
        self.database.close().await;
    }
}

/// Waits until these tasks have ended.
async fn join(tasks: impl IntoIterator<Item = JoinHandle<()>>) {
    for task in tasks {
        if let Err(error) = task.await {
            tracing::error!(%error, "a task did not end as it should");
        }
    }
}

/// What a person wants to know once it runs.
pub fn welcome(config: &Config, address: SocketAddr) -> String {
    let data = match config.database_url.is_some() || config.database_url_file.is_some() {
        true => "in the Postgres of PASSBOOK_DATABASE_URL".to_owned(),
        false => database::data_dir(&config.database()).display().to_string(),
    };
    let access = match (controls_access(config), config.auth) {
        (true, _) => "by bearer tokens",
        (false, Some(Auth::Off)) => "OFF: everybody who reaches this address may do everything",
        (false, None) => "OFF: every program of this machine may do everything",
    };
    // A wildcard address is listened on, not visited.
    let ip = if address.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { address.ip() };
    let base = format!("http://{}", SocketAddr::new(ip, address.port()));
    format!(
        "
  Passbook is open.

    Console     {base}/
    API         {base}/v1/accounts
    Swagger UI  {base}/swagger-ui/
    Readiness   {base}/readyz
    Data        {data}
    Access      {access}

  Ctrl-C ends it; the data stay.
"
    )
}

/// Into how many partitions the log is divided: created so, if nobody has created it yet.
pub async fn partitions(config: &Config, database: &Database) -> Result<Partitions, Error> {
    let asked = config.partitions.and_then(|count| Partitions::new(i16::from(count)));
    let wanted = asked.unwrap_or(Partitions::ONE);
    let (found, is_copying) = database
        .with_service(async |connection| {
            let found = layout::fix(connection, wanted).await?;
            Ok((found, copied::is_under_way(connection).await?))
        })
        .await?;
    if is_copying {
        return Err(Error::Copying);
    }
    match asked {
        Some(asked) if asked != found => Err(Error::Partitions { found: found.count(), asked: asked.count() }),
        Some(_) | None => Ok(found),
    }
}

/// The same for whoever looks at a log that is there, and creates nothing.
pub async fn partitions_of(database: &Database) -> Result<Partitions, Error> {
    let found = database.with_service(async |connection| layout::fixed(connection).await).await?;
    Ok(found.unwrap_or(Partitions::ONE))
}

/// Taken first, so that a busy port is told before a database is started.
async fn listen(config: &Config) -> Result<TcpListener, Error> {
    let address = config.listen;
    match (config.auth, controls_access(config)) {
        (Some(Auth::Off), true) => return Err(Error::Contradiction),
        (None, false) if !address.ip().is_loopback() => return Err(Error::Open(address)),
        (None, true | false) | (Some(Auth::Off), false) => {}
    }
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => Error::AddressInUse { address },
        _ => Error::Listen { address, source },
    })
}

/// Whether anything says whose tokens are taken. Half a setting counts: it is a mistake to be told, and no open bank.
fn controls_access(config: &Config) -> bool {
    config.auth_issuer.is_some() || config.auth_jwks_file.is_some() || config.auth_audience.is_some()
}

/// How much each caller may ask.
fn limits(config: &Config) -> Option<http::Limits> {
    let by_default = if config.listen.ip().is_loopback() { 0 } else { RATE_LIMIT_PER_SECOND };
    let per_second = NonZeroU32::new(config.rate_limit_per_second.unwrap_or(by_default))?;
    Some(http::Limits::new(per_second, config.rate_limit_burst.unwrap_or(per_second)))
}

/// Who may do what.
async fn access(config: &Config) -> Result<Access, Error> {
    if !controls_access(config) {
        return Ok(match config.auth {
            Some(Auth::Off) => Access::Off,
            None => Access::Loopback,
        });
    }
    let settings = auth::Settings {
        issuer: config.auth_issuer.clone(),
        audience: config.auth_audience.clone(),
        jwks_file: config.auth_jwks_file.clone(),
    };
    Ok(Access::Tokens(Arc::new(TokenVerifier::new(settings).await?)))
}
