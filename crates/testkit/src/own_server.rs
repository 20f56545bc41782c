//! The Postgres that a test program starts for its databases. It ends with the program, also if the program is killed.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process,
};

use passbook_embedded_postgres::{EmbeddedPostgres, Error, Settings, installed};

use crate::folder::temporary_root;

/// A running server.
pub struct OwnServer {
    /// Stops the server when it is dropped.
    _postgres: EmbeddedPostgres,
    /// The URL of the database `postgres`.
    pub url: String,
}

impl OwnServer {
    /// Starts Postgres in the data folder that runs share, or in a folder of this process if another run uses the shared one.
    pub async fn start() -> Self {
        let major = installed(chosen_programs().as_deref()).unwrap().major;
        let shared = temporary_root().join(format!("passbook-tests-{}-api{major}", nix::unistd::getuid()));
        remove_abandoned(&shared);
        match EmbeddedPostgres::start(&settings(&shared)).await {
            Err(Error::InUse(_)) => {
                let own = PathBuf::from(format!("{}-{}", shared.display(), process::id()));
                Self::new(EmbeddedPostgres::start(&settings(&own)).await.unwrap(), &own)
            }
            started => Self::new(started.unwrap(), &shared),
        }
    }

    fn new(postgres: EmbeddedPostgres, data_dir: &Path) -> Self {
        let options = postgres.connect_options();
        let socket_dir = options.get_socket().cloned().unwrap_or_else(|| data_dir.join("run"));
        let url = format!("postgres://passbook@localhost:5432/postgres?host={}&sslmode=disable", socket_dir.display());
        Self { _postgres: postgres, url }
    }
}

/// The folder of the Postgres programs that `PASSBOOK_PG_BIN` chooses for a test run.
pub fn chosen_programs() -> Option<PathBuf> {
    env::var_os("PASSBOOK_PG_BIN").filter(|folder| !folder.is_empty()).map(PathBuf::from)
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
        bin: chosen_programs(),
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
