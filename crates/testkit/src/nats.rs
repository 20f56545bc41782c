//! A NATS server or a cluster for tests. A server can be killed and restarted with the same files.

use std::{
    fs::File,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use async_nats::{
    Client, ConnectOptions,
    jetstream::{
        self, Context,
        message::StreamMessage,
        stream::{Config, DiscardPolicy, Stream},
    },
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{folder::temporary_root, ports::free_port, repository_root};

/// The stream of the first partition.
pub const STREAM: &str = "passbook-0";
/// How long a server may take to start. Long enough that a slow machine fails no test.
const START_S_MAX: u64 = 60;

/// The number of servers of a cluster.
pub const SERVERS: usize = 3;

/// One server or several. They are killed on drop.
pub struct Nats {
    servers: Vec<Server>,
    access: Access,
}

/// How a client connects to the servers.
pub struct Access {
    /// The scheme of the URL: `nats` or `tls`.
    pub scheme: &'static str,
    /// User name and password.
    pub user: Option<(&'static str, &'static str)>,
    /// The file of the server's certificate, for TLS.
    pub certificate: Option<PathBuf>,
    /// The file of the client's credentials.
    pub credentials: Option<PathBuf>,
}

struct Server {
    child: Option<Child>,
    port: u16,
    folder: TempDir,
    arguments: Vec<String>,
}

impl Nats {
    /// Starts one server without access control.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts one server with further arguments.
    pub async fn start_with(arguments: &[&str]) -> Self {
        Self::with_access(arguments, Access::open()).await
    }

    /// Starts one server with access control.
    pub async fn with_access(arguments: &[&str], access: Access) -> Self {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Self::launch(vec![Server::new(free_port(), arguments)], access).await
    }

    /// Starts a cluster of three servers.
    pub async fn cluster() -> Self {
        let ports: Vec<u16> = (0..2 * SERVERS).map(|_| free_port()).collect();
        let routes = |port: &u16| format!("nats://127.0.0.1:{port}");
        let (ports, routes) = (&ports[..SERVERS], ports[SERVERS..].iter().map(routes).collect::<Vec<_>>());
        let servers = routes.iter().zip(ports).enumerate().map(|(number, (route, port))| {
            let all = routes.join(",");
            let name = format!("server-{number}");
            let arguments =
                ["--server_name", &name, "--cluster_name", "passbook", "--cluster", route, "--routes", &all];
            Server::new(*port, arguments.map(str::to_owned).into())
        });
        Self::launch(servers.collect(), Access::open()).await
    }

    async fn launch(servers: Vec<Server>, access: Access) -> Self {
        let mut nats = Self { servers, access };
        for server in &mut nats.servers {
            server.restart();
        }
        for server in &nats.servers {
            server.wait_until_listening().await;
        }
        nats
    }

    /// Restarts the first server with the same files, without waiting for it.
    pub fn restart(&mut self) {
        self.restart_one(0);
    }

    /// Sends SIGKILL to the first server.
    pub fn kill(&mut self) {
        self.kill_one(0);
    }

    /// Restarts one server with the same files, without waiting for it.
    pub fn restart_one(&mut self, number: usize) {
        self.servers[number].restart();
    }

    /// Sends SIGKILL to one server.
    pub fn kill_one(&mut self, number: usize) {
        self.servers[number].kill();
    }

    /// The URLs of the servers, separated by commas.
    pub fn url(&self) -> String {
        let login = self.access.user.map(|(user, password)| format!("{user}:{password}@")).unwrap_or_default();
        let url = |server: &Server| format!("{}://{login}127.0.0.1:{}", self.access.scheme, server.port);
        self.servers.iter().map(url).collect::<Vec<_>>().join(",")
    }

    /// Connects, with retries until the servers respond.
    pub async fn client(&self) -> Client {
        let deadline = Instant::now() + Duration::from_secs(START_S_MAX);
        loop {
            let mut options = ConnectOptions::new();
            if let Some((user, password)) = self.access.user {
                options = options.user_and_password(user.to_owned(), password.to_owned());
            }
            if let Some(certificate) = &self.access.certificate {
                options = options.add_root_certificates(certificate.clone());
            }
            if let Some(credentials) = &self.access.credentials {
                options = options.credentials_file(credentials).await.unwrap();
            }
            match options.connect(self.url().split(',').collect::<Vec<_>>()).await {
                Ok(client) => return client,
                Err(error) => assert!(Instant::now() < deadline, "cannot connect to the NATS server: {error}"),
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Connects to JetStream.
    pub async fn jetstream(&self) -> Context {
        jetstream::new(self.client().await)
    }

    /// Creates the relay's stream before the relay does. Retries, because a cluster needs time to elect a leader.
    pub async fn create_stream(&self, settings: Config) {
        let settings = Config {
            name: STREAM.to_owned(),
            subjects: vec!["passbook.0.>".to_owned()],
            discard: DiscardPolicy::New,
            ..settings
        };
        let deadline = Instant::now() + Duration::from_secs(START_S_MAX);
        while let Err(error) = self.jetstream().await.create_stream(settings.clone()).await {
            assert!(Instant::now() < deadline, "cannot create the stream: {error}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// The last sequence of the first partition's stream. `None` if there is no stream.
    pub async fn last_sequence(&self) -> Option<u64> {
        self.last_sequence_of(0).await
    }

    /// The last sequence of a partition's stream. `None` if there is no stream.
    pub async fn last_sequence_of(&self, partition: i16) -> Option<u64> {
        let stream = self.jetstream().await.get_stream(format!("passbook-{partition}")).await.ok()?;
        Some(stream.cached_info().state.last_sequence)
    }

    /// Every message of a partition's stream. Asserts that none is missing.
    pub async fn messages(&self, partition: i16) -> Vec<StreamMessage> {
        let stream: Stream = self.jetstream().await.get_stream(format!("passbook-{partition}")).await.unwrap();
        let state = &stream.cached_info().state;
        assert_eq!((state.first_sequence, state.messages), (1, state.last_sequence), "messages are missing");
        let mut messages = Vec::new();
        for sequence in 1..=state.last_sequence {
            messages.push(stream.get_raw_message(sequence).await.unwrap());
        }
        messages
    }
}

impl Access {
    /// Without access control and TLS.
    pub fn open() -> Self {
        Self { scheme: "nats", user: None, certificate: None, credentials: None }
    }
}

impl Server {
    fn new(port: u16, arguments: Vec<String>) -> Self {
        let folder = tempfile::Builder::new().prefix("passbook-nats.").tempdir_in(temporary_root()).unwrap();
        Self { child: None, port, folder, arguments }
    }

    fn restart(&mut self) {
        self.kill();
        let log = File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let mut command = Command::new(program());
        command.args(["--addr", "127.0.0.1", "--port", &self.port.to_string(), "--jetstream", "--store_dir"]);
        command.arg(self.folder.path().join("store")).args(&self.arguments);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        self.child = Some(child.expect("nats-server is not installed: run `scripts/install-deps --test`"));
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    async fn wait_until_listening(&self) {
        // A TCP connection is enough: a server with access control would refuse a client without credentials.
        let deadline = Instant::now() + Duration::from_secs(START_S_MAX);
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            assert!(Instant::now() < deadline, "the NATS server does not listen");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The binary that `scripts/install-deps --test` installs, or the one on the path.
fn program() -> PathBuf {
    let installed = repository_root().join("target/tools/nats-server");
    if installed.exists() { installed } else { "nats-server".into() }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
