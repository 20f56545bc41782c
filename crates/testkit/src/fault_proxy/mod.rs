//! A proxy in front of Postgres that injects network faults.
//!
//! It can refuse, cut or freeze all connections. For each [`ProxyConnection`] it can hold or discard the messages of a
//! direction. A [`FaultRule`] chooses one request and loses or delays it or its response. Cutting a connection ends it
//! for the client only: requests that the client has sent still reach Postgres later, as in a real network.

mod connection;
mod protocol;
mod rule;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    endpoint::{Endpoint, url_at},
    eventually,
};

pub use connection::ProxyConnection;
pub use protocol::Write;
pub use rule::{Fault, FaultRule, Flow, RequestMatch};

/// A listener that forwards connections to Postgres. Its connections end when it is dropped.
pub struct FaultProxy {
    address: SocketAddr,
    state: Arc<ProxyState>,
    _accept_loop: AbortOnDropHandle<()>,
}

struct ProxyState {
    server: Endpoint,
    is_accepting: AtomicBool,
    frozen: watch::Sender<bool>,
    /// The rule for the connections with this `application_name`.
    rule: Mutex<Option<(&'static str, FaultRule)>>,
    connections: Mutex<Vec<ProxyConnection>>,
}

impl FaultProxy {
    /// Starts a proxy for this Postgres.
    pub async fn start(server: Endpoint) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(ProxyState {
            server,
            is_accepting: AtomicBool::new(true),
            frozen: watch::Sender::new(false),
            rule: Mutex::default(),
            connections: Mutex::default(),
        });
        let accept_loop = tokio::spawn(accept_connections(listener, Arc::clone(&state)));
        Self { address, state, _accept_loop: AbortOnDropHandle::new(accept_loop) }
    }

    /// The address on which the proxy listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL through the proxy of the database that `url` names.
    pub fn database_url(&self, url: &str) -> String {
        url_at(url, self.address)
    }

    /// Every open connection, oldest first.
    pub fn connections(&self) -> Vec<ProxyConnection> {
        self.state.connections.lock().unwrap().iter().filter(|connection| !connection.is_closed()).cloned().collect()
    }

    /// Every open connection with this `application_name`, oldest first.
    pub fn connections_named(&self, application: &str) -> Vec<ProxyConnection> {
        self.connections().into_iter().filter(|connection| connection.application() == application).collect()
    }

    /// The newest open connection with this `application_name`; waits for one.
    pub async fn newest_connection(&self, application: &str) -> ProxyConnection {
        eventually(application, async || self.connections_named(application).pop()).await
    }

    /// Simulates an unreachable database: cuts every connection and rejects new ones.
    pub fn disconnect(&self) {
        self.state.is_accepting.store(false, Ordering::SeqCst);
        self.connections().iter().for_each(ProxyConnection::cut);
    }

    /// Accepts connections again.
    pub fn reconnect(&self) {
        self.state.is_accepting.store(true, Ordering::SeqCst);
    }

    /// Simulates a frozen database: accepts connections and messages but forwards nothing.
    pub fn freeze(&self) {
        self.state.frozen.send_replace(true);
    }

    /// Forwards all messages that [`freeze`](Self::freeze) held, and new ones.
    pub fn thaw(&self) {
        self.connections().iter().for_each(ProxyConnection::cancel_freeze);
        self.state.frozen.send_replace(false);
    }

    /// Ends the faults that affect the whole proxy. The flows of single connections stay.
    pub fn restore(&self) {
        self.reconnect();
        self.thaw();
    }

    /// Applies this rule to the connections with this `application_name`, also to new ones. It replaces the previous
    /// rule.
    pub fn set_rule(&self, application: &'static str, rule: FaultRule) {
        *self.state.rule.lock().unwrap() = Some((application, rule));
    }

    /// Removes the rule.
    pub fn clear_rule(&self) {
        *self.state.rule.lock().unwrap() = None;
    }

    /// Whether no request has matched the rule yet.
    pub fn is_rule_pending(&self) -> bool {
        self.state.rule.lock().unwrap().is_some()
    }
}

async fn accept_connections(listener: TcpListener, state: Arc<ProxyState>) {
    // Dropped with this task, and every connection with it.
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        // A rejected connection is dropped; the client sees that it ends.
        if state.is_accepting.load(Ordering::SeqCst) {
            connections.spawn(Arc::clone(&state).serve(client));
        }
    }
}

impl ProxyState {
    async fn serve(self: Arc<Self>, mut client: TcpStream) {
        if let Some(startup) = protocol::read_startup(&mut client).await {
            let connection = self.register(&startup);
            connection.serve(&self, client, startup).await;
        }
    }

    fn register(&self, startup: &[u8]) -> ProxyConnection {
        let connection = ProxyConnection::new(startup);
        let mut connections = self.connections.lock().unwrap();
        connections.retain(|connection| !connection.is_closed());
        connections.push(connection.clone());
        if !self.is_accepting.load(Ordering::SeqCst) {
            // `disconnect` was called after the connection was accepted.
            connection.cut();
        }
        connection
    }
}
