//! A NATS server of the test's own, which may die at any moment and comes back on the same files.

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

pub struct Nats {
    child: Option<Child>,
    port: u16,
    folder: TempDir,
    arguments: Vec<&'static str>,
}

impl Nats {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With further arguments of the server's.
    pub async fn start_with(arguments: &[&'static str]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = tempfile::Builder::new().prefix("passbook-nats.").tempdir_in("/tmp").unwrap();
        let mut nats = Self { child: None, port, folder, arguments: arguments.to_vec() };
        nats.restart();
        nats.is_there().await;
        nats
    }

    /// Starts it again on the same files, and does not wait for it.
    pub fn restart(&mut self) {
        self.kill();
        let log = File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let mut command = Command::new(program());
        command.args(["--addr", "127.0.0.1", "--port", &self.port.to_string(), "--jetstream", "--store_dir"]);
        command.arg(self.folder.path().join("store")).args(&self.arguments);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        self.child = Some(child.expect("nats-server is there: scripts/setup --test installs it"));
    }

    /// Ends it without a word.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    async fn is_there(&self) {
        // Nobody is let in anywhere yet, but whoever is refused was answered.
        let deadline = Instant::now() + Duration::from_secs(START_S_MAX);
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            assert!(Instant::now() < deadline, "the NATS server does not listen");
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn client(&self) -> Client {
        let deadline = Instant::now() + Duration::from_secs(START_S_MAX);
        loop {
            match ConnectOptions::new().connect(self.url()).await {
                Ok(client) => return client,
                Err(error) => assert!(Instant::now() < deadline, "the NATS server cannot be reached: {error}"),
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn jetstream(&self) -> Context {
        jetstream::new(self.client().await)
    }

    /// Makes the relay's stream before the relay does.
    pub async fn make(&self, settings: Config) {
        let settings = Config {
            name: STREAM.to_owned(),
            subjects: vec!["passbook.0.>".to_owned()],
            discard: DiscardPolicy::New,
            ..settings
        };
        self.jetstream().await.create_stream(settings).await.unwrap();
    }

    /// Where the first partition's stream ends, if it is there.
    pub async fn last(&self) -> Option<u64> {
        self.last_of(0).await
    }

    pub async fn last_of(&self, partition: i16) -> Option<u64> {
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

/// Where `scripts/setup --test` puts it, or on the path.
fn program() -> PathBuf {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/nats-server");
    if unpacked.exists() { unpacked } else { "nats-server".into() }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}
