//! Access control: the authentication of callers, and their permissions.
//!
//! [`TokenVerifier`] turns a bearer token into a [`Caller`] with [`Scope`]s. The public keys come from an OpenID Connect
//! provider or from a JWKS file. This crate knows no HTTP server and no account.

mod caller;
mod claims;
pub mod development;
mod jwks;
mod jwks_cache;
mod jwks_source;
#[cfg(test)]
mod property_tests;
mod ring_provider;
mod scope;
mod token_cache;
mod verifier;

use std::sync::Arc;

pub use caller::{ANONYMOUS, Caller, EXPIRY, MissingScope, RESERVED_SUBJECTS, WEBHOOKS};
pub use jwks_source::{Error, secure_url};
pub use ring_provider::install as install_crypto_provider;
pub use scope::{Scope, Scopes};
pub use verifier::{Settings, TokenError, TokenVerifier};

/// How access is controlled.
#[derive(Clone)]
pub enum Access {
    /// No setting: open, but only to programs on this machine that address it by a loopback name.
    Loopback,
    /// Open to every client that reaches the address, by an explicit setting.
    Off,
    /// By bearer tokens.
    Tokens(Arc<TokenVerifier>),
}
