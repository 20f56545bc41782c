//! A NATS server of the test's own, or a cluster of them, which may die at any moment and come back on the same files.

use std::{
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
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

/// The stream of the first partition.
pub const STREAM: &str = "passbook-0";
/// After so long a server that does not answer is taken for lost. No test passes or fails by being fast or slow.
const START_S_MAX: u64 = 60;

/// How many servers a cluster has.
pub const SERVERS: usize = 3;

pub struct Nats {
    servers: Vec<Server>,
    access: Access,
}

/// How one gets in.
pub struct Access {
    /// What the server's address begins with.
    pub scheme: &'static str,
    pub user: Option<(&'static str, &'static str)>,
    /// The certificate of a server with TLS.
    pub certificate: Option<PathBuf>,
    /// The file of one's credentials.
    pub credentials: Option<PathBuf>,
}

struct Server {
    child: Option<Child>,
    port: u16,
    folder: TempDir,
    arguments: Vec<String>,
}

impl Nats {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With further arguments of the server's.
    pub async fn start_with(arguments: &[&str]) -> Self {
        Self::with_access(arguments, Access::open()).await
    }

    /// A server that does not let everybody in.
    pub async fn with_access(arguments: &[&str], access: Access) -> Self {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Self::launch(vec![Server::new(free_ports(1)[0], arguments)], access).await
    }

    /// Three servers that keep a stream together.
    pub async fn cluster() -> Self {
        let (ports, routes) = (free_ports(SERVERS * 2), |port: &u16| format!("nats://127.0.0.1:{port}"));
        let (ports, routes) = (&ports[..SERVERS], ports[SERVERS..].iter().map(routes).collect::<Vec<_>>());
        let servers = routes.iter().zip(ports).enumerate().map(|(number, (route, port))| {
            let all = routes.join(",");
            let name = format!("server-{number}");
            let told = ["--server_name", &name, "--cluster_name", "passbook", "--cluster", route, "--routes", &all];
            Server::new(*port, told.map(str::to_owned).into())
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

    /// Starts it again on the same files, and does not wait for it.
    pub fn restart(&mut self) {
        self.restart_one(0);
    }

    /// Ends it without a word.
    pub fn kill(&mut self) {
        self.kill_one(0);
    }

    pub fn restart_one(&mut self, number: usize) {
        self.servers[number].restart();
    }

    pub fn kill_one(&mut self, number: usize) {
        self.servers[number].kill();
    }

    pub fn url(&self) -> String {
        let login = self.access.user.map(|(user, password)| format!("{user}:{password}@")).unwrap_or_default();
        let url = |server: &Server| format!("{}://{login}127.0.0.1:{}", self.access.scheme, server.port);
        self.servers.iter().map(url).collect::<Vec<_>>().join(",")
    }

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
                Err(error) => assert!(Instant::now() < deadline, "the NATS server cannot be reached: {error}"),
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn jetstream(&self) -> Context {
        jetstream::new(self.client().await)
    }

    /// Makes the relay's stream before the relay does. A cluster takes some time until one of them leads.
    pub async fn create_stream(&self, settings: Config) {
        let settings = Config {
            name: STREAM.to_owned(),
            subjects: vec!["passbook.0.>".to_owned()],
            discard: DiscardPolicy::New,
            ..settings
        };
        let deadline = Instant::now() + Duration::from_secs(START_S_MAX);
        while let Err(error) = self.jetstream().await.create_stream(settings.clone()).await {
            assert!(Instant::now() < deadline, "the stream cannot be made: {error}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Where the first partition's stream ends, if it is there.
    pub async fn last_sequence(&self) -> Option<u64> {
        self.last_sequence_of(0).await
    }

    pub async fn last_sequence_of(&self, partition: i16) -> Option<u64> {
        let stream = self.jetstream().await.get_stream(format!("passbook-{partition}")).await.ok()?;
        Some(stream.cached_info().state.last_sequence)
    }

    /// Every message of a partition's stream, from the first one on.
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
    pub fn open() -> Self {
        Self { scheme: "nats", user: None, certificate: None, credentials: None }
    }
}

impl Server {
    fn new(port: u16, arguments: Vec<String>) -> Self {
        let folder = tempfile::Builder::new().prefix("passbook-nats.").tempdir_in("/tmp").unwrap();
        Self { child: None, port, folder, arguments }
    }

    fn restart(&mut self) {
        self.kill();
        let log = File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let mut command = Command::new(program());
        command.args(["--addr", "127.0.0.1", "--port", &self.port.to_string(), "--jetstream", "--store_dir"]);
        command.arg(self.folder.path().join("store")).args(&self.arguments);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        self.child = Some(child.expect("nats-server is there: scripts/install-deps --test installs it"));
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    async fn wait_until_listening(&self) {
        // Nobody is let in anywhere yet, but whoever is refused was answered.
        let deadline = Instant::now() + Duration::from_secs(START_S_MAX);
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            assert!(Instant::now() < deadline, "the NATS server does not listen");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// So many different ones.
fn free_ports(count: usize) -> Vec<u16> {
    let held: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    held.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

/// Where `scripts/install-deps --test` puts it, or on the path.
fn program() -> PathBuf {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/nats-server");
    if unpacked.exists() { unpacked } else { "nats-server".into() }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
