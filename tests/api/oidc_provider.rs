//! An OpenID Connect provider for tests: it publishes keys, counts requests for them, rotates them, and can be stopped. The tests of
//! the console add endpoints for users who sign in.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Json, Router,
    http::{HeaderName, header},
    routing::get,
};
use passbook_testkit::tokens::Signer;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

/// Permits scripts of every site to read a response.
pub const PAGES_OF_ALL_SITES: (HeaderName, &str) = (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");

/// A provider on a port of its own.
pub struct OidcProvider {
    address: SocketAddr,
    keys: Arc<Mutex<Vec<Value>>>,
    request_count: Arc<AtomicUsize>,
    /// More members of the discovery document.
    metadata: Value,
    /// More endpoints.
    endpoints: Router,
    server: Option<JoinHandle<()>>,
}

impl OidcProvider {
    pub async fn start(signers: &[&Signer]) -> Self {
        Self::start_with(signers, |_| (json!({}), Router::new())).await
    }

    /// Starts a provider with more endpoints, and the members of the discovery document that describe them. `describe` gets the
    /// issuer.
    pub async fn start_with(signers: &[&Signer], describe: impl FnOnce(&str) -> (Value, Router)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (metadata, endpoints) = describe(&format!("http://{address}"));
        let (keys, request_count) = (Arc::default(), Arc::default());
        let mut provider = Self { address, keys, request_count, metadata, endpoints, server: None };
        provider.publish(signers);
        provider.server = Some(provider.serve(listener));
        provider
    }

    /// The issuer in the provider's discovery document.
    pub fn issuer(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Replaces the published keys.
    pub fn publish(&self, signers: &[&Signer]) {
        *self.keys.lock().unwrap() = signers.iter().map(|signer| signer.jwk()).collect();
    }

    /// How often the keys were requested.
    pub fn request_count(&self) -> usize {
        self.request_count.load(Ordering::SeqCst)
    }

    /// Stops listening.
    pub async fn stop(&mut self) {
        let server = self.server.take().unwrap();
        server.abort();
        let _ = server.await;
    }

    /// Listens on the same address again.
    pub async fn restart(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.server = Some(self.serve(listener));
    }

    fn serve(&self, listener: TcpListener) -> JoinHandle<()> {
        let (issuer, keys, request_count) = (self.issuer(), Arc::clone(&self.keys), Arc::clone(&self.request_count));
        let mut discovery = self.metadata.clone();
        discovery["issuer"] = json!(issuer);
        discovery["jwks_uri"] = json!(format!("{issuer}/keys"));
        let published = move || {
            request_count.fetch_add(1, Ordering::SeqCst);
            let keys = keys.lock().unwrap().clone();
            async move { Json(json!({"keys": keys})) }
        };
        let router = Router::new()
            .route(
                "/.well-known/openid-configuration",
                get(move || async move { ([PAGES_OF_ALL_SITES], Json(discovery)) }),
            )
            .route("/keys", get(published))
            .merge(self.endpoints.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() })
    }
}
