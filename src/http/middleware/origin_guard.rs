//! Rejects requests that pages of other web sites send, or that a proxy forwards, while access control is off.
//!
//! A browser on this machine reaches a service on a loopback address, and so does every page that is open in it. The page
//! connects directly, or through its own host name that resolves to this address (DNS rebinding). With access control on, the
//! guard is not needed, because a foreign page has no token.

use std::{future::Future, net::IpAddr};

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, Method, header},
    response::{IntoResponse, Response},
};

use crate::http::problem::Problem;
use passbook_auth::Access;

const FOREIGN_HOST: &str =
    "Without access control, only requests to a loopback host are accepted. Use http://127.0.0.1 or http://localhost.";
const FORWARDED: &str = "Without access control on a loopback address, only programs on this machine are served, and a proxy forwarded \
     this request. Turn access control on (PASSBOOK_AUTH_ISSUER or PASSBOOK_AUTH_JWKS_FILE), or set PASSBOOK_AUTH=off to \
     serve every client of the proxy.";
const CROSS_SITE: &str = "Without access control, requests from pages of other web sites are rejected.";

/// Rejects a request with a foreign host, through a proxy, or from a page of another site.
pub async fn reject_cross_site<F: Future<Output = Response>>(
    access: &Access,
    request: Request,
    next: impl FnOnce(Request) -> F,
) -> Response {
    let reason = match access {
        Access::Tokens(_) => None,
        Access::Off => cross_site_request(&request),
        Access::Loopback => foreign_host(request.headers())
            .or_else(|| forwarded(request.headers()))
            .or_else(|| cross_site_request(&request)),
    };
    match reason {
        Some(reason) => Problem::forbidden(reason, None).into_response(),
        None => next(request).await,
    }
}

/// A foreign page can make any host name resolve to this machine, except its loopback names.
fn foreign_host(headers: &HeaderMap) -> Option<&'static str> {
    let is_own = headers.get_all(header::HOST).iter().all(|host| host.to_str().is_ok_and(is_loopback));
    (!is_own).then_some(FOREIGN_HOST)
}

/// A proxy on this machine reaches the loopback address for clients elsewhere, and passes on a loopback `Host` by default.
fn forwarded(headers: &HeaderMap) -> Option<&'static str> {
    let is_added_by_proxies = |name: &HeaderName| {
        let name = name.as_str();
        matches!(name, "forwarded" | "via" | "x-real-ip") || name.starts_with("x-forwarded-")
    };
    headers.keys().any(is_added_by_proxies).then_some(FORWARDED)
}

/// A request that a page of another site makes, except navigation to a page of this service. Browsers report the site in
/// `Sec-Fetch-Site`, older ones in `Origin` (Fetch Metadata Request Headers, section 2).
fn cross_site_request(request: &Request) -> Option<&'static str> {
    let headers = request.headers();
    let is_cross_site = match headers.get("sec-fetch-site") {
        Some(site) => site != "same-origin" && site != "none",
        None => headers.get(header::ORIGIN).is_some_and(|origin| !is_own_origin(origin.as_bytes(), headers)),
    };
    let is_navigation = request.method() == Method::GET
        && headers.get("sec-fetch-mode").is_some_and(|mode| mode == "navigate")
        && headers.get("sec-fetch-dest").is_some_and(|destination| destination == "document");
    (is_cross_site && !is_navigation).then_some(CROSS_SITE)
}

fn is_own_origin(origin: &[u8], headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).map(|host| host.as_bytes());
    let authority = [&b"http://"[..], b"https://"].iter().find_map(|scheme| origin.strip_prefix(*scheme));
    authority.is_some() && authority == host
}

/// Whether a `Host` is a loopback address or `localhost`, with or without a port.
pub(in crate::http) fn is_loopback(host: &str) -> bool {
    // `u16::from_str` accepts a sign, which a port must not have.
    let is_port_number = |port: &str| port.is_empty() || port.parse::<u16>().is_ok() && !port.starts_with('+');
    let (name, has_valid_port) = match host.strip_prefix('[') {
        Some(bracketed) => match bracketed.split_once(']') {
            Some((name, rest)) => (name, rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port_number)),
            None => return false,
        },
        None => host.split_once(':').map_or((host, true), |(name, rest)| (name, is_port_number(rest))),
    };
    let address = name.parse::<IpAddr>();
    has_valid_port && (name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback()))
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn only_loopback_addresses_and_localhost_are_loopback_hosts() {
        for host in ["localhost", "LocalHost:8080", "127.0.0.1", "127.0.0.1:1", "127.1.2.3:80", "[::1]", "[::1]:8080"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "bank",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.1.nip.io:80",
            "localhost:http",
            "[::1]:+80",
            "127.0.0.1:+80",
            "[::1",
            "[::1]x",
            "::1",
            "0.0.0.0",
            "10.0.0.1",
            "localhost@evil",
            "evil@localhost",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
