//! PgBouncer in front of a Postgres server, for tests.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    folder::Folder,
    ports::free_port,
    postgres_server::{PostgresServer, as_server_user, make_readable},
    repository_root,
};

const START_S_MAX: u64 = 30;

/// A running PgBouncer. It is stopped on drop.
pub struct PgBouncer {
    child: Child,
    port: u16,
}

impl PgBouncer {
    /// Starts PgBouncer with these lines of its configuration. All clients log in to the database `passbook` as the role `login`.
    pub fn start(folder: &Folder, server: &PostgresServer, login: &str, settings: &[&str]) -> Self {
        let port = free_port();
        let (socket_folder, server_port) = server.socket();
        let configuration = format!(
            "[databases]\npassbook = host={} port={server_port} dbname=passbook user={login}\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\ndefault_pool_size = 60\n{}\n",
            socket_folder.display(),
            settings.join("\n")
        );
        let file = folder.join(&format!("pgbouncer-{port}.ini"));
        fs::write(&file, configuration).unwrap();
        make_readable(&file);
        // The user that runs Postgres may not be able to enter the folder of the project.
        let copy = folder.join(&format!("pgbouncer-{port}"));
        fs::copy(program(), &copy).expect("PgBouncer is not installed: run `scripts/install-deps --test`");
        let mut command = Command::new(copy);
        as_server_user(&mut command);
        command.arg("-q").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(START_S_MAX);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "PgBouncer does not start");
            thread::sleep(Duration::from_millis(20));
        }
        Self { child, port }
    }

    /// The URL of the database through PgBouncer.
    pub fn url(&self) -> String {
        format!("postgres://any@127.0.0.1:{}/passbook", self.port)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The binary that `scripts/install-deps --test` installs, or the one of the system.
fn program() -> PathBuf {
    let installed = repository_root().join("target/tools/pgbouncer");
    let candidates = [installed, Path::new("/usr/sbin/pgbouncer").to_path_buf()];
    candidates.into_iter().find(|path| path.exists()).unwrap_or_default()
}
