//! One Postgres for the whole test program, and a database for each test, cloned from a migrated template. The program starts the
//! Postgres itself, unless the run was given one (see [`given_server`](crate::given_server)).

use std::{
    fs, mem,
    path::{Path, PathBuf},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU32, Ordering},
        mpsc::{SyncSender, channel, sync_channel},
    },
    thread,
};

use passbook_database::Database;
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, Connection, PgConnection, query, query_as, query_scalar, raw_sql};
use tempfile::TempPath;
use tokio::{runtime::Builder, sync::Mutex};

use crate::{
    config::config,
    endpoint::url_of_database,
    folder::temporary_root,
    given_server::{GivenServer, clone_statement, connect, given_url, refuse_connections},
    own_server::OwnServer,
    repository_root,
};

static CLUSTER: LazyLock<Cluster> = LazyLock::new(Cluster::start);
/// Postgres clones a template only while no other session uses it, so clones are serialized.
static CLONING: Mutex<()> = Mutex::const_new(());
/// How many databases wait to be dropped. A test whose database finds no place waits: on a cluster each one costs a process, and
/// creating them is faster than dropping them.
const TO_DROP_MAX: usize = 8;
/// 32 bytes in base64.
const TEST_KEY: &str = "dGhlIHdyYXBwaW5nIGtleSBvZiBhIHRlc3QgcnVuISE=\n";
static CLONES: AtomicU32 = AtomicU32::new(0);

/// The Postgres of this run.
struct Cluster {
    server: Server,
    /// The name of the migrated database.
    template: String,
    /// Receives the names of databases to drop.
    to_drop: SyncSender<String>,
}

/// The server of the tests' databases.
#[derive(Clone)]
enum Server {
    /// The program has started it.
    Own(Arc<OwnServer>),
    /// The run was given it.
    Given(GivenServer),
}

/// The database of one test. It is dropped with the last app that uses it.
pub struct TestDatabase {
    name: String,
    is_distributed: bool,
    /// The key file of its instances.
    key_file: TempPath,
}

impl TestDatabase {
    /// Creates a database with the schema and no rows.
    pub async fn create() -> Self {
        let database = Self { name: new_name(), is_distributed: CLUSTER.server.is_citus(), key_file: key_file() };
        let _lock = CLONING.lock().await;
        CLUSTER.server.clone_database(&database.name, &CLUSTER.template).await;
        database
    }

    /// Creates a database from a dump.
    pub async fn restore(dump: &'static str) -> Self {
        let database = Self { name: new_name(), is_distributed: false, key_file: key_file() };
        let mut admin = connect(CLUSTER.server.url()).await.unwrap();
        execute(&mut admin, clone_statement(&database.name, "template0")).await;
        admin.close().await.unwrap();
        let mut connection = database.connect().await;
        raw_sql(dump).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        database
    }

    /// The URL of the database.
    pub fn url(&self) -> String {
        url_of_database(CLUSTER.server.url(), &self.name)
    }

    /// The key file of its instances.
    pub fn key_file(&self) -> &Path {
        &self.key_file
    }

    /// Whether the tables are distributed over the nodes of a Citus cluster. They have no triggers then.
    pub fn is_distributed(&self) -> bool {
        self.is_distributed
    }

    /// Refuses connections to the database from now on, and ends those that exist.
    pub async fn refuse_connections(&self) {
        refuse_connections(CLUSTER.server.url(), &self.name).await;
    }

    /// Connects as the owner of the database.
    pub async fn connect(&self) -> PgConnection {
        connect(&self.url()).await.unwrap()
    }

    /// Connects as the owner to the rows of one partition. On a Citus cluster it connects to their node, where temporary views show
    /// the shards by the names of their tables: Citus plans only some of the statements that damage a log.
    pub async fn connect_to_partition(&self, partition: i16) -> PgConnection {
        let mut connection = self.connect().await;
        if !self.is_distributed {
            return connection;
        }
        let shards = query_as(SHARDS_OF_PARTITION).bind(partition).fetch_one(&mut connection).await;
        let (host, port, views): (String, i32, String) = shards.unwrap();
        connection.close().await.unwrap();
        let mut node = connect(&CLUSTER.server.url_of_node(&self.name, &host, port)).await.unwrap();
        raw_sql(AssertSqlSafe(views)).execute(&mut node).await.unwrap();
        node
    }
}

/// A key file with one key. Each database has a file of its own, so that a test can change it.
fn key_file() -> TempPath {
    let file = tempfile::Builder::new().prefix("passbook-key.").tempfile_in(temporary_root()).unwrap();
    fs::write(file.path(), TEST_KEY).unwrap();
    file.into_temp_path()
}

/// The node of a partition, and the statements that create its views: one of each shard, and the statistics of the shards under the
/// names of their tables and indexes.
const SHARDS_OF_PARTITION: &str = r"
    SELECT nodename::text, nodeport, format(
        'SET citus.enable_ddl_propagation = off;
         SET citus.enable_manual_changes_to_shards = on;
         SET citus.override_table_visibility = off;
         %1$s
         CREATE TEMP VIEW pg_stat_user_tables AS
         SELECT regexp_replace(relname, ''_\d+$'', '''')::name AS relname, seq_tup_read, idx_tup_fetch, n_tup_del, last_analyze,
             last_autoanalyze
         FROM pg_catalog.pg_stat_user_tables
         WHERE relname = ANY (%2$L);
         CREATE TEMP VIEW pg_stat_user_indexes AS
         SELECT regexp_replace(relname, ''_\d+$'', '''')::name AS relname,
             regexp_replace(indexrelname, ''_\d+$'', '''')::name AS indexrelname, idx_scan, idx_tup_read
         FROM pg_catalog.pg_stat_user_indexes
         WHERE relname = ANY (%2$L)',
        string_agg(format('CREATE TEMP VIEW %s AS SELECT * FROM %s WHERE partition = %s;', logicalrelid, shard_name, $1), ''),
        array_agg(shard_name)
    )
    FROM (
        SELECT logicalrelid, shardid, shard_name(logicalrelid, shardid)
        FROM pg_dist_partition
        CROSS JOIN LATERAL (SELECT get_shard_id_for_distribution_column(logicalrelid, $1) AS shardid) AS shard
    ) AS shards
    JOIN pg_dist_placement USING (shardid)
    JOIN pg_dist_node USING (groupid)
    WHERE noderole = 'primary'
    GROUP BY nodename, nodeport";

impl Drop for TestDatabase {
    fn drop(&mut self) {
        // If the cluster's thread has ended, the next run drops the database.
        let _ = CLUSTER.to_drop.send(mem::take(&mut self.name));
    }
}

impl Cluster {
    /// Starts Postgres on a thread and a runtime that outlive those of each test.
    fn start() -> Self {
        let (started, cluster) = channel();
        let (to_drop, names) = sync_channel::<String>(TO_DROP_MAX);
        thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let server = Server::start().await;
                let mut admin = connect(server.url()).await.unwrap();
                let template = server.prepare(&mut admin).await;
                started.send(Self { server: server.clone(), template, to_drop }).unwrap();
                while let Ok(name) = names.recv() {
                    // Best effort: the next run drops databases that remain.
                    server.drop_database(&mut admin, &name).await;
                }
            });
        });
        cluster.recv().expect("Postgres starts")
    }
}

impl Server {
    async fn start() -> Self {
        match given_url() {
            None => Self::Own(Arc::new(OwnServer::start().await)),
            Some(url) => Self::Given(GivenServer::inspect(url).await.unwrap()),
        }
    }

    /// The URL of a database that no test uses.
    fn url(&self) -> &str {
        match self {
            Self::Own(server) => &server.url,
            Self::Given(server) => &server.url,
        }
    }

    /// What the names of the tests' databases begin with.
    fn prefix(&self) -> &str {
        match self {
            Self::Own(_) => "test_",
            Self::Given(server) => &server.prefix,
        }
    }

    fn is_citus(&self) -> bool {
        match self {
            Self::Own(_) => false,
            Self::Given(server) => server.is_citus(),
        }
    }

    /// Drops the databases of earlier runs, and provides the template.
    async fn prepare(&self, admin: &mut PgConnection) -> String {
        match self {
            Self::Own(server) => prepare_own(admin, &server.url).await,
            Self::Given(server) => {
                server.begin_run(admin).await;
                server.drop_leftovers().await;
                let name = format!("{}template", server.prefix);
                server.create_template(&name).await;
                name
            }
        }
    }

    async fn clone_database(&self, name: &str, template: &str) {
        match self {
            Self::Own(server) => {
                let mut admin = connect(&server.url).await.unwrap();
                execute(&mut admin, clone_statement(name, template)).await;
                admin.close().await.unwrap();
            }
            Self::Given(server) => server.clone_database(name, template).await,
        }
    }

    /// The URL of a database on a node of a given cluster.
    fn url_of_node(&self, name: &str, host: &str, port: i32) -> String {
        let url = match self {
            Self::Own(server) => server.url.clone(),
            Self::Given(server) => server.url_of_node(host, port),
        };
        url_of_database(&url, name)
    }

    async fn drop_database(&self, admin: &mut PgConnection, name: &str) {
        match self {
            Self::Own(_) => {
                let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                let _ = query(AssertSqlSafe(drop)).execute(admin).await;
            }
            Self::Given(server) => server.drop_database(name).await,
        }
    }
}

fn new_name() -> String {
    format!("{}{}", CLUSTER.server.prefix(), CLONES.fetch_add(1, Ordering::Relaxed))
}

/// Drops databases of earlier runs, and creates the template unless one with the current migrations exists.
async fn prepare_own(admin: &mut PgConnection, server_url: &str) -> String {
    let template = format!("template_{}", hash_of_migrations());
    let found: Vec<String> = query_scalar("SELECT datname::text FROM pg_database WHERE datname ~ '^(test|template)_'")
        .fetch_all(&mut *admin)
        .await
        .unwrap();
    for stale in found.iter().filter(|name| **name != template) {
        execute(admin, format!("DROP DATABASE {stale} WITH (FORCE)")).await;
    }
    if !found.contains(&template) {
        // It gets its final name only after all migrations have succeeded.
        execute(admin, "CREATE DATABASE template_unfinished".to_owned()).await;
        let url = url_of_database(server_url, "template_unfinished");
        let database = Database::open(&config(&url, &[]).database()).await.unwrap();
        database.migrate().await.unwrap();
        database.close().await;
        refuse_connections(server_url, "template_unfinished").await;
        execute(admin, format!("ALTER DATABASE template_unfinished RENAME TO {template}")).await;
    }
    template
}

fn hash_of_migrations() -> String {
    let mut files: Vec<PathBuf> =
        fs::read_dir(repository_root().join("migrations")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut digest = Sha256::new();
    for file in files {
        digest.update(file.file_name().unwrap().as_encoded_bytes());
        digest.update(fs::read(file).unwrap());
    }
    hex::encode(&digest.finalize()[..8])
}

async fn execute(connection: &mut PgConnection, sql: String) {
    query(AssertSqlSafe(sql)).execute(connection).await.unwrap();
}
