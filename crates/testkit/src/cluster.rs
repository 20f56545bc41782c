//! One Postgres cluster for the whole test run, and a database for each test, cloned from a migrated template.

use std::{
    fs, mem,
    path::{Path, PathBuf},
    process,
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
        mpsc::{Sender, channel},
    },
    thread,
};

use passbook_database::Database;
use passbook_embedded_postgres::{EmbeddedPostgres, Error, Settings};
use sha2::{Digest, Sha256};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions, query, query_scalar, raw_sql,
};
use tokio::{runtime::Builder, sync::Mutex};

use crate::{config::config, folder::temporary_root, repository_root};

static CLUSTER: LazyLock<Cluster> = LazyLock::new(Cluster::start);
/// Postgres clones a template only while no other session uses it, so clones are serialized.
static CLONING: Mutex<()> = Mutex::const_new(());
static CLONES: AtomicU32 = AtomicU32::new(0);

/// The Postgres of this run. It ends with this process, also if the process is killed.
struct Cluster {
    options: PgConnectOptions,
    socket_dir: PathBuf,
    template: String,
    /// Receives the names of databases to drop.
    to_drop: Sender<String>,
}

/// The database of one test. It is dropped with the last app that uses it.
pub struct TestDatabase {
    name: String,
}

impl TestDatabase {
    /// Creates a database with the schema and no rows.
    pub async fn create() -> Self {
        Self::clone_of(&CLUSTER.template).await
    }

    /// Creates a database from a dump.
    pub async fn restore(dump: &'static str) -> Self {
        let database = Self::clone_of("template0").await;
        let mut connection = database.connect().await;
        raw_sql(dump).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        database
    }

    async fn clone_of(template: &str) -> Self {
        let name = format!("test_{}", CLONES.fetch_add(1, Ordering::Relaxed));
        let _lock = CLONING.lock().await;
        let mut admin = CLUSTER.options.clone().database("postgres").connect().await.unwrap();
        // Copying the files takes half as long as writing every page to the WAL.
        execute(&mut admin, format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")).await;
        admin.close().await.unwrap();
        Self { name }
    }

    /// The URL of the database.
    pub fn url(&self) -> String {
        url(&CLUSTER.socket_dir, &self.name)
    }

    /// The name of the database in the cluster.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The socket on which Postgres listens.
    pub fn socket(&self) -> PathBuf {
        CLUSTER.socket_dir.join(".s.PGSQL.5432")
    }

    /// Connects as the superuser.
    pub async fn connect(&self) -> PgConnection {
        CLUSTER.options.clone().database(&self.name).connect().await.unwrap()
    }
}

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
        let (to_drop, names) = channel::<String>();
        thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let (postgres, data_dir) = start_postgres().await;
                let options = postgres.connect_options();
                let socket_dir = options.get_socket().cloned().unwrap_or_else(|| data_dir.join("run"));
                let mut admin = options.clone().database("postgres").connect().await.unwrap();
                let template = prepare(&mut admin, &socket_dir).await;
                started.send(Cluster { options, socket_dir, template, to_drop }).unwrap();
                while let Ok(name) = names.recv() {
                    // Best effort: the next run drops databases that remain.
                    let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                    let _ = query(AssertSqlSafe(drop)).execute(&mut admin).await;
                }
                postgres.stop().await;
            });
        });
        cluster.recv().expect("Postgres starts")
    }
}

/// Starts Postgres in the data folder that runs share, or in a folder of this process if another run uses the shared
/// one.
async fn start_postgres() -> (EmbeddedPostgres, PathBuf) {
    let shared = temporary_root().join(format!("passbook-tests-{}-api", nix::unistd::getuid()));
    remove_abandoned(&shared);
    match EmbeddedPostgres::start(&settings(&shared)).await {
        Err(Error::InUse(_)) => {
            let own = PathBuf::from(format!("{}-{}", shared.display(), process::id()));
            (EmbeddedPostgres::start(&settings(&own)).await.unwrap(), own)
        }
        started => (started.unwrap(), shared),
    }
}

fn settings(data_dir: &Path) -> Settings {
    let parameters = [
        ("fsync", "off"),
        ("full_page_writes", "off"),
        ("max_connections", "400"),
        ("max_wal_size", "2GB"),
        // Several test programs run at a time, each with a server of its own.
        ("shared_buffers", "256MB"),
    ];
    Settings {
        data_dir: data_dir.to_owned(),
        bin: None,
        parameters: parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
    }
}

/// Removes the folders of earlier runs whose process has ended.
fn remove_abandoned(shared: &Path) {
    let prefix = format!("{}-", shared.display());
    for entry in fs::read_dir(temporary_root()).unwrap().flatten() {
        let path = entry.path();
        let pid = path.to_str().and_then(|path| path.strip_prefix(&prefix)?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // Another run may remove it at the same time.
            let _ = fs::remove_dir_all(path);
        }
    }
}

/// Drops databases of earlier runs, and creates the template unless one with the current migrations exists.
async fn prepare(admin: &mut PgConnection, socket_dir: &Path) -> String {
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
        let database = Database::open(&config(&url(socket_dir, "template_unfinished"), &[]).database()).await.unwrap();
        database.migrate().await.unwrap();
        database.close().await;
        execute(admin, "ALTER DATABASE template_unfinished WITH ALLOW_CONNECTIONS false".to_owned()).await;
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

fn url(socket_dir: &Path, database: &str) -> String {
    format!("postgres://passbook@localhost:5432/{database}?host={}&sslmode=disable", socket_dir.display())
}

async fn execute(connection: &mut PgConnection, sql: String) {
    query(AssertSqlSafe(sql)).execute(connection).await.unwrap();
}
