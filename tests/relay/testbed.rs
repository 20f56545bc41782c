//! The system under test: a service, a NATS server, and the relays between them.

use std::future::Future;

use nix::sys::signal::Signal;
use passbook_testkit::{
    folder::Folder,
    process::{Exited, Passbook, Running},
    service_client::Client,
};
use serde_json::Value;
use sqlx::{Connection, PgConnection, Row, query, query_scalar, raw_sql};
use tokio::task::spawn_blocking;

use crate::nats::Nats;

/// Fields are dropped in this order: processes that use a folder must exit before it is removed.
pub struct Testbed {
    pub service: Option<Running>,
    pub nats: Nats,
    pub folder: Folder,
}

impl Testbed {
    /// A service with one account, whose events are not published yet.
    pub async fn new() -> Self {
        Self::with(Nats::start().await).await
    }

    pub async fn with(nats: Nats) -> Self {
        let folder = spawn_blocking(Folder::migrated).await.unwrap();
        let mut testbed = Self { service: None, nats, folder };
        testbed.start_service().await;
        testbed.client().open_account().await;
        testbed
    }

    /// A service with this many partitions, without an account.
    pub async fn with_partitions(partitions: &str) -> Self {
        let folder = Folder::empty();
        let passbook = Passbook::in_folder(&folder).set("PASSBOOK_PARTITIONS", partitions);
        let service = spawn_blocking(|| passbook.start()).await.unwrap();
        Self { service: Some(service), nats: Nats::start().await, folder }
    }

    pub async fn start_service(&mut self) {
        let passbook = Passbook::in_folder(&self.folder);
        self.service = Some(spawn_blocking(|| passbook.start()).await.unwrap());
    }

    /// Stops the service and its embedded Postgres.
    pub async fn stop_service(&mut self) {
        let service = self.service.take().unwrap();
        let ended = spawn_blocking(move || service.stop(Signal::SIGTERM)).await.unwrap();
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    }

    pub fn client(&self) -> Client {
        self.service.as_ref().unwrap().client.clone()
    }

    /// Deposits this many times, one after the other.
    pub async fn deposit(&self, name: &str, count: usize) {
        for number in 0..count {
            self.client().deposit_ok(&format!("{name}-{number}")).await;
        }
    }

    /// The command that starts a relay.
    pub fn relay_command(&self) -> Passbook {
        Passbook::in_folder(&self.folder)
            .argument("relay")
            .argument("nats")
            .set("PASSBOOK_RELAY_NATS_URL", self.nats.url())
            .set("PASSBOOK_RELAY_LISTEN", "127.0.0.1:0")
    }

    pub async fn start_relay(&self) -> Running {
        let relay = self.relay_command();
        spawn_blocking(|| relay.start()).await.unwrap()
    }

    /// The head position of the first partition.
    pub async fn head(&self) -> u64 {
        self.heads().await[0].cast_unsigned()
    }

    /// The head position of each partition.
    async fn heads(&self) -> Vec<i64> {
        let heads = query_scalar("SELECT position FROM log_head ORDER BY partition");
        heads.fetch_all(&mut self.superuser().await).await.unwrap()
    }

    pub async fn superuser(&self) -> PgConnection {
        PgConnection::connect(&self.folder.database_url()).await.unwrap()
    }

    pub async fn execute(&self, sql: &'static str) {
        raw_sql(sql).execute(&mut self.superuser().await).await.unwrap();
    }

    /// Waits until the last sequence of each stream equals the head position of its partition.
    pub async fn wait_until_published(&self) {
        for (partition, head) in (0..).zip(self.heads().await) {
            let is_complete = async || self.nats.last_sequence_of(partition).await == Some(head.cast_unsigned());
            eventually("the stream to reach the log head", is_complete).await;
        }
    }

    /// Waits until everything is published and the relay's checkpoint is at the log head.
    pub async fn wait_for_checkpoint(&self) {
        self.wait_until_published().await;
        for (partition, head) in (0i16..).zip(self.heads().await) {
            let is_saved = async || {
                let checkpoint = query_scalar("SELECT position FROM relay WHERE partition = $1").bind(partition);
                checkpoint.fetch_optional(&mut self.superuser().await).await.unwrap() == Some(head)
            };
            eventually("the relay's checkpoint", is_saved).await;
        }
    }

    /// Starts a relay, publishes this many deposits, and stops the relay.
    pub async fn publish_deposits(&self, reference: &str, deposits: usize) {
        let relay = self.start_relay().await;
        self.deposit(reference, deposits).await;
        self.wait_for_checkpoint().await;
        stop(relay).await;
    }

    /// Compares each stream with its partition of the log, message by message.
    pub async fn assert_streams_match_log(&self) {
        for partition in (0i16..).take(self.heads().await.len()) {
            self.assert_stream_matches(partition).await;
        }
    }

    async fn assert_stream_matches(&self, partition: i16) {
        let sql = "SELECT position, id::text, type, data::text, encode(hash, 'hex') AS hash FROM event
                   WHERE partition = $1 ORDER BY position";
        let events = query(sql).bind(partition).fetch_all(&mut self.superuser().await).await.unwrap();
        // A server of a cluster that was restarted may answer for a moment with less than the stream has.
        let messages = passbook_testkit::eventually("a message for each event", async || {
            Some(self.nats.messages(partition).await).filter(|messages| messages.len() == events.len())
        });
        let messages = messages.await;
        for (event, message) in events.iter().zip(&messages) {
            let position: i64 = event.get("position");
            assert_eq!(message.sequence, position.cast_unsigned());
            let published: Value = serde_json::from_slice(&message.payload).unwrap();
            let id = message.headers.get("Nats-Msg-Id").map(|id| id.as_str());
            assert_eq!((published["id"].as_str(), id), (event.get("id"), event.get("id")), "at {position}");
            assert_eq!(
                (published["hash"].as_str(), published["partition"].as_i64()),
                (event.get("hash"), Some(partition.into()))
            );
            assert_eq!(published["position"], position.to_string());
            assert_eq!(message.subject.as_str(), format!("passbook.{partition}.{}", event.get::<&str, _>("type")));
            let data: &str = event.get("data");
            let text = str::from_utf8(&message.payload).unwrap();
            assert!(text.ends_with(&format!("\"data\":{data}}}")), "the data differs from the event: {text}");
        }
    }
}

/// Stops a relay with SIGTERM, and asserts a graceful shutdown.
pub async fn stop(relay: Running) -> Exited {
    let ended = spawn_blocking(move || relay.stop(Signal::SIGTERM)).await.unwrap();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    ended
}

/// Kills a relay with SIGKILL.
pub async fn kill(relay: Running) {
    spawn_blocking(move || relay.stop(Signal::SIGKILL)).await.unwrap();
}

/// Waits until a relay exits by itself. Returns its error message.
pub async fn wait_for_error(relay: Running) -> String {
    let exited = spawn_blocking(move || relay.process.wait_for_exit()).await.unwrap();
    exited.reason()
}

/// Polls a condition until it is true.
pub async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    passbook_testkit::eventually(what, async || condition().await.then_some(())).await;
}
