//! The NATS servers that the settings name, and how they are told who comes.

use async_nats::{ConnectOptions, ServerAddr};
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};

use super::Stop;

/// The servers of one cluster.
#[derive(Debug)]
pub(super) struct Servers {
    /// Without anything that is secret.
    pub(super) addresses: Vec<ServerAddr>,
    login: Option<Login>,
}

/// `user:password@`, or `token@`.
#[derive(Debug)]
struct Login {
    user: SecretString,
    password: Option<SecretString>,
}

impl Servers {
    /// Reads one URL, or several with commas between.
    pub(super) fn parse(urls: &SecretString) -> Result<Self, Stop> {
        let mut servers = Self { addresses: vec![], login: None };
        for url in urls.expose_secret().split(',') {
            let address: ServerAddr = url.trim().parse().map_err(|_| Stop::InvalidUrl)?;
            let login = Login::of(&address)?;
            if let (Some(login), Some(known)) = (&login, &servers.login)
                && login.told() != known.told()
            {
                return Err(Stop::SeveralLogins);
            }
            servers.login = servers.login.or(login);
            servers.addresses.push(without_login(address).ok_or(Stop::InvalidUrl)?);
        }
        Ok(servers)
    }

    /// The client reads no user from an address, so it is told here.
    pub(super) fn options(&self) -> ConnectOptions {
        match self.login.as_ref().map(Login::told) {
            Some([Some(user), Some(password)]) => {
                ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned())
            }
            Some([Some(token), None]) => ConnectOptions::with_token(token.to_owned()),
            Some([None, _]) | None => ConnectOptions::new(),
        }
    }
}

impl Login {
    fn of(address: &ServerAddr) -> Result<Option<Self>, Stop> {
        let decode = |text: &str| percent_decode_str(text).decode_utf8().map(|text| text.into_owned().into());
        let user = address.username().map(decode).transpose().map_err(|_| Stop::InvalidUrl)?;
        let password = address.password().map(decode).transpose().map_err(|_| Stop::InvalidUrl)?;
        match (user, password) {
            (Some(user), password) => Ok(Some(Self { user, password })),
            (None, Some(_)) => Err(Stop::InvalidUrl),
            (None, None) => Ok(None),
        }
    }

    fn told(&self) -> [Option<&str>; 2] {
        [Some(&self.user), self.password.as_ref()].map(|secret| secret.map(ExposeSecret::expose_secret))
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

    fn read(urls: &str) -> Result<(String, String), Stop> {
        let servers = Servers::parse(&urls.into())?;
        let addresses: Vec<&str> = servers.addresses.iter().map(ServerAddr::as_url_str).collect();
        let login = servers.login.map(|login| login.told().into_iter().flatten().collect::<Vec<_>>().join(" / "));
        Ok((addresses.join(" "), login.unwrap_or_default()))
    }

    #[test]
    fn who_comes_is_read_from_the_address_and_kept_out_of_it() {
        for (urls, addresses, login) in [
            ("nats://bank:a%40b%3a@n1:4222, tls://n2,n3", "nats://n1:4222 tls://n2 nats://n3", "bank / a@b:"),
            ("nats://t0ken@n1", "nats://n1", "t0ken"),
            ("nats://a:b@n1,nats://a:b@n2", "nats://n1 nats://n2", "a / b"),
            ("n1", "nats://n1", ""),
        ] {
            assert_eq!(read(urls).expect("good ones"), (addresses.to_owned(), login.to_owned()), "{urls}");
        }
        assert!(matches!(read("nats://a:b@n1,nats://a:c@n2"), Err(Stop::SeveralLogins)));
        for broken in ["", "http://n1", "nats://n1,", "nats://%ff:b@n1", "nats://:b@n1"] {
            assert!(matches!(read(broken), Err(Stop::InvalidUrl)), "{broken}");
        }
    }
}
