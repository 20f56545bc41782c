//! The relay's settings: the NATS servers with their login, and the streams' names.

use std::path::PathBuf;

use async_nats::{ConnectOptions, ServerAddr};
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};

use super::error::FatalError;

/// The NATS servers and the streams that the relay publishes to.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `nats://user:password@host:4222` or `nats://token@host`; several servers of one cluster are separated by commas.
    pub url: SecretString,
    /// A credentials file in the format of the NATS tools (`nsc`).
    pub credentials: Option<PathBuf>,
    /// The prefix of the streams' names; a dash and the partition follow.
    pub stream: String,
    /// Creates a missing stream again, and publishes again the events that a truncated stream no longer contains.
    pub refill: bool,
}

impl Settings {
    /// Checks the values that can be checked without a connection.
    pub(super) fn validate(&self) -> Result<(), FatalError> {
        Servers::parse(&self.url)?;
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        match !self.stream.is_empty() && self.stream.chars().all(is_allowed) {
            true => Ok(()),
            false => Err(FatalError::InvalidStreamName(self.stream.clone())),
        }
    }
}

/// The servers of one NATS cluster.
#[derive(Debug)]
pub(super) struct Servers {
    /// The addresses without the login, so that they can be logged.
    pub(super) addresses: Vec<ServerAddr>,
    login: Option<Login>,
}

/// The login of a URL: `user:password@` or `token@`.
#[derive(Debug)]
struct Login {
    /// The user's name, or the token where there is no password.
    user: SecretString,
    password: Option<SecretString>,
}

impl Servers {
    /// Parses one URL, or several separated by commas.
    ///
    /// # Errors
    /// [`FatalError::InvalidUrl`] or [`FatalError::DifferentLogins`].
    pub(super) fn parse(urls: &SecretString) -> Result<Self, FatalError> {
        let mut servers = Self { addresses: vec![], login: None };
        for url in urls.expose_secret().split(',') {
            let address: ServerAddr = url.trim().parse().map_err(|_| FatalError::InvalidUrl)?;
            let login = Login::parse(&address)?;
            if let (Some(login), Some(previous)) = (&login, &servers.login)
                && login.expose() != previous.expose()
            {
                return Err(FatalError::DifferentLogins);
            }
            servers.login = servers.login.or(login);
            servers.addresses.push(without_login(address).ok_or(FatalError::InvalidUrl)?);
        }
        Ok(servers)
    }

    /// Connect options with the login. The NATS client does not read a login from the address.
    pub(super) fn options(&self) -> ConnectOptions {
        match self.login.as_ref().map(Login::expose) {
            Some((user, Some(password))) => {
                ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned())
            }
            Some((token, None)) => ConnectOptions::with_token(token.to_owned()),
            None => ConnectOptions::new(),
        }
    }
}

impl Login {
    fn parse(address: &ServerAddr) -> Result<Option<Self>, FatalError> {
        let decode = |text: &str| percent_decode_str(text).decode_utf8().map(|text| text.into_owned().into());
        let user = address.username().map(decode).transpose().map_err(|_| FatalError::InvalidUrl)?;
        let password = address.password().map(decode).transpose().map_err(|_| FatalError::InvalidUrl)?;
        match (user, password) {
            (Some(user), password) => Ok(Some(Self { user, password })),
            (None, Some(_)) => Err(FatalError::InvalidUrl),
            (None, None) => Ok(None),
        }
    }

    fn expose(&self) -> (&str, Option<&str>) {
        (self.user.expose_secret(), self.password.as_ref().map(ExposeSecret::expose_secret))
    }
}

fn without_login(address: ServerAddr) -> Option<ServerAddr> {
    let mut url = address.into_inner();
    url.set_username("").ok()?;
    url.set_password(None).ok()?;
    ServerAddr::from_url(url).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The addresses and the login of these URLs.
    fn parse(urls: &str) -> Result<(String, String), FatalError> {
        let servers = Servers::parse(&urls.into())?;
        let addresses: Vec<&str> = servers.addresses.iter().map(ServerAddr::as_url_str).collect();
        let login = servers.login.as_ref().map(Login::expose);
        let login = login.map(|(user, password)| [Some(user), password].into_iter().flatten().collect::<Vec<_>>());
        Ok((addresses.join(" "), login.unwrap_or_default().join(" / ")))
    }

    #[test]
    fn the_login_is_parsed_and_removed_from_the_addresses() {
        for (urls, addresses, login) in [
            ("nats://bank:a%40b%3a@n1:4222, tls://n2,n3", "nats://n1:4222 tls://n2 nats://n3", "bank / a@b:"),
            ("nats://t0ken@n1", "nats://n1", "t0ken"),
            ("nats://a:b@n1,nats://a:b@n2", "nats://n1 nats://n2", "a / b"),
            ("n1", "nats://n1", ""),
        ] {
            assert_eq!(parse(urls).expect("valid URLs"), (addresses.to_owned(), login.to_owned()), "{urls}");
        }
        assert!(matches!(parse("nats://a:b@n1,nats://a:c@n2"), Err(FatalError::DifferentLogins)));
        for invalid in ["", "http://n1", "nats://n1,", "nats://%ff:b@n1", "nats://:b@n1"] {
            assert!(matches!(parse(invalid), Err(FatalError::InvalidUrl)), "{invalid}");
        }
    }
}
