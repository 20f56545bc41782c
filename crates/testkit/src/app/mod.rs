//! The app under test: a service in this process, with a port and a database for one test.

mod batching;
mod database;
mod spawn;

use std::sync::Arc;

use passbook::config::Config;
use passbook::service::Service;
use passbook_database::Database;
use passbook_event_store::{Partitions, PrimaryConnector};
use sqlx::Connection;
use uuid::Uuid;

use crate::{
    ApiClient,
    cluster::TestDatabase,
    config::partitions_of,
    eventually,
    log::{Log, read},
    partition_view::PartitionView,
    position_tracker::PositionTracker,
};

pub use spawn::{
    empty_database, spawn_app, spawn_app_behind_proxy, spawn_app_from_dump, spawn_app_in_one_partition,
    spawn_app_in_one_partition_behind_proxy, spawn_app_in_one_partition_with, spawn_app_with, start_app,
};

/// A running instance and its database, which it may share with a [peer](App::spawn_peer).
pub struct App {
    service: Option<Service>,
    config: Config,
    database: Arc<TestDatabase>,
    http: reqwest::Client,
    tracker: PositionTracker,
    view: Option<PartitionView>,
}

impl App {
    async fn start(config: Config, database: Arc<TestDatabase>) -> Self {
        let service = Some(Service::start(&config).await.unwrap());
        // Only one test is about compression.
        let http = crate::http_client().no_gzip().build().unwrap();
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

    /// The partitions whose rows a test reads: that of all its accounts, or all.
    fn partitions_under_test(&self) -> Vec<i16> {
        self.view.map_or_else(|| self.partitions().all().collect(), |view| vec![view.partition])
    }

    /// Starts another instance on the same database, without a proxy.
    pub async fn spawn_peer(&self) -> Self {
        let mut config = self.config.clone();
        config.database.database_url = Some(self.database.url().into());
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

    /// The connector that verification uses. On a Citus cluster, it first waits until the views have stopped: the nodes have no common
    /// snapshot.
    pub async fn auditor(&self) -> PrimaryConnector {
        if self.database.is_distributed() && self.service.is_some() {
            self.wait_until_projected().await;
        }
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
        eventually("live views that have read the whole log", async || {
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
        // The connections between the nodes of a cluster end after those of the service.
        let connections = match self.database.is_distributed() {
            true => {
                "SELECT count(*) FROM citus_stat_activity
                 WHERE datname = current_database() AND (usename = 'passbook_service' OR application_name LIKE 'passbook%')"
            }
            false => {
                "SELECT count(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND application_name LIKE 'passbook%'"
            }
        };
        eventually("the end of all service connections", async || {
            let connected: i64 = sqlx::query_scalar(connections).fetch_one(&mut self.database().await).await.unwrap();
            (connected == 0).then_some(())
        })
        .await;
    }
}
