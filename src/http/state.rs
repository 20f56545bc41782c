//! The state that all handlers and middleware share.

use std::{ops::Deref, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{extract::client_ip::TrustedProxies, rate_limiter::RateLimiter, sign_in::SignIn};
use passbook_audit::{Audit, feed::Feed};
use passbook_auth::Access;
use passbook_bank::Bank;
use passbook_checkpoint::Checkpoints;
use passbook_keys::Keys;
use passbook_read_model::ReadModel;
use passbook_webhooks::Webhooks;

/// The parts of the service that requests use.
pub struct Services {
    /// Executes commands.
    pub bank: Bank,
    /// Answers queries.
    pub read_model: ReadModel,
    /// Verifies the log and reads its heads.
    pub audit: Audit,
    /// Reads and streams the events of the log.
    pub feed: Feed,
    /// Signs checkpoints of the log.
    pub checkpoints: Checkpoints,
    /// The keys that seal stored secrets.
    pub keys: Keys,
    /// Sends events to endpoints.
    pub webhooks: Webhooks,
    /// How callers are authenticated.
    pub access: Access,
    /// How users sign in to the console; `None`: they paste a token.
    pub sign_in: Option<SignIn>,
    /// Limits the requests of each caller; `None`: no limit.
    pub rate_limiter: Option<RateLimiter>,
    /// The proxies whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: TrustedProxies,
    /// How long a connection may wait for its next request.
    pub idle_timeout: Duration,
    /// Cancelled when shutdown begins: `/readyz` then answers 503 while requests are still served, so that load balancers send
    /// new requests elsewhere.
    pub draining: CancellationToken,
    /// Cancelled when no further requests are accepted and those in flight are completed.
    pub shutdown: CancellationToken,
}

/// A handle to the shared [`Services`], cheap to clone for each request.
#[derive(Clone)]
pub struct AppState(Arc<Services>);

impl AppState {
    /// Shares `services`.
    pub fn new(services: Services) -> Self {
        Self(Arc::new(services))
    }
}

impl Deref for AppState {
    type Target = Services;

    fn deref(&self) -> &Services {
        &self.0
    }
}
