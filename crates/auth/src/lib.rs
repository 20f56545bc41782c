//! Who asks, and what they may. [`Authority`] turns a bearer token into a [`Caller`] with [`Scope`]s; the keys that it
//! trusts come from an OpenID Connect provider or from a file. It knows no HTTP server and no bank.

mod authority;
mod caller;
mod claims;
pub mod development;
mod fetch;
#[cfg(test)]
mod fuzz;
mod keyring;
mod keys;
mod memory;
mod scope;
mod source;

use std::sync::Arc;

pub use authority::{Authority, Refused, Settings};
pub use caller::{ANONYMOUS, Caller, MissingScope};
pub use scope::{Scope, Scopes};
pub use source::Error;

/// How access is controlled.
#[derive(Clone)]
pub enum Access {
    /// Nothing was said: open, and so only to programs of this machine that name it as such.
    Loopback,
    /// Open to everybody, as was said in so many words.
    Off,
    /// By bearer tokens.
    Tokens(Arc<Authority>),
}
