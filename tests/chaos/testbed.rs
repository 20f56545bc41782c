//! The system under test: instances of the service, their Postgres, and the proxies, the clock, the disk and the load
//! balancer that faults act on.

use std::{
    fs,
    path::PathBuf,
    process,
    sync::{Arc, Mutex},
};

use passbook_embedded_postgres::{self as embedded, EmbeddedPostgres};
use passbook_testkit::{
    cluster::TestDatabase,
    endpoint::Endpoint,
    eventually,
    fault_proxy::FaultProxy,
    folder::Folder,
    given_server::given_url,
    own_server::chosen_programs,
    process::{Exited, Passbook},
};
use sqlx::{PgConnection, query_scalar};
use tokio::{sync::Mutex as AsyncMutex, task::spawn_blocking};

use crate::{
    balancer::{Balancer, free_address},
    clock::Clock,
    disk::{Disk, remove_abandoned},
    instance::Instance,
    postgres::Postgres,
    settings::Settings,
};

/// Longer than HAProxy takes to notice that an instance shuts down.
const SHUTDOWN_DELAY_MS: &str = "8000";

/// Fields are dropped in this order: processes that use a folder must exit before it is removed.
pub struct Testbed {
    /// The permanent instances. Each one is started again after a fault.
    pub instances: Vec<Arc<Instance>>,
    /// An instance that runs only during the fault `TransientInstance`.
    pub transient: Option<Arc<Instance>>,
    /// The proxy between each instance and Postgres, in the order of the instances.
    pub proxies: Vec<FaultProxy>,
    /// Allows one message fault at a time.
    pub message_fault_lock: AsyncMutex<()>,
    /// The load balancer. `None` if clients choose an instance themselves.
    pub balancer: Option<Balancer>,
    /// The clock of the last instance.
    pub clock: Option<Arc<Clock>>,
    pub postgres: Postgres,
    /// The shared Postgres. `None` if an instance runs the embedded one, or the run was given a server.
    external: Option<EmbeddedPostgres>,
    pub disk: Option<Disk>,
    pub folder: Folder,
}

impl Testbed {
    /// One instance with its embedded Postgres.
    pub async fn with_embedded_postgres() -> Self {
        let folder = spawn_blocking(Folder::migrated).await.unwrap();
        let data = folder.data();
        Self::on_embedded_postgres(folder, data, None).await
    }

    /// The same, with its data on a small disk that can be filled.
    pub async fn with_small_disk() -> Self {
        let folder = Folder::empty();
        remove_abandoned("passbook-");
        fs::write(folder.join("pid"), process::id().to_string()).unwrap();
        let disk = Disk::mount(folder.join("disk"));
        let data = disk.path().join("data");
        Self::on_embedded_postgres(folder, data, Some(disk)).await
    }

    /// Three instances with a shared Postgres behind a load balancer, which receives all commands. Each start uses the
    /// binary that `program` names at that time, or the current one if it is `None`.
    pub async fn behind_balancer(program: Arc<Mutex<Option<PathBuf>>>) -> Self {
        let (folder, postgres, external) = shared_postgres().await;
        let addresses = [(); 3].map(|()| free_address());
        let balancer = Balancer::start(&folder, &addresses).await;
        let instances = ["first", "second", "third"].into_iter().zip(addresses).map(|(name, address)| {
            let url = postgres.database_url();
            let program = Arc::clone(&program);
            let command = move || {
                // Without this setting an instance on a loopback address rejects requests that a proxy forwarded.
                let passbook = prepared(Passbook::with_database(&url)).set("PASSBOOK_AUTH", "off");
                let passbook = passbook.set("PASSBOOK_LISTEN", &address);
                let passbook = passbook.set("PASSBOOK_SHUTDOWN_DELAY_MS", SHUTDOWN_DELAY_MS);
                match &*program.lock().unwrap() {
                    Some(program) => passbook.with_binary(program),
                    None => passbook,
                }
            };
            Arc::new(Instance::new(name, command))
        });
        let testbed =
            Self { balancer: Some(balancer), external, ..Self::minimal(instances.collect(), postgres, folder) };
        testbed.restore().await;
        testbed
    }

    /// Two permanent instances and a transient one with a shared Postgres. Each permanent instance has its own proxy, and
    /// the second one has its own clock.
    pub async fn with_shared_postgres() -> Self {
        let (folder, postgres, external) = shared_postgres().await;
        let mut proxies = Vec::new();
        for _ in 0..2 {
            proxies.push(FaultProxy::start(Endpoint::of(&postgres.database_url())).await);
        }
        let clock = Arc::new(Clock::in_file(folder.join("clock")));
        let direct = postgres.database_url();
        let [first, second] = [&proxies[0], &proxies[1]].map(|proxy| proxy.database_url(&direct));
        let second_clock = Arc::clone(&clock);
        let instances = vec![
            Instance::new("first", move || prepared(Passbook::with_database(&first))),
            Instance::new("second", move || second_clock.apply_to(prepared(Passbook::with_database(&second)))),
        ];
        let transient = Instance::new("transient", move || prepared(Passbook::with_database(&direct)));
        transient.set_target(false);
        let testbed = Self {
            transient: Some(Arc::new(transient)),
            proxies,
            clock: Some(clock),
            external,
            ..Self::minimal(instances.into_iter().map(Arc::new).collect(), postgres, folder)
        };
        testbed.restore().await;
        testbed
    }

    async fn on_embedded_postgres(folder: Folder, data: PathBuf, disk: Option<Disk>) -> Self {
        let postgres = Postgres::InFolder(data.clone());
        let command = move || prepared(Passbook::without_settings().set("PASSBOOK_DATA_DIR", &data));
        let testbed = Self { disk, ..Self::minimal(vec![Arc::new(Instance::new("only", command))], postgres, folder) };
        testbed.restore().await;
        testbed
    }

    /// Instances and Postgres, without any further component.
    fn minimal(instances: Vec<Arc<Instance>>, postgres: Postgres, folder: Folder) -> Self {
        Self {
            instances,
            transient: None,
            proxies: vec![],
            message_fault_lock: AsyncMutex::default(),
            balancer: None,
            clock: None,
            postgres,
            external: None,
            disk: None,
            folder,
        }
    }

    /// Whether Postgres runs embedded, and so exits with its instance.
    pub fn has_embedded_postgres(&self) -> bool {
        self.external.is_none() && self.postgres.has_processes()
    }

    /// Ends every fault, and waits until all instances and Postgres respond.
    pub async fn restore(&self) {
        self.proxies.iter().for_each(FaultProxy::restore);
        // An instance whose clock differs too much refuses commands.
        if let Some(clock) = &self.clock {
            clock.set(0);
        }
        for instance in &self.instances {
            instance.lock().await.start().await;
        }
        eventually("Postgres", async || self.postgres.connect().await.ok()).await;
        if let Some(balancer) = &self.balancer {
            balancer.wait_until_reachable().await;
        }
    }

    /// Shuts everything down, and checks that no process is left.
    pub async fn shut_down(mut self) {
        for instance in self.instances.iter().chain(&self.transient) {
            instance.lock().await.stop().await;
        }
        drop(self.balancer.take());
        if let Some(external) = self.external.take() {
            external.stop().await;
        }
        spawn_blocking(move || {
            self.folder.wait_until_unused();
            drop(self);
        })
        .await
        .unwrap();
    }

    /// The permanent instances and the transient one.
    pub fn all_instances(&self) -> Vec<Arc<Instance>> {
        self.instances.iter().chain(&self.transient).cloned().collect()
    }

    /// A connection to Postgres without any proxy in between.
    pub async fn database(&self) -> PgConnection {
        eventually("Postgres", async || self.postgres.connect().await.ok()).await
    }

    /// Waits until every view has read the log, and the expiry of each hold is recorded that is over or soon will be. Then nothing is
    /// recorded unless a client sends a command.
    pub async fn wait_for_expiries(&self) {
        wait_for_expiries(async || self.postgres.connect().await.ok()).await;
    }

    /// Runs `passbook verify`.
    pub async fn verify(&self) -> Exited {
        verify(self.postgres.database_url()).await
    }
}

/// Waits like [`Testbed::wait_for_expiries`], on connections that `connect` opens.
pub async fn wait_for_expiries(connect: impl AsyncFn() -> Option<PgConnection>) {
    eventually("recorded expiries of holds", async || {
        let mut database = connect().await?;
        let pending: bool = query_scalar(
            "SELECT EXISTS (
                 SELECT FROM projection JOIN log_head USING (partition)
                 WHERE state = 'live' AND projection.position <> log_head.position
             ) OR EXISTS (
                 SELECT FROM account_hold JOIN projection USING (partition, generation)
                 WHERE name = 'holds' AND state = 'live' AND status = 'active' AND expires_at < now() + interval '1 hour'
             )",
        )
        .fetch_one(&mut database)
        .await
        .ok()?;
        (!pending).then_some(())
    })
    .await;
}

/// Runs `passbook verify` on a database.
pub async fn verify(url: String) -> Exited {
    spawn_blocking(move || {
        Passbook::without_settings().set("PASSBOOK_DATABASE_URL", url).argument("verify").wait_for_exit()
    })
    .await
    .unwrap()
}

/// Starts the Postgres that several instances share, or creates a database of the server that the run was given.
async fn shared_postgres() -> (Folder, Postgres, Option<EmbeddedPostgres>) {
    if given_url().is_some() {
        return (Folder::empty(), Postgres::Given(TestDatabase::create().await), None);
    }
    let folder = spawn_blocking(Folder::migrated).await.unwrap();
    let parameters = [("max_connections", "200"), ("shared_buffers", "64MB")];
    let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let settings = embedded::Settings { data_dir: folder.data(), bin: chosen_programs(), parameters };
    let external = EmbeddedPostgres::start(&settings).await.unwrap();
    let postgres = Postgres::InFolder(folder.data());
    (folder, postgres, Some(external))
}

/// Adds the settings that all instances share.
pub fn prepared(passbook: Passbook) -> Passbook {
    let partitions = Settings::read().partitions.to_string();
    let passbook = passbook.set("PASSBOOK_LISTEN", "127.0.0.1:0").set("PASSBOOK_PARTITIONS", partitions);
    passbook.set("PASSBOOK_LOG", "warn").set("PASSBOOK_SNAPSHOT_EVERY", "10")
}
