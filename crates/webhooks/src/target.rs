//! The URL of an endpoint, and the addresses that its host has. Both are checked when the URL is registered, and the addresses again for
//! each connection: the connection goes to an address that was checked, never to the answer of a second look-up.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};
use tokio::{net::lookup_host, time::timeout};

use crate::address::is_public;

/// The longest URL, in bytes.
pub const URL_BYTES_MAX: usize = 2_048;
/// How long a look-up at registration may take.
const LOOK_UP_S_MAX: u64 = 5;

/// Why no events can be sent to a URL. Each message is a sentence for the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUrl {
    /// It is too long.
    #[error("url must have at most {URL_BYTES_MAX} bytes.")]
    TooLong,
    /// It is no URL with a host.
    #[error("url must be an absolute URL such as `https://example.com/hooks`.")]
    NotAbsolute,
    /// The content could be read on the way.
    #[error("url must begin with `https://`.")]
    NotHttps,
    /// It contains a user name or a password.
    #[error("url must not contain a user name or a password.")]
    UserInfo,
    /// A fragment is never sent.
    #[error("url must not contain a fragment.")]
    Fragment,
    /// Its host has an address of a private network.
    #[error("The host of url has the address {0}, which is not a public address.")]
    NotPublic(IpAddr),
    /// Its host has no address.
    #[error("The host of url has no address.")]
    Unknown,
}

/// Looks up the addresses of a host.
pub trait LookUp: Send + Sync {
    /// The addresses.
    fn look_up(&self, host: String) -> BoxFuture<'_, std::io::Result<Vec<IpAddr>>>;
}

/// The resolver of the system.
pub struct SystemLookUp;

impl LookUp for SystemLookUp {
    fn look_up(&self, host: String) -> BoxFuture<'_, std::io::Result<Vec<IpAddr>>> {
        Box::pin(async move { Ok(lookup_host((host, 0)).await?.map(|address| address.ip()).collect()) })
    }
}

/// The targets that are allowed.
#[derive(Clone)]
pub struct Targets {
    look_up: Arc<dyn LookUp>,
    /// Whether `http` and private addresses are allowed.
    allow_private: bool,
}

impl Targets {
    /// The targets of a service.
    pub fn new(look_up: Arc<dyn LookUp>, allow_private: bool) -> Self {
        Self { look_up, allow_private }
    }

    /// The URL, if events can be sent to it now.
    ///
    /// # Errors
    /// It is invalid, or one of its addresses is not allowed.
    pub async fn check(&self, text: &str) -> Result<Url, InvalidUrl> {
        let url = self.parse(text)?;
        if self.allow_private {
            return Ok(url);
        }
        let addresses = match literal(&url) {
            Some(address) => vec![address],
            None => {
                let host = url.host_str().unwrap_or_default().to_owned();
                let looking_up = timeout(Duration::from_secs(LOOK_UP_S_MAX), self.look_up.look_up(host));
                looking_up.await.ok().and_then(Result::ok).unwrap_or_default()
            }
        };
        only_public(&addresses).map(|_| url)
    }

    /// The form of the URL, without a look-up.
    pub(crate) fn parse(&self, text: &str) -> Result<Url, InvalidUrl> {
        if text.len() > URL_BYTES_MAX {
            return Err(InvalidUrl::TooLong);
        }
        // The parser would leave these out, or store what Postgres cannot.
        if text.chars().any(|character| character.is_control() || character.is_whitespace()) {
            return Err(InvalidUrl::NotAbsolute);
        }
        let url = Url::parse(text).map_err(|_| InvalidUrl::NotAbsolute)?;
        match url.scheme() {
            "https" => {}
            "http" if self.allow_private => {}
            "http" => return Err(InvalidUrl::NotHttps),
            _ => return Err(InvalidUrl::NotAbsolute),
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(InvalidUrl::NotAbsolute);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidUrl::UserInfo);
        }
        if url.fragment().is_some() {
            return Err(InvalidUrl::Fragment);
        }
        Ok(url)
    }

    /// The URL before a connection. Its host is checked by the resolver; an address in the URL is not looked up, so it is checked here.
    pub(crate) fn before_connection(&self, text: &str) -> Result<Url, InvalidUrl> {
        let url = self.parse(text)?;
        match literal(&url) {
            Some(address) if !self.allow_private && !is_public(address) => Err(InvalidUrl::NotPublic(address)),
            Some(_) | None => Ok(url),
        }
    }
}

/// The address that a URL names in place of a host name.
fn literal(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// The addresses, if there are some and all are public. A host with one private address is refused: the next connection could choose it.
fn only_public(addresses: &[IpAddr]) -> Result<&[IpAddr], InvalidUrl> {
    match addresses.iter().find(|address| !is_public(**address)) {
        Some(address) => Err(InvalidUrl::NotPublic(*address)),
        None if addresses.is_empty() => Err(InvalidUrl::Unknown),
        None => Ok(addresses),
    }
}

impl Resolve for Targets {
    fn resolve(&self, name: Name) -> Resolving {
        let targets = self.clone();
        Box::pin(async move {
            let addresses = targets.look_up.look_up(name.as_str().to_owned()).await?;
            if !targets.allow_private {
                only_public(&addresses)?;
            }
            let addresses: Vec<SocketAddr> = addresses.into_iter().map(|address| (address, 0).into()).collect();
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A name server that answers each query with the next list.
    struct Changing(Vec<Vec<&'static str>>, AtomicUsize);

    impl LookUp for Changing {
        fn look_up(&self, _: String) -> BoxFuture<'_, std::io::Result<Vec<IpAddr>>> {
            let answer = self.1.fetch_add(1, Ordering::Relaxed).min(self.0.len() - 1);
            let addresses = self.0[answer].iter().map(|address| address.parse().expect("an address")).collect();
            Box::pin(async move { Ok(addresses) })
        }
    }

    fn targets(answers: &[&[&'static str]]) -> Targets {
        let answers = answers.iter().map(|answer| answer.to_vec()).collect();
        Targets::new(Arc::new(Changing(answers, AtomicUsize::new(0))), false)
    }

    #[tokio::test]
    async fn urls_that_can_leak_or_reach_the_own_network_are_refused() {
        for (url, error) in [
            ("http://example.com/", InvalidUrl::NotHttps),
            ("ftp://example.com/", InvalidUrl::NotAbsolute),
            ("example.com/hooks", InvalidUrl::NotAbsolute),
            ("https://", InvalidUrl::NotAbsolute),
            ("https://example.com/\0", InvalidUrl::NotAbsolute),
            ("https://example.com/a\tb", InvalidUrl::NotAbsolute),
            (" https://example.com/", InvalidUrl::NotAbsolute),
            ("https://ada@example.com/", InvalidUrl::UserInfo),
            ("https://:secret@example.com/", InvalidUrl::UserInfo),
            ("https://example.com/#part", InvalidUrl::Fragment),
            ("https://127.0.0.1/", InvalidUrl::NotPublic([127, 0, 0, 1].into())),
            ("https://0x7f.1/", InvalidUrl::NotPublic([127, 0, 0, 1].into())),
            ("https://2130706433/", InvalidUrl::NotPublic([127, 0, 0, 1].into())),
            ("https://[::ffff:10.0.0.1]/", InvalidUrl::NotPublic("::ffff:10.0.0.1".parse().expect("an address"))),
        ] {
            assert_eq!(targets(&[&["8.8.8.8"]]).check(url).await, Err(error), "{url}");
        }
        let long = format!("https://example.com/{}", "x".repeat(URL_BYTES_MAX));
        assert_eq!(targets(&[&["8.8.8.8"]]).check(&long).await, Err(InvalidUrl::TooLong));
        assert!(targets(&[&["8.8.8.8"]]).check("https://example.com:8443/hooks?a=b").await.is_ok());
    }

    #[tokio::test]
    async fn a_host_with_one_private_address_is_refused() {
        let checked = targets(&[&["8.8.8.8", "10.0.0.1"]]).check("https://example.com/").await;
        assert_eq!(checked, Err(InvalidUrl::NotPublic([10, 0, 0, 1].into())));
        assert_eq!(targets(&[&[]]).check("https://example.com/").await, Err(InvalidUrl::Unknown));
    }

    #[tokio::test]
    async fn a_host_that_changes_its_address_after_the_check_is_not_connected_to() {
        let targets = targets(&[&["8.8.8.8"], &["127.0.0.1"]]);
        assert!(targets.check("https://example.com/").await.is_ok());
        let resolved = targets.resolve("example.com".parse().expect("a name")).await;
        let error = resolved.err().expect("no address").to_string();
        assert!(error.contains("127.0.0.1"), "{error}");
    }
}
