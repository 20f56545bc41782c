//! What the faults happen to: passbooks, their Postgres, and the network, the clock and the disk between and below them.

use std::{fs, path::PathBuf, process, sync::Arc};

use passbook::database::embedded::{self, EmbeddedPostgres};
use sqlx::PgConnection;
use tokio::{sync::Mutex as Turn, task::spawn_blocking};

use crate::{
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

    /// Two passbooks, and a third at times, on one Postgres, each with a network of its own. The second has a clock of
    /// its own.
    pub async fn shared() -> Self {
        let folder = spawn_blocking(Folder::fresh).await.unwrap();
        let parameters = [("max_connections", "200"), ("shared_buffers", "64MB")];
        let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let settings = embedded::Settings { data_dir: folder.data(), bin: None, parameters };
        let external = EmbeddedPostgres::start(&settings).await.unwrap();
        let postgres = Postgres::in_folder(folder.data());
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
            instances: instances.into_iter().map(Arc::new).collect(),
            guest: Some(Arc::new(guest)),
            proxies,
            theft: Turn::default(),
            clock: Some(clock),
            postgres,
            external: Some(external),
            disk: None,
            folder,
        };
        site.mend().await;
        site
    }

    async fn with_own_postgres(folder: Folder, data: PathBuf, disk: Option<Disk>) -> Self {
        let postgres = Postgres::in_folder(data.clone());
        let command = move || prepared(Passbook::bare().set("PASSBOOK_DATA_DIR", &data));
        let site = Self {
            instances: vec![Arc::new(Instance::new("only", command))],
            guest: None,
            proxies: vec![],
            theft: Turn::default(),
            clock: None,
            postgres,
            external: None,
            disk,
            folder,
        };
        site.mend().await;
        site
    }

    /// Everything is up again, and answers.
    pub async fn mend(&self) {
        self.proxies.iter().for_each(Proxy::mend);
        for instance in &self.instances {
            instance.hold().await.start().await;
        }
        eventually("Postgres", async || self.postgres.connect().await.ok()).await;
    }

    /// Everything ends in order, and nothing is left.
    pub async fn close(mut self) {
        for instance in self.instances.iter().chain(&self.guest) {
            instance.hold().await.stop().await;
        }
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

fn prepared(passbook: Passbook) -> Passbook {
    let partitions = Settings::read().partitions.to_string();
    let passbook = passbook.set("PASSBOOK_LISTEN", "127.0.0.1:0").set("PASSBOOK_PARTITIONS", partitions);
    passbook.set("PASSBOOK_LOG", "warn").set("PASSBOOK_SNAPSHOT_EVERY", "10")
}
