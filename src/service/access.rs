//! The access control and the rate limit that the settings describe.

use std::{num::NonZeroU32, sync::Arc};

use super::Error;
use crate::config::{Auth, Config};
use crate::http;
use passbook_auth::{self as auth, Access, TokenVerifier};

/// The default rate limit of each caller on a non-loopback address, in requests a second.
const RATE_LIMIT_PER_SECOND: u32 = 1_000;

/// Whether a setting turns access control on. An incomplete setting counts: the start then fails with an error, and never
/// leaves the service open.
pub fn is_controlled(config: &Config) -> bool {
    config.provider.auth_issuer.is_some()
        || config.auth_jwks_file.is_some()
        || config.provider.auth_audience.is_some()
        || config.auth_client_id.is_some()
}

/// The access control of the service.
///
/// # Errors
/// The settings are incomplete or unsafe, or the keys cannot be read.
pub async fn access(config: &Config) -> Result<Access, auth::Error> {
    if !is_controlled(config) {
        return Ok(match config.auth {
            Some(Auth::Off) => Access::Off,
            None => Access::Loopback,
        });
    }
    Ok(Access::Tokens(Arc::new(TokenVerifier::new(settings(config)).await?)))
}

/// Checks the settings without reading keys.
///
/// # Errors
/// They are incomplete, unsafe, or contradict each other.
pub fn check(config: &Config) -> Result<(), Error> {
    match (config.auth, is_controlled(config)) {
        (Some(Auth::Off), true) => Err(Error::ContradictoryAuth),
        (None, true) => Ok(settings(config).check()?),
        (None, false) if !config.listen.ip().is_loopback() => Err(Error::OpenToNetwork(config.listen)),
        (None | Some(Auth::Off), false) => Ok(()),
    }
}

fn settings(config: &Config) -> auth::Settings {
    auth::Settings {
        issuer: config.provider.auth_issuer.clone(),
        audience: config.provider.auth_audience.clone(),
        jwks_file: config.auth_jwks_file.clone(),
    }
}

/// The sign-in of the console.
///
/// # Errors
/// A client id without a provider, or with one that has no secure URL.
pub fn sign_in(config: &Config) -> Result<Option<http::SignIn>, Error> {
    let Some(client_id) = &config.auth_client_id else { return Ok(None) };
    let issuer = config.provider.auth_issuer.as_deref().ok_or(Error::ClientIdWithoutIssuer)?;
    let sign_in = http::SignIn::new(issuer, client_id, config.provider.auth_audience.as_deref());
    sign_in.map(Some).ok_or(Error::ClientIdWithoutIssuer)
}

/// The rate limit of each caller; `None`: no limit.
pub fn rate_limiter(config: &Config) -> Option<http::RateLimiter> {
    let default = if config.listen.ip().is_loopback() { 0 } else { RATE_LIMIT_PER_SECOND };
    let per_second = NonZeroU32::new(config.rate_limit_per_second.unwrap_or(default))?;
    Some(http::RateLimiter::new(per_second, config.rate_limit_burst.unwrap_or(per_second)))
}
