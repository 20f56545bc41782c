//! A server of the test's own, in this process, on a port and a database of its own.

use std::{
    env,
    future::Future,
    sync::{Arc, LazyLock},
    time::Duration,
};

use clap::{Args, Command, FromArgMatches, builder::Resettable};
use passbook::{
    config::Config,
    database::Database,
    event_store::{Partitions, Primary},
    service::Service,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

use super::{
    Teller,
    cluster::OwnDatabase,
    heard::Heard,
    home::Home,
    log::{Log, read},
    proxy::Proxy,
};

/// For so long commands gather before they are carried out as one batch.
const GATHERING_MS: u64 = 250;

/// A running server and its database, which it may share with [`another`](App::another).
pub struct App {
    service: Option<Service>,
    config: Config,
    database: Arc<OwnDatabase>,
    client: reqwest::Client,
    heard: Heard,
    home: Option<Home>,
}

/// A server with an empty log.
pub async fn spawn_app() -> App {
    spawn_app_with(&[]).await
}

/// The same for a test that looks into the tables: all its accounts are in one partition.
pub async fn spawn_app_at_home() -> App {
    spawn_app().await.at_home()
}

/// The same with settings of its own.
pub async fn spawn_app_at_home_with(flags: &[&str]) -> App {
    spawn_app_with(flags).await.at_home()
}

/// The same behind a proxy.
pub async fn spawn_app_at_home_behind_proxy(flags: &[&str]) -> (App, Proxy) {
    let (app, proxy) = spawn_app_behind_proxy(flags).await;
    (app.at_home(), proxy)
}

/// The same with settings of its own: `--cache-accounts=2`.
pub async fn spawn_app_with(flags: &[&str]) -> App {
    let database = Arc::new(OwnDatabase::create().await);
    let config = config(&database.url(), &divided(flags));
    App::start(config, database).await
}

fn partitions_of(config: &Config) -> Partitions {
    config.partitions.map_or(Partitions::ONE, |count| Partitions::new(i16::from(count)).unwrap())
}

/// Keeps every executor busy with something that waits at the turnstile.
async fn occupy(teller: Teller, partitions: Partitions) {
    if !partitions.are_several() {
        teller.account_with(0).await;
        return;
    }
    let of = |partition| partitions.new_id_in(partition);
    let openings = partitions.all().map(|partition| {
        let body = serde_json::json!({"currency": "EUR", "account_id": of(partition)});
        let teller = teller.clone();
        async move { teller.open(body).await.expect(201) }
    });
    // Nobody's accounts: a refusal waits like everybody else.
    let across = teller.transfer(of(0), of(1), 1);
    let (_, refused) = tokio::join!(futures_util::future::join_all(openings), across);
    refused.refused(404, "account_not_found");
}

/// A new log is divided as the run wants it, unless the test says how.
fn divided<'a>(flags: &[&'a str]) -> Vec<&'a str> {
    static FLAG: LazyLock<String> = LazyLock::new(|| format!("--partitions={}", partitions().count()));
    let ours = (!flags.iter().any(|flag| flag.starts_with("--partitions="))).then_some(FLAG.as_str());
    flags.iter().copied().chain(ours).collect()
}

/// A database without a log, and the settings of a server on it.
pub async fn no_log(flags: &[&str]) -> (Arc<OwnDatabase>, Config) {
    let database = Arc::new(OwnDatabase::create().await);
    let config = config(&database.url(), flags);
    (database, config)
}

/// A server on a database of the test's.
pub async fn serve(config: Config, database: Arc<OwnDatabase>) -> App {
    App::start(config, database).await
}

/// A server on a database that was dumped.
pub async fn spawn_app_on(dump: &'static str) -> App {
    let database = Arc::new(OwnDatabase::restore(dump).await);
    let config = config(&database.url(), &[]);
    App::start(config, database).await
}

/// A server that reaches its database through a proxy.
pub async fn spawn_app_behind_proxy(flags: &[&str]) -> (App, Proxy) {
    let database = Arc::new(OwnDatabase::create().await);
    let proxy = Proxy::before(database.socket()).await;
    let config = config(&database.url_through(proxy.address()), &divided(flags));
    (App::start(config, database).await, proxy)
}

/// Into how many partitions the logs of this run are divided: `PASSBOOK_TEST_PARTITIONS`, or one.
pub fn partitions() -> Partitions {
    let count = env::var("PASSBOOK_TEST_PARTITIONS").map_or(1, |count| count.parse().unwrap());
    Partitions::new(count).unwrap()
}

/// The settings as the command line makes them, whatever stands in the environment of whoever runs the tests.
pub fn config(database_url: &str, flags: &[&str]) -> Config {
    let command = Config::augment_args(Command::new("passbook").no_binary_name(true));
    let command = command.mut_args(|argument| argument.env(Resettable::Reset));
    let ours = ["--listen", "127.0.0.1:0", "--database-url", database_url];
    let matches = command.try_get_matches_from(ours.iter().chain(flags)).unwrap();
    Config::from_arg_matches(&matches).unwrap()
}

impl App {
    async fn start(config: Config, database: Arc<OwnDatabase>) -> Self {
        let service = Some(Service::start(&config).await.unwrap());
        // Compressed answers are the subject of one test alone.
        let client = reqwest::Client::builder().no_gzip().build().unwrap();
        let heard = Heard::nothing_yet(partitions_of(&config));
        Self { service, config, database, client, heard, home: None }
    }

    fn at_home(self) -> Self {
        Self { home: Home::of(self.partitions()), ..self }
    }

    /// The partition that a test is about which looks into the tables.
    pub fn home(&self) -> i16 {
        self.home.map_or(0, |home| home.partition)
    }

    /// A second server on the same database, as another process would be. No proxy stands between the two.
    pub async fn another(&self) -> Self {
        let config = Config { database_url: Some(self.database.url().into()), ..self.config.clone() };
        let another = Self::start(config, Arc::clone(&self.database)).await;
        Self { heard: self.heard.clone(), home: self.home, ..another }
    }

    /// Ends the server in order and starts it again: what it held in memory is gone.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.restart_stopped().await;
    }

    /// Starts a server that was ended again.
    pub async fn restart_stopped(&mut self) {
        self.service = Some(Service::start(&self.config).await.unwrap());
    }

    /// Ends the server in order.
    pub async fn stop(&mut self) {
        self.take().stop().await;
    }

    /// The server itself, to be ended by the test.
    pub fn take(&mut self) -> Service {
        self.service.take().expect("the server runs")
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}", self.service.as_ref().expect("the server runs").address())
    }

    /// A client who may do everything.
    pub fn teller(&self) -> Teller {
        let teller = Teller::new(self.client.clone(), self.url());
        match self.home {
            Some(home) => teller.at_home(home),
            None => teller.hearing(self.heard.clone()),
        }
    }

    /// The settings that the server was started with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// A connection to the database, as the superuser.
    pub async fn database(&self) -> PgConnection {
        let mut connection = self.database.connect().await;
        if let Some(home) = self.home {
            // Other partitions are not there for this test. Their heads are as they were made.
            let sql = format!(
                "CREATE TEMP VIEW log_head AS SELECT * FROM public.log_head WHERE partition = {0};
                 CREATE TEMP VIEW projection AS SELECT * FROM public.projection WHERE partition = {0}",
                home.partition
            );
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        }
        connection
    }

    /// Runs SQL that no server would: sabotage.
    pub async fn sabotage(&self, sql: &'static str) {
        self.execute(sql).await;
    }

    /// What is said of partition 0 is meant for the one that the test is about; what moves whole tables, for all of them.
    async fn execute(&self, sql: &str) {
        let is_of_all = sql.contains("TRUNCATE ") || sql.contains("saved.");
        let mut connection = if is_of_all { self.database.connect().await } else { self.database().await };
        let home = self.home();
        let sql =
            sql.replace("SELECT 0,", &format!("SELECT {home},")).replace("VALUES (0,", &format!("VALUES ({home},"));
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    /// Changes what only a superuser can, the events among it.
    pub async fn tamper(&self, sql: &str) {
        let sql = format!(
            "ALTER TABLE event DISABLE TRIGGER event_immutable; {sql}; ALTER TABLE event ENABLE ALWAYS TRIGGER event_immutable"
        );
        self.execute(&sql).await;
    }

    /// Changes a setting of the database, and lets every server connect anew to notice.
    pub async fn alter(&self, setting: &str) {
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

    /// How whoever checks the books connects.
    pub async fn auditor(&self) -> Primary {
        Database::open(&self.config).await.unwrap().auditor()
    }

    /// Everything that is recorded. Equal before and after means that nothing was.
    pub async fn log(&self) -> Log {
        let mut connection = self.database().await;
        let log = read(&mut connection).await;
        connection.close().await.unwrap();
        log
    }

    /// How many partitions its log has.
    pub fn partitions(&self) -> Partitions {
        partitions_of(&self.config)
    }

    /// The id of an account that would be where this test looks.
    pub fn new_id(&self) -> Uuid {
        self.partitions().new_id_in(self.home())
    }

    /// A position or a cursor of the partition that the test is about, as a server takes it.
    pub fn place(&self, text: &str) -> String {
        self.home.map_or_else(|| text.to_owned(), |home| home.place(text))
    }

    /// How far the log is with every command that was answered, as it is told.
    pub fn so_far(&self) -> String {
        self.heard.to_string()
    }

    /// The position of a partition that holds this account, as it is told.
    pub fn position(&self, account: Uuid, position: i64) -> String {
        self.partitions().position(self.partitions().of(account), position).to_string()
    }

    /// Waits until every view is live and has read the whole log, so that a test can change its rows.
    pub async fn is_projected(&self) {
        super::eventually("live views", async || {
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

    /// Waits until no server is connected any more, and every count of theirs has been added up.
    pub async fn is_disconnected(&self) {
        super::eventually("the end of all connections", async || {
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

    /// Keeps every command waiting at the turnstile until the returned connection is closed.
    pub async fn hold_turnstile(&self) -> PgConnection {
        let mut connection = self.database().await;
        sqlx::raw_sql("BEGIN; SELECT FROM log_head ORDER BY partition FOR UPDATE")
            .execute(&mut connection)
            .await
            .unwrap();
        connection
    }

    /// Lets what `commands` send gather in the queue, behind an opening that waits at the turnstile, so that it is
    /// carried out as one batch.
    pub async fn as_one_batch<T>(&self, commands: impl Future<Output = T>) -> T {
        self.as_one_batch_behind(self.teller(), commands).await
    }

    /// The same where not everybody may open an account.
    pub async fn as_one_batch_behind<T>(&self, teller: Teller, commands: impl Future<Output = T>) -> T {
        let turnstile = self.hold_turnstile().await;
        let opening = tokio::spawn(occupy(teller, self.home.map_or(self.partitions(), |_| Partitions::ONE)));
        self.somebody_waits().await;
        let release = async {
            tokio::time::sleep(Duration::from_millis(GATHERING_MS)).await;
            turnstile.close().await.unwrap();
        };
        let ((), answers) = tokio::join!(release, commands);
        opening.await.unwrap();
        answers
    }

    /// Waits until a server stands before the turnstile that is held.
    pub async fn somebody_waits(&self) {
        super::eventually("a waiting writer", async || {
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
