//! Brings Postgres: the one that is configured, or one of our own; its connections; its schema.

mod distribute;
mod schema;
mod urls;

use std::{io, path::PathBuf, time::Duration};

use secrecy::SecretString;
use sqlx::{
    ConnectOptions, Connection, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::timeout;

use self::urls::{replica, servers, url, with_settings};
use passbook_embedded_postgres::{self as embedded, EmbeddedPostgres};
use passbook_event_store::Primary;

/// How long the database may take to answer a new connection at the start.
const CONNECT_MS_MAX: u64 = 10_000;
/// How many queries run at once.
const QUERY_CONNECTIONS_MAX: u32 = 16;
/// How many pages of the log are read at once.
const TRAIL_CONNECTIONS_MAX: u32 = 6;
/// How long one query may take, in milliseconds.
const QUERY_MS_MAX: &str = "5000";
/// How long a query waits for a connection.
const ACQUIRE_MS_MAX: u64 = 2_000;

/// Each statement is planned once a connection, and through the indexes however empty the tables are at that time.
const PLANNED_ONCE: [(&str, &str); 2] = [("plan_cache_mode", "force_generic_plan"), ("enable_seqscan", "off")];

/// What queries run with.
const QUERYING: [(&str, &str); 2] = [schema::AS_SERVICE, ("statement_timeout", QUERY_MS_MAX)];

/// Which database to use.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// A Postgres URL, or several with commas between; none: the embedded Postgres.
    pub url: Option<SecretString>,
    /// A file that holds the URL, in place of `url`.
    pub url_file: Option<PathBuf>,
    /// A streaming replica for queries.
    pub read_url: Option<SecretString>,
    /// The data folder of the embedded Postgres.
    pub data_dir: Option<PathBuf>,
    /// The folder that holds `postgres` and `initdb`.
    pub pg_bin: Option<PathBuf>,
}

/// The database, and the server behind it where that is ours.
#[derive(Debug)]
pub struct Database {
    primary: Primary,
    replica: Option<PgConnectOptions>,
    embedded: Option<EmbeddedPostgres>,
}

/// Why there is no database.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant says it in its sentence")]
pub enum Error {
    #[error(transparent)]
    Embedded(#[from] embedded::Error),
    #[error(
        "PASSBOOK_DATABASE_URL is not a Postgres URL such as postgres://user:password@host/database, or several with commas between"
    )]
    InvalidUrl,
    #[error("PASSBOOK_DATABASE_URL and PASSBOOK_DATABASE_URL_FILE both name a database: set one of them")]
    TwoUrls,
    #[error("PASSBOOK_READ_DATABASE_URL is not a Postgres URL such as postgres://user:password@host/database")]
    InvalidReadUrl,
    #[error("PASSBOOK_DATABASE_URL_FILE={path} cannot be read: {source}")]
    UrlFile { path: PathBuf, source: io::Error },
    #[error("the database of PASSBOOK_DATABASE_URL cannot be reached: {0}")]
    Unreachable(#[source] sqlx::Error),
    #[error("the database refuses to work: {0}")]
    Unusable(#[source] sqlx::Error),
    #[error("the database is Postgres {0}, and Passbook needs 15 or newer")]
    TooOld(String),
    #[error(transparent)]
    Schema(#[from] schema::Error),
    #[error(transparent)]
    Distribute(#[from] distribute::Error),
}

impl Error {
    /// Whether it may be gone without anybody's doing: the database is away.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Schema(schema::Error::Unreadable(_)) => true,
            Self::Unusable(error) => error.as_database_error().is_none(),
            Self::Embedded(_)
            | Self::InvalidUrl
            | Self::InvalidReadUrl
            | Self::TwoUrls
            | Self::UrlFile { .. }
            | Self::TooOld(_)
            | Self::Schema(_)
            | Self::Distribute(_) => false,
        }
    }
}

impl Database {
    /// Reaches the configured Postgres, or starts one of our own.
    pub async fn open(settings: &Settings) -> Result<Self, Error> {
        match url(settings)? {
            Some(url) => Self::reach(&url, settings).await,
            None => Self::ours(EmbeddedPostgres::start(&embedded_settings(settings)).await?, settings),
        }
    }

    /// The same for whoever looks at a bank that is there, and may be running: a Postgres of our own that runs already is
    /// used as it is, and none is created.
    pub async fn open_existing(settings: &Settings) -> Result<Self, Error> {
        match url(settings)? {
            Some(url) => Self::reach(&url, settings).await,
            None => Self::ours(EmbeddedPostgres::attach_or_start(&embedded_settings(settings)).await?, settings),
        }
    }

    /// The same for whoever can wait until the database is there: nothing is reached and nothing is started yet.
    pub fn expect(settings: &Settings) -> Result<Self, Error> {
        let primary = match url(settings)? {
            Some(urls) => servers(&urls)?,
            None => Primary::new(vec![with_settings(embedded::connect_options(&data_dir(settings)))]),
        };
        Ok(Self { primary, replica: None, embedded: None })
    }

    fn ours(embedded: EmbeddedPostgres, settings: &Settings) -> Result<Self, Error> {
        let primary = Primary::new(vec![with_settings(embedded.connect_options())]);
        Ok(Self { primary, replica: replica(settings)?, embedded: Some(embedded) })
    }

    async fn reach(urls: &SecretString, settings: &Settings) -> Result<Self, Error> {
        let database = Self { primary: servers(urls)?, replica: replica(settings)?, embedded: None };
        let connection = database.connect().await?;
        let version = connection.server_version_num().unwrap_or_default();
        if version < 150_000 {
            return Err(Error::TooOld((version / 10_000).to_string()));
        }
        // A failed goodbye harms nobody.
        let _ = connection.close().await;
        Ok(database)
    }

    /// Brings the schema and the service's rights up to date, as the owner of the tables.
    pub async fn migrate(&self) -> Result<(), Error> {
        self.with_connection(schema::migrate).await
    }

    /// Spreads the tables over the nodes of a Citus cluster, each partition on one of them, as the owner of the tables.
    pub async fn distribute(&self) -> Result<(), Error> {
        self.with_connection(distribute::distribute).await
    }

    /// Makes sure that the schema is one that this release can serve: the owner brings it up to date, others look.
    pub async fn prepare(&self) -> Result<(), Error> {
        self.with_connection(schema::prepare).await
    }

    /// Makes sure that the schema is one that this release can read, and changes nothing.
    pub async fn check(&self) -> Result<(), Error> {
        self.with_connection(schema::check).await
    }

    async fn with_connection<E>(&self, work: impl AsyncFnOnce(&mut PgConnection) -> Result<(), E>) -> Result<(), Error>
    where
        Error: From<E>,
    {
        let mut connection = self.connect().await?;
        work(&mut connection).await?;
        // A failed goodbye harms nobody.
        let _ = connection.close().await;
        Ok(())
    }

    /// A short piece of work with the service's rights.
    pub async fn with_service<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    ) -> Result<T, Error> {
        let mut connection = connect(&self.writer()).await?;
        let done = work(&mut connection).await.map_err(Error::Unusable)?;
        // A failed goodbye harms nobody.
        let _ = connection.close().await;
        Ok(done)
    }

    async fn connect(&self) -> Result<PgConnection, Error> {
        connect(&self.primary).await
    }

    /// For the executor. Durable whatever the server's default is.
    pub fn writer(&self) -> Primary {
        let settings = [schema::AS_SERVICE, ("synchronous_commit", "on")];
        self.primary.shaped(|server| server.application_name("passbook writer").options(PLANNED_ONCE).options(settings))
    }

    /// For the projector, which can replay what a crash takes back.
    pub fn projector(&self) -> Primary {
        let settings = [schema::AS_SERVICE, ("synchronous_commit", "off")];
        self.primary
            .shaped(|server| server.application_name("passbook projector").options(PLANNED_ONCE).options(settings))
    }

    /// For whoever reads the whole log, which takes its time. The log is read along its key from the first row on, and
    /// never sorted as a whole, whatever the planner believes of its size.
    pub fn auditor(&self) -> Primary {
        let settings = [
            schema::AS_SERVICE,
            ("idle_in_transaction_session_timeout", "0"),
            ("enable_sort", "off"),
            ("work_mem", "64MB"),
        ];
        self.primary
            .shaped(|server| server.application_name("passbook auditor").disable_statement_logging().options(settings))
    }

    /// For queries. Each connection is tried out before it is used: after a restart of the server all of them are dead.
    pub fn queries(&self) -> PgPool {
        self.pool(QUERY_CONNECTIONS_MAX, |server| server.application_name("passbook queries"))
    }

    /// For queries as well, where a replica was configured. It need not be there.
    pub fn replica(&self) -> Option<PgPool> {
        let replica = self.replica.clone()?.application_name("passbook queries");
        Some(pool(QUERY_CONNECTIONS_MAX).connect_lazy_with(replica.options(QUERYING)))
    }

    /// For pages of the log, apart from the queries: however many readers catch up, the views are answered.
    pub fn trail(&self) -> PgPool {
        self.pool(TRAIL_CONNECTIONS_MAX, |server| server.application_name("passbook trail").options(PLANNED_ONCE))
    }

    /// For the one who publishes the log to other services.
    pub fn relay(&self) -> Primary {
        self.primary.shaped(|server| server.application_name("passbook relay").options(PLANNED_ONCE).options(QUERYING))
    }

    /// For the one that reads the log for everybody who follows it.
    pub fn feed(&self) -> Primary {
        self.primary.shaped(|server| server.application_name("passbook feed").options(PLANNED_ONCE).options(QUERYING))
    }

    fn pool(&self, connections_max: u32, shape: impl Fn(PgConnectOptions) -> PgConnectOptions) -> PgPool {
        self.primary.shaped(|server| shape(server).options(QUERYING)).pool(pool(connections_max))
    }

    /// Stops the server if it is ours.
    pub async fn close(self) {
        if let Some(embedded) = self.embedded {
            embedded.stop().await;
        }
    }
}

async fn connect(primary: &Primary) -> Result<PgConnection, Error> {
    match timeout(Duration::from_millis(CONNECT_MS_MAX), primary.connect()).await {
        Ok(connected) => connected.map_err(Error::Unreachable),
        Err(_) => Err(Error::Unreachable(io::Error::from(io::ErrorKind::TimedOut).into())),
    }
}

fn pool(connections_max: u32) -> PgPoolOptions {
    PgPoolOptions::new().max_connections(connections_max).acquire_timeout(Duration::from_millis(ACQUIRE_MS_MAX))
}

/// Where our own Postgres keeps its data.
pub fn data_dir(settings: &Settings) -> PathBuf {
    settings.data_dir.clone().unwrap_or_else(embedded::default_data_dir)
}

fn embedded_settings(settings: &Settings) -> embedded::Settings {
    embedded::Settings { data_dir: data_dir(settings), bin: settings.pg_bin.clone(), parameters: vec![] }
}
