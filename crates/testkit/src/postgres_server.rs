//! A Postgres server and a streaming standby for tests, created with `initdb` and `pg_basebackup`. They run as a non-root
//! user, which Postgres requires.

use std::{
    fs::{self, File},
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, User, geteuid},
};
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection, postgres::PgConnectOptions, query, query_scalar};

use passbook_embedded_postgres::installed;

use crate::{folder::Folder, own_server::chosen_programs, ports::free_port, tls::Identity};

const START_S_MAX: u64 = 60;
/// Both servers use this port: their sockets are in different folders.
const PORT: u16 = 5432;

/// A server of its own. It is stopped on drop.
pub struct PostgresServer {
    folder: PathBuf,
    port: u16,
    settings: Vec<(&'static str, String)>,
    child: Child,
}

impl PostgresServer {
    /// Starts a server with an empty database `passbook`.
    pub async fn start(folder: &Folder) -> Self {
        Self::initialize(folder, PORT, &[]).await
    }

    /// Starts a server that also accepts TCP connections.
    pub async fn with_tcp(folder: &Folder) -> Self {
        let port = free_port();
        Self::initialize(folder, port, &[("listen_addresses", "127.0.0.1".to_owned())]).await
    }

    /// The address for TCP connections.
    pub fn tcp_address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The URL for a TCP connection.
    pub fn tcp_url(&self) -> String {
        format!("postgres://passbook@127.0.0.1:{}/passbook?sslmode=disable", self.port)
    }

    /// Starts a server that also accepts TLS connections.
    pub async fn with_tls(folder: &Folder, identity: &Identity) -> Self {
        let port = free_port();
        let [certificate, key] = [identity.certificate(), identity.key()].map(|file| private_copy(&file, folder));
        let settings = [
            ("listen_addresses", "127.0.0.1".to_owned()),
            ("ssl", "on".to_owned()),
            ("ssl_cert_file", certificate.display().to_string()),
            ("ssl_key_file", key.display().to_string()),
        ];
        Self::initialize(folder, port, &settings).await
    }

    async fn initialize(folder: &Folder, port: u16, settings: &[(&'static str, String)]) -> Self {
        let home = home(folder, "one");
        let data = home.join("data");
        run(program("initdb").arg("-D").arg(&data).args([
            "-E",
            "UTF8",
            "--locale=C",
            "--auth=trust",
            "-U",
            "passbook",
        ]));
        let server = Self::serve(home, port, settings).await;
        server.execute("CREATE DATABASE passbook", "postgres").await;
        server
    }

    /// Starts a standby that replicates this server.
    pub async fn standby(&self, folder: &Folder) -> Self {
        let home = home(folder, "two");
        let mut copy = program("pg_basebackup");
        copy.arg("-h").arg(&self.folder).args(["-U", "passbook", "-R", "-X", "stream", "-c", "fast", "-D"]);
        run(copy.arg(home.join("data")));
        Self::serve(home, PORT, &[]).await
    }

    /// Copies the data of this server into its folder, for [`restore`](Self::restore).
    pub fn back_up(&self) {
        let backup = self.folder.join("backup");
        let mut copy = program("pg_basebackup");
        copy.arg("-h").arg(&self.folder).args(["-U", "passbook", "-X", "stream", "-c", "fast", "-D"]);
        run(copy.arg(backup));
    }

    /// Restores the backup at the same address up to a point that `pg_create_restore_point` named, with the WAL of the old data.
    /// The server must be stopped.
    pub async fn restore(&mut self, point: &str) {
        let [data, old, backup] = ["data", "old", "backup"].map(|name| self.folder.join(name));
        fs::rename(&data, &old).unwrap();
        fs::rename(&backup, &data).unwrap();
        let settings = format!(
            "restore_command = 'cp {}/pg_wal/%f %p'\nrecovery_target_name = '{point}'\nrecovery_target_action = 'promote'\n",
            old.display()
        );
        for (name, text) in [("postgresql.auto.conf", settings.as_str()), ("recovery.signal", "")] {
            fs::write(data.join(name), text).unwrap();
            chown_to_postgres(&data.join(name));
        }
        self.recover().await;
        while self.query_bool("SELECT pg_is_in_recovery()").await {
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops the server from accepting connections, as a frozen machine does: attempts get no answer. Open connections go on.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Ends [`freeze`](Self::freeze).
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    async fn serve(folder: PathBuf, port: u16, settings: &[(&'static str, String)]) -> Self {
        let server = Self { child: launch(&folder, port, settings), folder, port, settings: settings.to_vec() };
        server.wait_until_it_accepts_connections().await;
        server
    }

    /// Stops the server at once, as a crash does: it needs a recovery.
    pub fn crash(&mut self) {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGQUIT).unwrap();
        self.child.wait().unwrap();
    }

    /// Starts the server again after [`crash`](Self::crash).
    pub async fn recover(&mut self) {
        self.child = launch(&self.folder, self.port, &self.settings);
        self.wait_until_it_accepts_connections().await;
    }

    async fn wait_until_it_accepts_connections(&self) {
        let deadline = Instant::now() + Duration::from_secs(START_S_MAX);
        while self.options("postgres").connect().await.is_err() {
            let log = fs::read_to_string(self.folder.join("log")).unwrap();
            assert!(Instant::now() < deadline, "Postgres does not start: {log}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// The URL of the database `passbook` over the Unix socket.
    pub fn url(&self) -> String {
        format!("postgres://passbook@localhost:{}/passbook?host={}", self.port, self.folder.display())
    }

    /// The URL for a TLS connection that verifies the certificate and the host name.
    pub fn tls_url(&self) -> String {
        format!("postgres://passbook@127.0.0.1:{}/passbook?sslmode=verify-full", self.port)
    }

    /// The folder of the Unix socket, and its port.
    pub(crate) fn socket(&self) -> (&Path, u16) {
        (&self.folder, self.port)
    }

    fn options(&self, database: &str) -> PgConnectOptions {
        self.url().parse::<PgConnectOptions>().unwrap().database(database)
    }

    /// Executes one statement as the superuser.
    pub async fn execute(&self, sql: &str, database: &str) {
        let mut connection = self.options(database).connect().await.unwrap();
        query(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    }

    /// Connects to the database `passbook` as the superuser.
    pub async fn connect(&self) -> PgConnection {
        self.options("passbook").connect().await.unwrap()
    }

    /// Returns the result of a query in the database `passbook`.
    pub async fn query_bool(&self, sql: &str) -> bool {
        let mut connection = self.options("passbook").connect().await.unwrap();
        query_scalar(AssertSqlSafe(sql)).fetch_one(&mut connection).await.unwrap()
    }

    /// Makes commits wait for the standby, and waits until the standby is synchronous.
    pub async fn require_synchronous_standby(&self) {
        self.execute("ALTER SYSTEM SET synchronous_standby_names = '*'", "postgres").await;
        self.execute("SELECT pg_reload_conf()", "postgres").await;
        let deadline = Instant::now() + Duration::from_secs(START_S_MAX);
        while !self.query_bool("SELECT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync')").await {
            assert!(Instant::now() < deadline, "no standby is synchronous");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Writes a dump of the database `passbook` with `pg_dump -Fc`.
    pub fn dump(&self, file: &Path) {
        let dumped = program("pg_dump").arg("-Fc").arg(self.url()).stdin(Stdio::null()).output().unwrap();
        assert!(dumped.status.success(), "{}", String::from_utf8_lossy(&dumped.stderr));
        fs::write(file, dumped.stdout).unwrap();
    }

    /// Restores a dump into the database `passbook`, and returns the errors of `pg_restore`.
    pub fn restore_dump(&self, dump: &Path, options: &[&str]) -> String {
        let mut restore = program("pg_restore");
        restore.args(options).arg("-d").arg(self.url()).stdin(File::open(dump).unwrap());
        String::from_utf8(restore.output().unwrap().stderr).unwrap()
    }

    /// The major version of the server.
    pub async fn major(&self) -> i32 {
        let version = "SELECT current_setting('server_version_num')::int / 10000";
        query_scalar(version).fetch_one(&mut self.connect().await).await.unwrap()
    }

    /// The URL of the database `passbook` for another user.
    pub fn url_of(&self, user: &str) -> String {
        self.url().replace("postgres://passbook@", &format!("postgres://{user}@"))
    }

    /// Sends SIGKILL to the postmaster. Its backends exit when they notice.
    pub fn kill(&mut self) {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGKILL).unwrap();
        self.child.wait().unwrap();
    }

    /// Promotes this standby to primary.
    pub fn promote(&self) {
        run(program("pg_ctl").arg("promote").arg("-D").arg(self.folder.join("data")));
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // SIGQUIT is an immediate shutdown: the data is not needed any more.
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGQUIT);
        // A frozen server does not handle the signal before.
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGCONT);
        let _ = self.child.wait();
    }
}

fn launch(folder: &Path, port: u16, settings: &[(&str, String)]) -> Child {
    let mut postgres = program("postgres");
    postgres.arg("-D").arg(folder.join("data")).args(["-c", "listen_addresses=", "-c", "fsync=off"]);
    postgres.arg("-p").arg(port.to_string());
    postgres.arg("-c").arg(format!("unix_socket_directories={}", folder.display()));
    for (name, value) in settings {
        postgres.arg("-c").arg(format!("{name}={value}"));
    }
    let log = File::create(folder.join("log")).unwrap();
    postgres.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    postgres.spawn().unwrap()
}

/// The folder of the programs of Postgres.
pub fn bin_folder() -> PathBuf {
    installed(chosen_programs().as_deref()).expect("Postgres is installed: run `scripts/install-deps`").bin
}

fn program(name: &str) -> Command {
    let mut command = Command::new(bin_folder().join(name));
    as_server_user(&mut command);
    command
}

/// Makes a command run as the user that runs Postgres.
pub(crate) fn as_server_user(command: &mut Command) {
    if let Some(user) = user() {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command.current_dir("/tmp");
}

/// Lets the user that runs Postgres read a file.
pub(crate) fn make_readable(file: &Path) {
    fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
    chown_to_postgres(file);
}

/// The user that runs Postgres if the test runs as root.
pub fn user() -> Option<User> {
    geteuid().is_root().then(|| ["postgres", "nobody"].iter().find_map(|name| User::from_name(name).unwrap()).unwrap())
}

/// A copy of a file with the owner and mode that Postgres requires.
fn private_copy(file: &Path, folder: &Folder) -> PathBuf {
    let copy = folder.join(file.file_name().unwrap().to_str().unwrap());
    fs::copy(file, &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o600)).unwrap();
    chown_to_postgres(&copy);
    copy
}

fn home(folder: &Folder, name: &str) -> PathBuf {
    let home = folder.join(name);
    fs::create_dir(&home).unwrap();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o755)).unwrap();
    chown_to_postgres(&home);
    home
}

/// Gives a file or folder to the user that runs Postgres.
pub fn chown_to_postgres(path: &Path) {
    if let Some(user) = user() {
        chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    }
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
