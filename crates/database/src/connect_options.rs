//! Turns the operator's settings into connection options, and adds the options that every connection needs.

use std::{
    fs,
    path::{Path, PathBuf},
    str::FromStr,
};

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::PgConnectOptions;

use super::error::Error;
use passbook_embedded_postgres as embedded;
use passbook_event_store::PrimaryConnector;

/// The operator's choice of a database.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// A Postgres URL, or several separated by commas. `None`: the embedded Postgres.
    pub url: Option<SecretString>,
    /// A file that contains the URL, instead of `url`.
    pub url_file: Option<PathBuf>,
    /// The URL of a streaming replica for queries.
    pub read_url: Option<SecretString>,
    /// The data folder of the embedded Postgres. `None`: the default of the operating system's user.
    pub data_dir: Option<PathBuf>,
    /// The folder that contains `postgres` and `initdb`. `None`: the usual folders are searched.
    pub pg_bin: Option<PathBuf>,
}

/// The data folder of the embedded Postgres, if the settings name `data_dir`.
pub fn data_dir(data_dir: Option<&Path>) -> PathBuf {
    data_dir.map_or_else(embedded::default_data_dir, Path::to_owned)
}

pub(super) fn embedded_settings(settings: &Settings) -> embedded::Settings {
    embedded::Settings {
        data_dir: data_dir(settings.data_dir.as_deref()),
        bin: settings.pg_bin.clone(),
        parameters: vec![],
    }
}

/// Creates a connector from a URL, or from several separated by commas.
pub(super) fn connector(urls: &SecretString) -> Result<PrimaryConnector, Error> {
    let servers = urls.expose_secret().split(',').map(|url| parse(url.trim()).map(with_session_settings));
    Ok(PrimaryConnector::new(servers.collect::<Option<_>>().ok_or(Error::InvalidUrl)?))
}

pub(super) fn replica(settings: &Settings) -> Result<Option<PgConnectOptions>, Error> {
    let replica = settings.read_url.as_ref().map(|url| parse(url.expose_secret()).map(with_session_settings));
    replica.map(|replica| replica.ok_or(Error::InvalidReadUrl)).transpose()
}

/// Checks the URLs without connecting.
///
/// # Errors
/// One of them is missing, given twice or not a URL of Postgres.
pub fn check(settings: &Settings) -> Result<(), Error> {
    if let Some(urls) = url(settings)? {
        connector(&urls)?;
    }
    replica(settings).map(drop)
}

/// Returns the URL from the environment or from the file. A file protects the password better than the environment, which
/// other processes can read.
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

/// Parses a URL. sqlx accepts any scheme, so the scheme is checked; sqlx's error is dropped because it may contain the password.
fn parse(url: &str) -> Option<PgConnectOptions> {
    let is_postgres = ["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme));
    PgConnectOptions::from_str(url).ok().filter(|_| is_postgres)
}

/// Adds the session settings of every connection, so that the defaults of the server, the database and the role do not matter.
///
/// After waiting for a lock, a statement must see the rows that the lock's holder has committed: only READ COMMITTED does. The
/// timeouts release the log-head lock if an instance freezes while it holds the lock. Other timeouts are off unless a use sets
/// them. JIT compilation is too slow for short queries.
pub(super) fn with_session_settings(options: PgConnectOptions) -> PgConnectOptions {
    options.options([
        ("default_transaction_isolation", "read committed"),
        ("default_transaction_deferrable", "off"),
        ("timezone", "UTC"),
        ("datestyle", "ISO"),
        ("statement_timeout", "0"),
        ("idle_session_timeout", "0"),
        ("jit", "off"),
        ("lock_timeout", "2s"),
        ("idle_in_transaction_session_timeout", "2s"),
    ])
}
