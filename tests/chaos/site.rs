//! What the faults happen to: passbooks, their Postgres, and the network, the clock and the disk between and below them.

use std::{
    fs,
    path::PathBuf,
    process,
    sync::{Arc, Mutex},
};

use passbook::database::embedded::{self, EmbeddedPostgres};
use sqlx::PgConnection;
use tokio::{sync::Mutex as Turn, task::spawn_blocking};

use crate::{
    balancer::{Balancer, free_address},
    clock::Clock,
    disk::{Disk, remove_abandoned},
    eventually,
    folder::Folder,
    instance::Instance,
    passbook::{Ended, Passbook},
    postgres::Postgres,
    proxy::Proxy,
    settings::Settings,
};

/// Longer than HAProxy takes to notice that a passbook is ending.
const SHUTDOWN_DELAY_MS: &str = "8000";

/// Fields are dropped in this order: whoever works in a folder ends before it is removed.
pub struct Site {
    /// Those that are always there, but for the faults.
    pub instances: Vec<Arc<Instance>>,
    /// One that comes and goes.
    pub guest: Option<Arc<Instance>>,
    /// What stands before the database of each instance, in their order.
    pub proxies: Vec<Proxy>,
    /// One thief at a time.
    pub theft: Turn<()>,
    /// What shares out what clients send; none: they choose among the passbooks themselves.
    pub balancer: Option<Balancer>,
    /// The clock of the last instance.
    pub clock: Option<Arc<Clock>>,
    pub postgres: Postgres,
    /// Where Postgres is not a passbook's own.
    external: Option<EmbeddedPostgres>,
    pub disk: Option<Disk>,
    pub folder: Folder,
}

impl Site {
    /// One passbook with a Postgres of its own.
    pub async fn own() -> Self {
        let folder = spawn_blocking(Folder::fresh).await.unwrap();
        let data = folder.data();
        Self::with_own_postgres(folder, data, None).await
    }

    /// The same on a disk that can be filled.
    pub async fn own_on_a_small_disk() -> Self {
        let folder = Folder::empty();
        remove_abandoned("passbook-");
        fs::write(folder.beside("pid"), process::id().to_string()).unwrap();
        let disk = Disk::mount(folder.beside("disk"));
        let data = disk.path().join("data");
        Self::with_own_postgres(folder, data, Some(disk)).await
    }

    /// Three passbooks on one Postgres behind a load balancer, through which clients send. Each is started as the release that
    /// `program` names at that time; none: as this one.
    pub async fn balanced(program: Arc<Mutex<Option<PathBuf>>>) -> Self {
        let folder = spawn_blocking(Folder::fresh).await.unwrap();
        let (postgres, external) = postgres_in(&folder).await;
        let addresses = [(); 3].map(|()| free_address());
        let balancer = Balancer::before(&folder, &addresses).await;
        let instances = ["first", "second", "third"].into_iter().zip(addresses).map(|(name, address)| {
            let url = postgres.database_url();
            let program = Arc::clone(&program);
            let command = move || {
                let passbook = prepared(Passbook::using(&url)).set("PASSBOOK_LISTEN", &address);
                let passbook = passbook.set("PASSBOOK_SHUTDOWN_DELAY_MS", SHUTDOWN_DELAY_MS);
                match &*program.lock().unwrap() {
                    Some(program) => passbook.of_release(program),
                    None => passbook,
                }
            };
            Arc::new(Instance::new(name, command))
        });
        let site = Self {
            balancer: Some(balancer),
            external: Some(external),
            ..Self::plain(instances.collect(), postgres, folder)
        };
        site.mend().await;
        site
    }

    /// Two passbooks, and a third at times, on one Postgres, each with a network of its own. The second has a clock of
    /// its own.
    pub async fn shared() -> Self {
        let folder = spawn_blocking(Folder::fresh).await.unwrap();
        let (postgres, external) = postgres_in(&folder).await;
        let mut proxies = Vec::new();
        for _ in 0..2 {
            proxies.push(Proxy::before(postgres.socket()).await);
        }
        let clock = Arc::new(Clock::kept_in(folder.beside("clock")));
        let [first, second] = [&proxies[0], &proxies[1]].map(Proxy::database_url);
        let of_second = Arc::clone(&clock);
        let direct = postgres.database_url();
        let instances = vec![
            Instance::new("first", move || prepared(Passbook::using(&first))),
            Instance::new("second", move || of_second.give_to(prepared(Passbook::using(&second)))),
        ];
        let guest = Instance::new("guest", move || prepared(Passbook::using(&direct)));
        guest.expect(false);
        let site = Self {
            guest: Some(Arc::new(guest)),
            proxies,
            clock: Some(clock),
            external: Some(external),
            ..Self::plain(instances.into_iter().map(Arc::new).collect(), postgres, folder)
        };
        site.mend().await;
        site
    }

    async fn with_own_postgres(folder: Folder, data: PathBuf, disk: Option<Disk>) -> Self {
        let postgres = Postgres::in_folder(data.clone());
        let command = move || prepared(Passbook::bare().set("PASSBOOK_DATA_DIR", &data));
        let site = Self { disk, ..Self::plain(vec![Arc::new(Instance::new("only", command))], postgres, folder) };
        site.mend().await;
        site
    }

    /// Passbooks on a Postgres, and nothing else.
    fn plain(instances: Vec<Arc<Instance>>, postgres: Postgres, folder: Folder) -> Self {
        Self {
            instances,
            guest: None,
            proxies: vec![],
            theft: Turn::default(),
            balancer: None,
            clock: None,
            postgres,
            external: None,
            disk: None,
            folder,
        }
    }

    /// Whether its Postgres ends with its passbook.
    pub fn has_own_postgres(&self) -> bool {
        self.external.is_none()
    }

    /// Everything is up again, and answers.
    pub async fn mend(&self) {
        self.proxies.iter().for_each(Proxy::mend);
        for instance in &self.instances {
            instance.hold().await.start().await;
        }
        eventually("Postgres", async || self.postgres.connect().await.ok()).await;
        if let Some(balancer) = &self.balancer {
            balancer.is_open().await;
        }
    }

    /// Everything ends in order, and nothing is left.
    pub async fn close(mut self) {
        for instance in self.instances.iter().chain(&self.guest) {
            instance.hold().await.stop().await;
        }
        drop(self.balancer.take());
        if let Some(external) = self.external.take() {
            external.stop().await;
        }
        spawn_blocking(move || {
            self.folder.is_left_alone();
            drop(self);
        })
        .await
        .unwrap();
    }

    /// Where a command may be sent to.
    pub fn everybody(&self) -> Vec<Arc<Instance>> {
        self.instances.iter().chain(&self.guest).cloned().collect()
    }

    /// The database past everything that stands before it.
    pub async fn database(&self) -> PgConnection {
        eventually("Postgres", async || self.postgres.connect().await.ok()).await
    }

    /// What `passbook verify` says.
    pub async fn verify(&self) -> Ended {
        let url = self.postgres.database_url();
        spawn_blocking(move || Passbook::bare().set("PASSBOOK_DATABASE_URL", url).argument("verify").end())
            .await
            .unwrap()
    }
}

/// A server that several passbooks use.
async fn postgres_in(folder: &Folder) -> (Postgres, EmbeddedPostgres) {
    let parameters = [("max_connections", "200"), ("shared_buffers", "64MB")];
    let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let settings = embedded::Settings { data_dir: folder.data(), bin: None, parameters };
    let external = EmbeddedPostgres::start(&settings).await.unwrap();
    (Postgres::in_folder(folder.data()), external)
}

fn prepared(passbook: Passbook) -> Passbook {
    let partitions = Settings::read().partitions.to_string();
    let passbook = passbook.set("PASSBOOK_LISTEN", "127.0.0.1:0").set("PASSBOOK_PARTITIONS", partitions);
    passbook.set("PASSBOOK_LOG", "warn").set("PASSBOOK_SNAPSHOT_EVERY", "10")
}
