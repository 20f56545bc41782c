//! The servers that the settings name, and what holds on every connection to them.

use std::{fs, str::FromStr};

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::PgConnectOptions;

use super::{Error, Settings};
use passbook_event_store::Primary;

/// The server of a URL, or several with commas between.
pub(super) fn servers(urls: &SecretString) -> Result<Primary, Error> {
    let servers = urls.expose_secret().split(',').map(|url| parse(url.trim()).map(with_settings));
    Ok(Primary::new(servers.collect::<Option<_>>().ok_or(Error::InvalidUrl)?))
}

pub(super) fn replica(settings: &Settings) -> Result<Option<PgConnectOptions>, Error> {
    let url = settings.read_url.as_ref().map(|url| parse(url.expose_secret()).map(with_settings));
    url.map(|replica| replica.ok_or(Error::InvalidReadUrl)).transpose()
}

/// The configured database, which may be told in a file: an environment is seen by more people.
pub(super) fn url(settings: &Settings) -> Result<Option<SecretString>, Error> {
    match (&settings.url, &settings.url_file) {
        (Some(_), Some(_)) => Err(Error::TwoUrls),
        (None, Some(path)) => match fs::read_to_string(path) {
            Ok(text) => Ok(Some(text.trim().into())),
            Err(source) => Err(Error::UrlFile { path: path.clone(), source }),
        },
        (url, None) => Ok(url.clone()),
    }
}

/// The parser takes any scheme, and its own error may quote the password.
fn parse(url: &str) -> Option<PgConnectOptions> {
    let is_postgres = ["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme));
    PgConnectOptions::from_str(url).ok().filter(|_| is_postgres)
}

/// What holds on every connection: times in UTC, nothing compiled for a millisecond's query, and an instance that
/// froze inside the turnstile does not hold up the others.
pub(super) fn with_settings(options: PgConnectOptions) -> PgConnectOptions {
    options.options([
        ("timezone", "UTC"),
        ("jit", "off"),
        ("lock_timeout", "2s"),
        ("idle_in_transaction_session_timeout", "2s"),
    ])
}
