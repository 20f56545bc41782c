//! The address of the client: the other end of the connection, or what a trusted proxy there reports. Limits count by it where a
//! request has no subject.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use axum::{extract::Request, http::HeaderMap};
use ipnet::IpNet;

use crate::http::header_names::X_FORWARDED_FOR;

/// The size of the IPv6 network that a customer gets. Its addresses count as one.
const IPV6_NETWORK_BITS: u32 = 64;

/// The address of the other end of the connection.
#[derive(Clone, Copy, Debug)]
pub struct PeerAddr(pub SocketAddr);

/// The address of the client.
#[derive(Clone, Copy, Debug)]
pub struct ClientIp(pub IpAddr);

/// The client that a request or a connection counts for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ClientKey {
    /// The subject of a token.
    Caller(Arc<str>),
    /// An IPv4 address, or the network of an IPv6 address.
    Network(IpAddr),
}

impl ClientKey {
    /// The key of requests without a token from this address.
    pub fn of_address(address: IpAddr) -> Self {
        Self::Network(network(address))
    }
}

/// An IPv4 address, or the network that a customer gets of an IPv6 address.
pub fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << (u128::BITS - IPV6_NETWORK_BITS))).into()
        }
    }
}

/// The networks of the proxies whose `X-Forwarded-For` is trusted.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Arc<[IpNet]>);

impl TrustedProxies {
    /// Trusts the proxies in `networks` only.
    pub fn new(networks: &[IpNet]) -> Self {
        Self(networks.into())
    }

    /// The address of the client of `request`; `None` if the connection's address is unknown.
    pub fn client_ip(&self, request: &Request) -> Option<ClientIp> {
        let PeerAddr(peer) = request.extensions().get()?;
        Some(ClientIp(self.resolve(peer.ip().to_canonical(), request.headers())))
    }

    /// The client that a connection counts for; `None` for a trusted proxy, whose connections belong to many clients.
    pub fn connection_client(&self, PeerAddr(peer): PeerAddr) -> Option<ClientKey> {
        let address = peer.ip().to_canonical();
        (!self.trusts(address)).then(|| ClientKey::of_address(address))
    }

    /// Each proxy appends the address of its own client. The list is therefore read from its end, as long as the author of an
    /// entry is trusted. A client can forge all earlier entries.
    fn resolve(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer;
        let lines = headers.get_all(X_FORWARDED_FOR).iter().filter_map(|line| line.to_str().ok());
        let forwarded: Vec<&str> = lines.flat_map(|line| line.split(',')).map(str::trim).collect();
        for address in forwarded.into_iter().rev() {
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

    fn client(peer: &str, forwarded: &[&'static str]) -> String {
        let networks = ["10.0.0.0/8", "127.0.0.1/32"].map(|network| network.parse().expect("a network"));
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_static(line));
        }
        TrustedProxies::new(&networks).resolve(peer.parse().expect("an address"), &headers).to_string()
    }

    #[test]
    fn connections_of_trusted_proxies_count_for_no_client() {
        let proxies = TrustedProxies::new(&["10.0.0.0/8".parse().expect("a network")]);
        let client = |peer: &str| proxies.connection_client(PeerAddr(peer.parse().expect("an address")));
        let network = |address: &str| Some(ClientKey::Network(address.parse().expect("an address")));
        assert_eq!(client("10.1.2.3:4"), None);
        assert_eq!(client("[::ffff:10.1.2.3]:4"), None, "IPv4 on an IPv6 socket");
        assert_eq!(client("192.0.2.1:4"), network("192.0.2.1"));
        assert_eq!(client("[2001:db8:0:1::7]:4"), network("2001:db8:0:1::"));
    }

    #[test]
    fn only_the_entries_that_trusted_proxies_appended_are_trusted() {
        assert_eq!(client("192.0.2.1", &["198.51.100.7"]), "192.0.2.1", "any client can send the header");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(
            client("10.0.0.1", &["203.0.113.9, 198.51.100.7"]),
            "198.51.100.7",
            "the client may have forged the first entry"
        );
        assert_eq!(client("127.0.0.1", &["198.51.100.7, 10.2.3.4"]), "198.51.100.7", "through two proxies");
        assert_eq!(client("127.0.0.1", &["203.0.113.9", "198.51.100.7"]), "198.51.100.7", "two lines are one list");
        assert_eq!(client("10.0.0.1", &["198.51.100.7, nonsense"]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["2001:db8::1"]), "2001:db8::1");
    }
}
