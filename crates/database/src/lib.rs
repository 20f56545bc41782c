//! The database: a configured Postgres, or the embedded one. This crate opens it and migrates its schema. It creates a separate
//! connector or pool for each purpose, so that one purpose cannot exhaust the connections of another.

mod citus;
mod connect_options;
pub mod doctor;
mod error;
mod late_indexes;
mod pooler;
mod rights;
mod schema;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use secrecy::SecretString;
use sqlx::{
    ConnectOptions, Connection, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use self::connect_options::{connector, embedded_settings, replica, url, with_session_settings};
use passbook_embedded_postgres::{self as embedded, EmbeddedPostgres};
use passbook_event_store::{Partitions, PrimaryConnector, checked_pool_options, with_timeout};

pub use connect_options::{Settings, check, data_dir};
pub use error::Error;

/// The time limit of the first connection.
const CONNECT_MS_MAX: u64 = 10_000;
/// The number of connections for queries, to the primary and to the replica each.
const QUERY_CONNECTIONS_MAX: u32 = 16;
/// The number of connections for pages of the event log.
const LOG_PAGE_CONNECTIONS_MAX: u32 = 6;
/// The number of connections for deliveries to webhooks.
const WEBHOOK_CONNECTIONS_MAX: u32 = 4;
/// The time limit of one query, as Postgres shows it.
const QUERY_TIMEOUT: &str = "5s";
/// How long the server waits for a client that takes no data, on connections that hold locks. It has no effect on Unix sockets, so
/// no response under a lock may exceed the buffers of a socket either.
const TCP_USER_TIMEOUT: &str = "10s";
/// How long a query waits for a connection of its pool.
const ACQUIRE_MS_MAX: u64 = 2_000;

/// Plans each statement once per connection.
const GENERIC_PLANS: (&str, &str) = ("plan_cache_mode", "force_generic_plan");
/// Citus needs the value of the partition to plan a statement. It keeps the plans of the simplest statements for all values.
const PLANS_AS_NEEDED: (&str, &str) = ("plan_cache_mode", "auto");
/// Plans through the indexes. A plan made while the tables are empty would otherwise scan them later.
const BY_INDEX: (&str, &str) = ("enable_seqscan", "off");

/// Makes the planner read each view through the index that has the order of the query, whatever it knows about the table. Each
/// query has such an index and a `LIMIT`, and any other plan would read all rows first.
const INDEX_PLANS: [(&str, &str); 3] = [BY_INDEX, ("enable_bitmapscan", "off"), ("enable_sort", "off")];

/// The session settings of queries.
const QUERY_SESSION: [(&str, &str); 2] = [schema::AS_SERVICE, ("statement_timeout", QUERY_TIMEOUT)];

/// The configured or embedded database.
#[derive(Debug)]
pub struct Database {
    primary: PrimaryConnector,
    replica: Option<PgConnectOptions>,
    /// `None` if the server was configured by URL.
    embedded: Option<EmbeddedPostgres>,
    /// Whether the partitions lie on the nodes of a Citus cluster, as the last connection found it.
    is_distributed: AtomicBool,
}

impl Database {
    /// Connects to the configured Postgres, or starts the embedded one.
    ///
    /// # Errors
    /// The settings are invalid, the server cannot be reached or is too old, or the embedded Postgres does not start.
    pub async fn open(settings: &Settings) -> Result<Self, Error> {
        match url(settings)? {
            Some(url) => Self::connect_configured(&url, settings).await,
            None => Self::with_embedded(EmbeddedPostgres::start(&embedded_settings(settings)).await?, settings),
        }
    }

    /// Opens a database that exists already, for commands that may run beside the service. An embedded Postgres that runs
    /// already is shared, and no new data folder is created.
    ///
    /// # Errors
    /// As [`Self::open`], and if there is no data folder.
    pub async fn open_existing(settings: &Settings) -> Result<Self, Error> {
        match url(settings)? {
            Some(url) => Self::connect_configured(&url, settings).await,
            None => {
                let embedded = EmbeddedPostgres::attach_or_start(&embedded_settings(settings)).await?;
                Self::with_embedded(embedded, settings)
            }
        }
    }

    /// Returns a database without connecting to it or starting it, for callers that retry until it is available.
    ///
    /// # Errors
    /// The settings are invalid.
    pub fn lazy(settings: &Settings) -> Result<Self, Error> {
        let primary = match url(settings)? {
            Some(urls) => connector(&urls)?,
            None => PrimaryConnector::new(vec![with_session_settings(embedded::connect_options(&data_dir(
                settings.data_dir.as_deref(),
            )))]),
        };
        Ok(Self::at(primary))
    }

    fn at(primary: PrimaryConnector) -> Self {
        Self { primary, replica: None, embedded: None, is_distributed: AtomicBool::new(false) }
    }

    fn with_embedded(embedded: EmbeddedPostgres, settings: &Settings) -> Result<Self, Error> {
        let primary = PrimaryConnector::new(vec![with_session_settings(embedded.connect_options())]);
        Ok(Self { replica: replica(settings)?, embedded: Some(embedded), ..Self::at(primary) })
    }

    async fn connect_configured(urls: &SecretString, settings: &Settings) -> Result<Self, Error> {
        let database = Self { replica: replica(settings)?, ..Self::at(connector(urls)?) };
        let connection = database.connect(&database.primary).await?;
        let version = connection.server_version_num().unwrap_or_default();
        if version < 150_000 {
            return Err(Error::TooOld((version / 10_000).to_string()));
        }
        close(connection).await;
        Ok(database)
    }

    /// Applies the missing migrations and grants the service role its rights. The user must own the tables.
    ///
    /// # Errors
    /// The user does not own the tables, the role cannot be created, or a migration fails.
    pub async fn migrate(&self) -> Result<(), Error> {
        self.with_connection(schema::migrate).await
    }

    /// Distributes the tables over the nodes of a Citus cluster by partition. The user must own the tables. `partitions` is the
    /// number of partitions that the log has or will have, if it is known.
    ///
    /// # Errors
    /// Citus is not installed, the log contains events, or a statement fails. No table is then distributed.
    pub async fn distribute(&self, partitions: Option<Partitions>) -> Result<(), Error> {
        self.with_connection(async |connection: &mut PgConnection| citus::distribute(connection, partitions).await)
            .await?;
        self.is_distributed.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the partitions lie on the nodes of a Citus cluster.
    pub fn is_distributed(&self) -> bool {
        self.is_distributed.load(Ordering::Relaxed)
    }

    /// Makes sure that this release can serve the schema: the owner of the tables migrates it, other users check it.
    ///
    /// # Errors
    /// The schema is outdated or the user lacks a right.
    pub async fn ensure_schema(&self) -> Result<(), Error> {
        self.with_connection(schema::ensure).await
    }

    /// Checks that this release can read the schema, and changes nothing.
    ///
    /// # Errors
    /// The schema is outdated or the user lacks a right.
    pub async fn check_schema(&self) -> Result<(), Error> {
        self.with_connection(schema::check).await
    }

    /// Examines the schema, the rights, the disk and the settings of the server, and changes nothing.
    ///
    /// # Errors
    /// The server cannot be reached, or the catalog cannot be read.
    pub async fn examine(&self) -> Result<doctor::Report, Error> {
        self.with_connection(doctor::examine).await
    }

    async fn with_connection<T, E>(&self, work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, E>) -> Result<T, Error>
    where
        Error: From<E>,
    {
        let mut connection = self.connect(&self.primary).await?;
        let value = work(&mut connection).await.map_err(|error| Error::from(error).explained())?;
        close(connection).await;
        Ok(value)
    }

    /// Connects, and notes whether the log is distributed: the settings of other connections depend on it.
    async fn connect(&self, primary: &PrimaryConnector) -> Result<PgConnection, Error> {
        let connecting = async {
            let mut connection = primary.connect().await?;
            let is_distributed = citus::is_distributed(&mut connection).await?;
            self.is_distributed.store(is_distributed, Ordering::Relaxed);
            Ok(connection)
        };
        with_timeout(Duration::from_millis(CONNECT_MS_MAX), connecting).await.map_err(Error::no_connection)
    }

    /// How connections that repeat a few statements plan them.
    fn repeated_plans(&self) -> [(&'static str, &'static str); 2] {
        [if self.is_distributed() { PLANS_AS_NEEDED } else { GENERIC_PLANS }, BY_INDEX]
    }

    /// Runs `work` on a new connection with the rights of the service role.
    ///
    /// # Errors
    /// The server cannot be reached, or `work` fails.
    pub async fn with_service_role<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    ) -> Result<T, Error> {
        let mut connection = self.connect(&self.writer()).await?;
        let value = work(&mut connection).await.map_err(|error| Error::Unusable(error).explained())?;
        close(connection).await;
        Ok(value)
    }

    /// Connections for executors. Commits are durable even if the server's default is not.
    pub fn writer(&self) -> PrimaryConnector {
        let settings = [schema::AS_SERVICE, ("synchronous_commit", "on"), ("tcp_user_timeout", TCP_USER_TIMEOUT)];
        let plans = self.repeated_plans();
        self.primary.with_options(|server| server.application_name("passbook writer").options(plans).options(settings))
    }

    /// Connections for the deletion of old idempotency keys.
    pub fn key_deletion(&self) -> PrimaryConnector {
        let settings = [schema::AS_SERVICE, ("synchronous_commit", "on"), ("statement_timeout", QUERY_TIMEOUT)];
        self.primary.with_options(|server| server.application_name("passbook key deletion").options(settings))
    }

    /// Connections for projectors. Commits are asynchronous, because a projector can repeat what a crash loses.
    pub fn projector(&self) -> PrimaryConnector {
        let settings = [schema::AS_SERVICE, ("synchronous_commit", "off"), ("tcp_user_timeout", TCP_USER_TIMEOUT)];
        let plans = self.repeated_plans();
        let projector = self
            .primary
            .with_options(|server| server.application_name("passbook projector").options(plans).options(settings));
        projector.distributed(self.is_distributed())
    }

    /// Connections for scans of the whole log, without time limits. Disabled sorts make the planner read the log in the order of
    /// its primary key, so that the first rows come at once.
    pub fn auditor(&self) -> PrimaryConnector {
        let settings = [schema::AS_SERVICE, ("enable_sort", "off"), ("work_mem", "64MB")];
        self.primary.with_options(|server| {
            server.application_name("passbook auditor").disable_statement_logging().options(settings)
        })
    }

    /// A pool for queries at the primary. It tests each connection before use, because a restart of the server breaks all of
    /// them.
    pub fn queries(&self) -> PgPool {
        self.pool(QUERY_CONNECTIONS_MAX, |server| server.application_name("passbook queries").options(INDEX_PLANS))
    }

    /// A pool for queries at the replica, `None` if none is configured. The replica may be unavailable.
    pub fn replica(&self) -> Option<PgPool> {
        let replica = self.replica.clone()?.application_name("passbook queries");
        let replica = replica.options(INDEX_PLANS).options(QUERY_SESSION);
        Some(checked_pool_options(pool_options(QUERY_CONNECTIONS_MAX), &replica, None).connect_lazy_with(replica))
    }

    /// A pool for pages of the event log. It is separate from [`Self::queries`], so that many clients that read the log do not
    /// delay queries. Its connections show only events that the standbys have.
    pub fn log_pages(&self, partitions: Partitions) -> PgPool {
        let plans = self.repeated_plans();
        let connector = self
            .primary
            .with_options(|server| server.application_name("passbook log pages").options(plans).options(QUERY_SESSION));
        connector.confirmed(0..partitions.count()).pool(pool_options(LOG_PAGE_CONNECTIONS_MAX))
    }

    /// A pool for deliveries to webhooks. Its connections show only events that the standbys have. Commits are asynchronous: what a
    /// crash loses is delivered again.
    pub fn webhooks(&self, partitions: Partitions) -> PgPool {
        let plans = self.repeated_plans();
        let connector = self.primary.with_options(|server| {
            let server = server.application_name("passbook webhooks").options(plans).options(QUERY_SESSION);
            server.options([("synchronous_commit", "off")])
        });
        connector.confirmed(0..partitions.count()).pool(pool_options(WEBHOOK_CONNECTIONS_MAX))
    }

    /// Connections for the relay.
    pub fn relay(&self) -> PrimaryConnector {
        self.follower("passbook relay")
    }

    /// Connections for the event feed.
    pub fn feed(&self) -> PrimaryConnector {
        self.follower("passbook feed")
    }

    fn follower(&self, application_name: &str) -> PrimaryConnector {
        let plans = self.repeated_plans();
        self.primary
            .with_options(|server| server.application_name(application_name).options(plans).options(QUERY_SESSION))
    }

    fn pool(&self, connections_max: u32, change: impl Fn(PgConnectOptions) -> PgConnectOptions) -> PgPool {
        let connector = self.primary.with_options(|server| change(server).options(QUERY_SESSION));
        connector.pool(pool_options(connections_max))
    }

    /// Stops the embedded Postgres. A configured server keeps running.
    pub async fn close(self) {
        if let Some(embedded) = self.embedded {
            embedded.stop().await;
        }
    }
}

/// Best effort: the connection is closed either way.
async fn close(connection: PgConnection) {
    let _ = connection.close().await;
}

fn pool_options(connections_max: u32) -> PgPoolOptions {
    PgPoolOptions::new().max_connections(connections_max).acquire_timeout(Duration::from_millis(ACQUIRE_MS_MAX))
}
