//! The server that `PASSBOOK_TEST_DATABASE_URL` names: a run then creates its databases there, on Postgres or on a Citus
//! cluster. The user of the URL needs the attributes CREATEDB and CREATEROLE, and on Citus it is a superuser of every node.

use std::env;

use futures_util::future::join_all;
use passbook_database::Database;
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions, query, query_as, query_scalar,
};

use crate::{
    config::{config, partitions},
    endpoint::url_of_database,
    eventually,
};

/// The environment variable with the URL of an existing database of the server.
pub const VARIABLE: &str = "PASSBOOK_TEST_DATABASE_URL";
/// The advisory lock of a run, in the database of the URL.
const LOCK: i64 = 0x7061_7373_626f_6f6b;

/// The kind of server, with its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Postgres without Citus in the database of the URL.
    Postgres {
        /// Such as `18.6`.
        version: String,
    },
    /// The coordinator of a Citus cluster.
    Citus {
        /// The version of the extension, such as `13.2-1`.
        version: String,
        /// The version of its Postgres.
        postgres: String,
        /// The nodes that `pg_dist_node` lists.
        nodes: Vec<Node>,
    },
}

/// A node of a Citus cluster, as the other nodes reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    is_coordinator: bool,
    has_shards: bool,
    host: String,
    port: i32,
}

/// A server that was given.
#[derive(Clone, Debug)]
pub struct GivenServer {
    /// The URL of its existing database.
    pub url: String,
    /// What it is.
    pub engine: Engine,
    /// Whether the user of the URL is a superuser.
    pub is_superuser: bool,
    /// The names of the databases of its runs begin with this, and those of no other database. It contains the object id of the
    /// database with the lock, so that runs with another lock use other names.
    pub prefix: String,
}

/// The URL of the given server, if there is one.
pub fn given_url() -> Option<String> {
    env::var(VARIABLE).ok().filter(|url| !url.is_empty())
}

impl GivenServer {
    /// Connects to the server and finds out what it is.
    ///
    /// # Errors
    /// The server cannot be reached, or the user may not create databases.
    pub async fn inspect(url: String) -> Result<Self, String> {
        let (server, is_able) = Self::read(url).await.map_err(|error| format!("{VARIABLE}: {error}"))?;
        match is_able {
            true => Ok(server),
            false => Err(format!("the user of {VARIABLE} requires the attributes CREATEDB and CREATEROLE")),
        }
    }

    /// Also returns whether the user may create databases and roles.
    async fn read(url: String) -> sqlx::Result<(Self, bool)> {
        let mut connection = connect(&url).await?;
        let engine = read_engine(&mut connection).await?;
        let rest = query_as(
            "SELECT format('passbook_test_%s_', pg_database.oid), rolsuper, rolsuper OR (rolcreatedb AND rolcreaterole)
             FROM pg_database, pg_roles WHERE datname = current_database() AND rolname = current_user",
        );
        let (prefix, is_superuser, is_able) = rest.fetch_one(&mut connection).await?;
        Ok((Self { url, engine, is_superuser, prefix }, is_able))
    }

    /// Waits until no other run uses the server. The run ends with the connection.
    pub async fn begin_run(&self, connection: &mut PgConnection) {
        let connection = tokio::sync::Mutex::new(connection);
        eventually("the end of another test run on this server", async || {
            let lock = query_scalar("SELECT pg_try_advisory_lock($1)").bind(LOCK);
            let is_locked: bool = lock.fetch_one(&mut **connection.lock().await).await.unwrap();
            is_locked.then_some(())
        })
        .await;
    }

    /// Drops the databases that test runs have left. Only a run that has [begun](Self::begin_run) may call it.
    pub async fn drop_leftovers(&self) {
        for url in self.node_urls() {
            let mut connection = connect(&url).await.unwrap();
            let names =
                query_scalar("SELECT datname::text FROM pg_database WHERE starts_with(datname, $1)").bind(&self.prefix);
            let names: Vec<String> = names.fetch_all(&mut connection).await.unwrap();
            for name in names {
                drop_database(&mut connection, &name).await.unwrap();
            }
        }
    }

    /// Creates a migrated database that accepts no connections. Its tables are distributed if the server is a Citus cluster.
    pub async fn create_template(&self, name: &str) {
        self.create_database(name).await;
        let database = Database::open(&config(&url_of_database(&self.url, name), &[]).database()).await.unwrap();
        database.migrate().await.unwrap();
        if self.is_citus() {
            // Few shards: many statements of Citus take time for each of them.
            database.distribute(Some(partitions())).await.unwrap();
        }
        database.close().await;
        for url in self.node_urls() {
            // Citus keeps connections between its nodes open.
            refuse_connections(&url, name).await;
        }
    }

    /// Clones a template on every node. Citus refers to tables by the names of nodes and by object ids, which stay the same.
    /// Distributing the tables of each database anew would take 15 s.
    pub async fn clone_database(&self, name: &str, template: &str) {
        // The coordinator is the last one: with its database, Citus connects to those of the other nodes.
        for url in self.node_urls().iter().rev() {
            execute(url, &clone_statement(name, template)).await;
        }
    }

    async fn create_database(&self, name: &str) {
        let Engine::Citus { nodes, .. } = &self.engine else {
            execute(&self.url, &format!("CREATE DATABASE {name}")).await;
            return;
        };
        // The coordinator is the last one: it adds the other nodes, which need the extension then.
        for url in self.node_urls().iter().rev() {
            execute(url, &format!("CREATE DATABASE {name}")).await;
            execute(&url_of_database(url, name), "CREATE EXTENSION citus").await;
        }
        let mut coordinator = connect(&url_of_database(&self.url, name)).await.unwrap();
        for Node { is_coordinator, has_shards, host, port } in nodes {
            let add = match is_coordinator {
                true => "SELECT FROM citus_set_coordinator_host($1, $2)",
                false => "SELECT FROM citus_add_node($1, $2)",
            };
            query(add).bind(host).bind(port).execute(&mut coordinator).await.unwrap();
            let set = query("SELECT FROM citus_set_node_property($1, $2, 'shouldhaveshards', $3)");
            set.bind(host).bind(port).bind(has_shards).execute(&mut coordinator).await.unwrap();
        }
        coordinator.close().await.unwrap();
    }

    /// Drops a database on every node. The next run drops it if this fails.
    pub async fn drop_database(&self, name: &str) {
        let dropping = self.node_urls().into_iter().map(|url| async move {
            if let Ok(mut connection) = connect(&url).await {
                let _ = drop_database(&mut connection, name).await;
                let _ = connection.close().await;
            }
        });
        join_all(dropping).await;
    }

    /// Whether tables are distributed over nodes.
    pub fn is_citus(&self) -> bool {
        match self.engine {
            Engine::Postgres { .. } => false,
            Engine::Citus { .. } => true,
        }
    }

    /// The number of connections that the server allows.
    pub async fn connections_max(&self) -> u32 {
        let mut connection = connect(&self.url).await.unwrap();
        let max = query_scalar("SELECT current_setting('max_connections')").fetch_one(&mut connection).await;
        max.map(|max: String| max.parse().unwrap()).unwrap()
    }

    /// The URL of the existing database on each node, that of the coordinator first. A worker is reached at the address that the
    /// cluster uses.
    fn node_urls(&self) -> Vec<String> {
        let mut urls = vec![self.url.clone()];
        if let Engine::Citus { nodes, .. } = &self.engine {
            urls.extend(nodes.iter().filter(|node| !node.is_coordinator).map(|node| self.url_at(node)));
        }
        urls
    }

    /// The URL of the existing database on the node that the cluster reaches at this address.
    pub fn url_of_node(&self, host: &str, port: i32) -> String {
        match &self.engine {
            Engine::Citus { nodes, .. } => {
                let node = nodes.iter().find(|node| (node.host.as_str(), node.port) == (host, port));
                self.url_at(node.expect("a node of the cluster"))
            }
            Engine::Postgres { .. } => self.url.clone(),
        }
    }

    fn url_at(&self, node: &Node) -> String {
        let mut url = reqwest::Url::parse(&self.url).unwrap();
        let kept: Vec<(String, String)> = url
            .query_pairs()
            .filter(|(name, _)| !["host", "hostaddr", "port"].contains(&&**name))
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        url.set_host(Some(&node.host)).unwrap();
        url.set_port(u16::try_from(node.port).ok()).unwrap();
        url.query_pairs_mut().clear().extend_pairs(kept);
        url.into()
    }
}

/// Makes a database refuse connections, and ends those that exist. The URL is that of another database.
pub async fn refuse_connections(url: &str, name: &str) {
    execute(url, &format!("ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")).await;
    let end = query("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1").bind(name);
    end.execute(&mut connect(url).await.unwrap()).await.unwrap();
}

/// Copying the files takes half as long as writing every page to the WAL.
pub fn clone_statement(name: &str, template: &str) -> String {
    format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
}

/// Connects to the database of this URL.
pub async fn connect(url: &str) -> sqlx::Result<PgConnection> {
    url.parse::<PgConnectOptions>()?.connect().await
}

async fn read_engine(connection: &mut PgConnection) -> sqlx::Result<Engine> {
    let postgres: String = query_scalar("SELECT split_part(current_setting('server_version'), ' ', 1)")
        .fetch_one(&mut *connection)
        .await?;
    let citus: Option<String> = query_scalar("SELECT extversion FROM pg_extension WHERE extname = 'citus'")
        .fetch_optional(&mut *connection)
        .await?;
    let Some(version) = citus else { return Ok(Engine::Postgres { version: postgres }) };
    let nodes: Vec<(bool, bool, String, i32)> = query_as(
        "SELECT groupid = 0, shouldhaveshards, nodename::text, nodeport FROM pg_dist_node
         WHERE noderole = 'primary' AND isactive ORDER BY groupid",
    )
    .fetch_all(connection)
    .await?;
    let node = |(is_coordinator, has_shards, host, port)| Node { is_coordinator, has_shards, host, port };
    Ok(Engine::Citus { version, postgres, nodes: nodes.into_iter().map(node).collect() })
}

async fn drop_database(connection: &mut PgConnection, name: &str) -> sqlx::Result<()> {
    query(AssertSqlSafe(format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))).execute(connection).await.map(drop)
}

async fn execute(url: &str, sql: &str) {
    let mut connection = connect(url).await.unwrap();
    query(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}
