//! The app under test: a service in this process, with a port and a database for one test.

use std::{
    env,
    future::Future,
    sync::{Arc, LazyLock},
    time::Duration,
};

use clap::{Args, Command, FromArgMatches, builder::Resettable};
use passbook::config::Config;
use passbook::service::Service;
use passbook_database::Database;
use passbook_event_store::{Partitions, PrimaryConnector};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

use super::{
    ApiClient,
    cluster::TestDatabase,
    log::{Log, read},
    partition_view::PartitionView,
    position_tracker::PositionTracker,
    proxy::Proxy,
};

/// The time for commands to reach the queue before they are executed as one batch.
const BATCH_FILL_MS: u64 = 250;

/// A running instance and its database, which it may share with a [peer](App::spawn_peer).
pub struct App {
    service: Option<Service>,
    config: Config,
    database: Arc<TestDatabase>,
    http: reqwest::Client,
    tracker: PositionTracker,
    view: Option<PartitionView>,
}

/// Starts an app with an empty log.
pub async fn spawn_app() -> App {
    spawn_app_with(&[]).await
}

/// Starts an app for a test that reads tables: all accounts are in one partition (see [`PartitionView`]).
pub async fn spawn_app_in_one_partition() -> App {
    spawn_app().await.in_one_partition()
}

/// Like [`spawn_app_in_one_partition`], with more flags.
pub async fn spawn_app_in_one_partition_with(flags: &[&str]) -> App {
    spawn_app_with(flags).await.in_one_partition()
}

/// Like [`spawn_app_in_one_partition_with`], with a proxy in front of the database.
pub async fn spawn_app_in_one_partition_behind_proxy(flags: &[&str]) -> (App, Proxy) {
    let (app, proxy) = spawn_app_behind_proxy(flags).await;
    (app.in_one_partition(), proxy)
}

/// Starts an app with flags such as `--cache-accounts=2`.
pub async fn spawn_app_with(flags: &[&str]) -> App {
    let database = Arc::new(TestDatabase::create().await);
    let config = config(&database.url(), &with_partitions(flags));
    App::start(config, database).await
}

fn partitions_of(config: &Config) -> Partitions {
    config.partitions.map_or(Partitions::ONE, |count| Partitions::new(i16::from(count)).unwrap())
}

/// Gives every executor a command, which blocks if the log heads are locked.
async fn block_executors(client: ApiClient, partitions: Partitions) {
    if !partitions.is_partitioned() {
        client.open_with_balance(0).await;
        return;
    }
    let new_id_in = |partition| partitions.new_id_in(partition);
    let openings = partitions.all().map(|partition| {
        let body = serde_json::json!({"currency": "EUR", "account_id": new_id_in(partition)});
        let client = client.clone();
        async move { client.open(body).await.expect(201) }
    });
    // The accounts do not exist. A refusal also waits for the lock.
    let transfer = client.transfer(new_id_in(0), new_id_in(1), 1);
    let (_, refused) = tokio::join!(futures_util::future::join_all(openings), transfer);
    refused.expect_problem(404, "account_not_found");
}

/// Adds the run's number of partitions unless the test sets one.
fn with_partitions<'a>(flags: &[&'a str]) -> Vec<&'a str> {
    static FLAG: LazyLock<String> = LazyLock::new(|| format!("--partitions={}", partitions().count()));
    let added = (!flags.iter().any(|flag| flag.starts_with("--partitions="))).then_some(FLAG.as_str());
    flags.iter().copied().chain(added).collect()
}

/// Creates a database without a log, and a configuration for it.
pub async fn empty_database(flags: &[&str]) -> (Arc<TestDatabase>, Config) {
    let database = Arc::new(TestDatabase::create().await);
    let config = config(&database.url(), flags);
    (database, config)
}

/// Starts an app on a database that the test has created.
pub async fn start_app(config: Config, database: Arc<TestDatabase>) -> App {
    App::start(config, database).await
}

/// Starts an app on a database restored from a dump.
pub async fn spawn_app_from_dump(dump: &'static str) -> App {
    let database = Arc::new(TestDatabase::restore(dump).await);
    let config = config(&database.url(), &[]);
    App::start(config, database).await
}

/// Starts an app that reaches its database through a proxy.
pub async fn spawn_app_behind_proxy(flags: &[&str]) -> (App, Proxy) {
    let database = Arc::new(TestDatabase::create().await);
    let proxy = Proxy::start(database.socket()).await;
    let config = config(&database.url_through(proxy.address()), &with_partitions(flags));
    (App::start(config, database).await, proxy)
}

/// The number of partitions of new logs in this run: `PASSBOOK_TEST_PARTITIONS`, by default one.
pub fn partitions() -> Partitions {
    let count = env::var("PASSBOOK_TEST_PARTITIONS").map_or(1, |count| count.parse().unwrap());
    Partitions::new(count).unwrap()
}

/// Parses the flags like the command line does, but ignores environment variables.
pub fn config(database_url: &str, flags: &[&str]) -> Config {
    let command = Config::augment_args(Command::new("passbook").no_binary_name(true));
    let command = command.mut_args(|argument| argument.env(Resettable::Reset));
    let fixed = ["--listen", "127.0.0.1:0", "--database-url", database_url];
    let matches = command.try_get_matches_from(fixed.iter().chain(flags)).unwrap();
    Config::from_arg_matches(&matches).unwrap()
}

impl App {
    async fn start(config: Config, database: Arc<TestDatabase>) -> Self {
        let service = Some(Service::start(&config).await.unwrap());
        // The HTTP client uses the crypto provider of the process, which only the binary installs.
        let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        // Only one test is about compression.
        let http = reqwest::Client::builder().no_gzip().build().unwrap();
        let tracker = PositionTracker::new(partitions_of(&config));
        Self { service, config, database, http, tracker, view: None }
    }

    fn in_one_partition(self) -> Self {
        Self { view: PartitionView::of_last(self.partitions()), ..self }
    }

    /// The partition of all accounts in a test that reads tables.
    pub fn partition_under_test(&self) -> i16 {
        self.view.map_or(0, |view| view.partition)
    }

    /// Starts another instance on the same database, without a proxy.
    pub async fn spawn_peer(&self) -> Self {
        let config = Config { database_url: Some(self.database.url().into()), ..self.config.clone() };
        let peer = Self::start(config, Arc::clone(&self.database)).await;
        Self { tracker: self.tracker.clone(), view: self.view, ..peer }
    }

    /// Shuts the service down and starts it again, with empty caches.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.start_again().await;
    }

    /// Starts the service after [`stop`](Self::stop).
    pub async fn start_again(&mut self) {
        self.service = Some(Service::start(&self.config).await.unwrap());
    }

    /// Shuts the service down.
    pub async fn stop(&mut self) {
        self.service.take().expect("the service is running").stop().await.unwrap();
    }

    /// The base URL of the service.
    pub fn url(&self) -> String {
        format!("http://{}", self.service.as_ref().expect("the service is running").address())
    }

    /// A client without a token. It may do everything if access control is off.
    pub fn client(&self) -> ApiClient {
        let client = ApiClient::new(self.http.clone(), self.url());
        match self.view {
            Some(view) => client.viewing(view),
            None => client.tracking(self.tracker.clone()),
        }
    }

    /// The configuration with which the service was started.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Connects to the database as the superuser. In a test of one partition the tables of positions show only that
    /// one.
    pub async fn database(&self) -> PgConnection {
        let mut connection = self.database.connect().await;
        if let Some(view) = self.view {
            let sql = format!(
                "CREATE TEMP VIEW log_head AS SELECT * FROM public.log_head WHERE partition = {0};
                 CREATE TEMP VIEW projection AS SELECT * FROM public.projection WHERE partition = {0}",
                view.partition
            );
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        }
        connection
    }

    /// Executes SQL that damages the database.
    pub async fn sabotage(&self, sql: &'static str) {
        self.execute(sql).await;
    }

    /// Executes SQL. Partition 0 in it means the partition under test; `TRUNCATE` and restores apply to all partitions.
    async fn execute(&self, sql: &str) {
        let is_for_all_partitions = sql.contains("TRUNCATE ") || sql.contains("saved.");
        let mut connection = if is_for_all_partitions { self.database.connect().await } else { self.database().await };
        let partition = self.partition_under_test();
        let sql = sql
            .replace("SELECT 0,", &format!("SELECT {partition},"))
            .replace("VALUES (0,", &format!("VALUES ({partition},"));
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    /// Executes SQL with the trigger disabled that makes events immutable.
    pub async fn tamper(&self, sql: &str) {
        let sql = format!(
            "ALTER TABLE event DISABLE TRIGGER event_immutable; {sql}; ALTER TABLE event ENABLE ALWAYS TRIGGER event_immutable"
        );
        self.execute(&sql).await;
    }

    /// Changes a setting of the database and ends all service connections, so that new ones use it.
    pub async fn alter_database(&self, setting: &str) {
        let mut connection = self.database().await;
        let sql = format!(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I {setting}', current_database()); END $$;
             SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name LIKE 'passbook%'"
        );
        sqlx::raw_sql("SET default_transaction_read_only = off").execute(&mut connection).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    /// The connector that verification uses.
    pub async fn auditor(&self) -> PrimaryConnector {
        Database::open(&self.config.database()).await.unwrap().auditor()
    }

    /// Reads the recorded log. If two reads are equal, nothing was recorded between them.
    pub async fn log(&self) -> Log {
        let mut connection = self.database().await;
        let log = read(&mut connection).await;
        connection.close().await.unwrap();
        log
    }

    /// The number of partitions of the log.
    pub fn partitions(&self) -> Partitions {
        partitions_of(&self.config)
    }

    /// A new account id in the partition under test.
    pub fn new_account_id(&self) -> Uuid {
        self.partitions().new_id_in(self.partition_under_test())
    }

    /// A position or cursor of the partition under test in the service's form.
    pub fn qualify(&self, text: &str) -> String {
        self.view.map_or_else(|| text.to_owned(), |view| view.qualify(text))
    }

    /// The latest position that the responses to all commands of this test reported.
    pub fn latest_position(&self) -> String {
        self.tracker.to_string()
    }

    /// A position in the account's partition, in the service's form.
    pub fn partition_position(&self, account: Uuid, position: i64) -> String {
        self.partitions().position_in(self.partitions().partition_of(account), position).to_string()
    }

    /// Waits until every view is live and has read the whole log.
    pub async fn wait_until_projected(&self) {
        super::eventually("live views that have read the whole log", async || {
            let behind: i64 = sqlx::query_scalar(
                "SELECT count(DISTINCT (partition, name)) - count(*) FILTER (WHERE state = 'live' AND projection.position = log_head.position)
                 FROM projection JOIN log_head USING (partition)",
            )
            .fetch_one(&mut self.database().await)
            .await
            .unwrap();
            (behind == 0).then_some(())
        })
        .await;
    }

    /// Waits until no instance is connected. Postgres has then added the connections' counts to its statistics.
    pub async fn wait_until_disconnected(&self) {
        super::eventually("the end of all service connections", async || {
            let connected: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND application_name LIKE 'passbook%'",
            )
            .fetch_one(&mut self.database().await)
            .await
            .unwrap();
            (connected == 0).then_some(())
        })
        .await;
    }

    /// Locks the log heads, which blocks every append until the returned connection is closed.
    pub async fn lock_log_heads(&self) -> PgConnection {
        let mut connection = self.database().await;
        sqlx::raw_sql("BEGIN; SELECT FROM log_head ORDER BY partition FOR UPDATE")
            .execute(&mut connection)
            .await
            .unwrap();
        connection
    }

    /// Blocks the executors with an opening until `commands` are in the queue, so that they are executed as one batch.
    pub async fn run_as_one_batch<T>(&self, commands: impl Future<Output = T>) -> T {
        self.run_as_one_batch_after(self.client(), commands).await
    }

    /// Like [`run_as_one_batch`](Self::run_as_one_batch); `client` sends the opening that blocks.
    pub async fn run_as_one_batch_after<T>(&self, client: ApiClient, commands: impl Future<Output = T>) -> T {
        let log_head_lock = self.lock_log_heads().await;
        let blocking = tokio::spawn(block_executors(client, self.view.map_or(self.partitions(), |_| Partitions::ONE)));
        self.wait_for_blocked_writer().await;
        let release = async {
            tokio::time::sleep(Duration::from_millis(BATCH_FILL_MS)).await;
            log_head_lock.close().await.unwrap();
        };
        let ((), responses) = tokio::join!(release, commands);
        blocking.await.unwrap();
        responses
    }

    /// Waits until an executor's connection waits for a lock.
    pub async fn wait_for_blocked_writer(&self) {
        super::eventually("a writer that waits for a lock", async || {
            let mut connection = self.database().await;
            let waiting: bool = sqlx::query_scalar(
                "SELECT EXISTS (
                     SELECT FROM pg_stat_activity
                     WHERE datname = current_database() AND application_name = 'passbook writer' AND wait_event_type = 'Lock'
                 )",
            )
            .fetch_one(&mut connection)
            .await
            .unwrap();
            connection.close().await.unwrap();
            waiting.then_some(())
        })
        .await;
    }
}
