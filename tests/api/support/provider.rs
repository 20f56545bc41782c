//! An OpenID Connect provider of the test's own: it publishes keys, counts who asks, changes them, and goes away.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{Json, Router, routing::get};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

use super::tokens::Signer;

/// A provider that is there.
pub struct Provider {
    address: SocketAddr,
    keys: Arc<Mutex<Vec<Value>>>,
    asked: Arc<AtomicUsize>,
    server: Option<JoinHandle<()>>,
}

impl Provider {
    pub async fn with(signers: &[&Signer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut provider = Self { address, keys: Arc::default(), asked: Arc::default(), server: None };
        provider.publish(signers);
        provider.server = Some(provider.serve(listener));
        provider
    }

    /// What it calls itself.
    pub fn issuer(&self) -> String {
        format!("http://{}", self.address)
    }

    /// These keys, and no others.
    pub fn publish(&self, signers: &[&Signer]) {
        *self.keys.lock().unwrap() = signers.iter().map(|signer| signer.jwk()).collect();
    }

    /// How often somebody read its keys.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Nobody answers any more.
    pub async fn goes_away(&mut self) {
        let server = self.server.take().unwrap();
        server.abort();
        let _ = server.await;
    }

    /// The same provider, back again.
    pub async fn comes_back(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.server = Some(self.serve(listener));
    }

    fn serve(&self, listener: TcpListener) -> JoinHandle<()> {
        let (issuer, keys, asked) = (self.issuer(), Arc::clone(&self.keys), Arc::clone(&self.asked));
        let discovery = json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys")});
        let published = move || {
            asked.fetch_add(1, Ordering::SeqCst);
            let keys = keys.lock().unwrap().clone();
            async move { Json(json!({"keys": keys})) }
        };
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(move || async move { Json(discovery) }))
            .route("/keys", get(published));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() })
    }
}
