//! Where a request comes from: the other end of the connection, or whom a trusted proxy there speaks for.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName},
};
use ipnet::IpNet;

/// What a proxy adds of the address that it was asked from.
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The other end of the connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// Who asks, as far as an address tells.
#[derive(Clone, Copy, Debug)]
pub struct Client(pub IpAddr);

/// The networks whose `X-Forwarded-For` is believed.
#[derive(Clone, Debug, Default)]
pub struct Proxies(Arc<[IpNet]>);

impl Proxies {
    /// Believes these and nobody else.
    pub fn new(networks: &[IpNet]) -> Self {
        Self(networks.into())
    }

    /// Who asks.
    pub fn client(&self, request: &Request) -> Option<Client> {
        let Peer(peer) = request.extensions().get()?;
        Some(Client(self.behind(peer.ip().to_canonical(), request.headers())))
    }

    /// Each proxy adds, behind what it was told, whom it was told by. So the list is read from its end for as long as
    /// who wrote it is trusted; what stands before that is anybody's word.
    fn behind(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer;
        let lines = headers.get_all(X_FORWARDED_FOR).iter().filter_map(|line| line.to_str().ok());
        let told: Vec<&str> = lines.flat_map(|line| line.split(',')).map(str::trim).collect();
        for address in told.into_iter().rev() {
            match address.parse::<IpAddr>() {
                Ok(address) if self.trusts(client) => client = address.to_canonical(),
                Ok(_) | Err(_) => break,
            }
        }
        client
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn client(peer: &str, told: &[&'static str]) -> String {
        let networks = ["10.0.0.0/8", "127.0.0.1/32"].map(|network| network.parse().expect("a network"));
        let mut headers = HeaderMap::new();
        for line in told {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_static(line));
        }
        Proxies::new(&networks).behind(peer.parse().expect("an address"), &headers).to_string()
    }

    #[test]
    fn only_a_trusted_proxy_is_believed_and_only_what_it_wrote_itself() {
        assert_eq!(client("192.0.2.1", &["198.51.100.7"]), "192.0.2.1", "anybody can send the header");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(
            client("10.0.0.1", &["203.0.113.9, 198.51.100.7"]),
            "198.51.100.7",
            "the first is the client's own word"
        );
        assert_eq!(client("127.0.0.1", &["198.51.100.7, 10.2.3.4"]), "198.51.100.7", "through two proxies");
        assert_eq!(client("127.0.0.1", &["203.0.113.9", "198.51.100.7"]), "198.51.100.7", "two lines are one list");
        assert_eq!(client("10.0.0.1", &["198.51.100.7, nonsense"]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["2001:db8::1"]), "2001:db8::1");
    }
}
