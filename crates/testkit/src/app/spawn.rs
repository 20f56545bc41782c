//! Starts apps: with flags, in one partition, behind a fault proxy, or on a database that the test has prepared.

use std::sync::Arc;

use passbook::config::Config;

use super::App;
use crate::{
    cluster::TestDatabase,
    config::{config, with_partitions},
    endpoint::Endpoint,
    fault_proxy::FaultProxy,
};

/// Starts an app with an empty log.
pub async fn spawn_app() -> App {
    spawn_app_with(&[]).await
}

/// Starts an app for a test that reads tables: all accounts are in one partition (see [`PartitionView`](crate::partition_view::PartitionView)).
pub async fn spawn_app_in_one_partition() -> App {
    spawn_app().await.in_one_partition()
}

/// Like [`spawn_app_in_one_partition`], with more flags.
pub async fn spawn_app_in_one_partition_with(flags: &[&str]) -> App {
    spawn_app_with(flags).await.in_one_partition()
}

/// Like [`spawn_app_in_one_partition_with`], with a proxy in front of the database.
pub async fn spawn_app_in_one_partition_behind_proxy(flags: &[&str]) -> (App, FaultProxy) {
    let (app, proxy) = spawn_app_behind_proxy(flags).await;
    (app.in_one_partition(), proxy)
}

/// Starts an app with flags such as `--cache-accounts=2`.
pub async fn spawn_app_with(flags: &[&str]) -> App {
    let database = Arc::new(TestDatabase::create().await);
    let config = config_of(&database, &database.url(), &with_partitions(flags));
    App::start(config, database).await
}

/// Creates a database without a log, and a configuration for it.
pub async fn empty_database(flags: &[&str]) -> (Arc<TestDatabase>, Config) {
    let database = Arc::new(TestDatabase::create().await);
    let config = config_of(&database, &database.url(), flags);
    (database, config)
}

/// Starts an app on a database that the test has created.
pub async fn start_app(config: Config, database: Arc<TestDatabase>) -> App {
    App::start(config, database).await
}

/// Starts an app with flags on a database restored from a dump.
pub async fn spawn_app_from_dump(dump: &'static str, flags: &[&str]) -> App {
    let database = Arc::new(TestDatabase::restore(dump).await);
    let config = config_of(&database, &database.url(), flags);
    App::start(config, database).await
}

/// Starts an app that reaches its database through a proxy.
pub async fn spawn_app_behind_proxy(flags: &[&str]) -> (App, FaultProxy) {
    let database = Arc::new(TestDatabase::create().await);
    let proxy = FaultProxy::start(Endpoint::of(&database.url())).await;
    let config = config_of(&database, &proxy.database_url(&database.url()), &with_partitions(flags));
    (App::start(config, database).await, proxy)
}

/// The configuration of an app. Unless the flags name one, its key file is that of the database.
fn config_of(database: &TestDatabase, url: &str, flags: &[&str]) -> Config {
    let mut config = config(url, flags);
    config.keys.key_file.get_or_insert_with(|| database.key_file().to_owned());
    config
}
