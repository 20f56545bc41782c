//! Who is let in at all while access control is off: nobody whom a web page of somebody else sends.
//!
//! A browser on this machine reaches a bank on a loopback address, and so does every page that is open in it: directly, or
//! by a name of the page's own that was made to lead here (DNS rebinding). With access control on there is nothing to guard
//! here: a page has no token.

use std::net::IpAddr;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::problem::Problem;
use passbook_auth::Access;

/// Turns away who comes by a wrong name, or from another site.
pub async fn guard(State(access): State<Access>, request: Request, next: Next) -> Response {
    let refused = match access {
        Access::Tokens(_) => None,
        Access::Off => anothers_page(&request),
        Access::Loopback => anothers_name(request.headers()).or_else(|| anothers_page(&request)),
    };
    match refused {
        Some(reason) => Problem::forbidden(reason, None).into_response(),
        None => next.run(request).await,
    }
}

/// A name other than this machine's own for itself may lead here by somebody's will.
fn anothers_name(headers: &HeaderMap) -> Option<&'static str> {
    let is_ours = headers.get_all(header::HOST).iter().all(|host| host.to_str().is_ok_and(is_loopback));
    (!is_ours).then_some(
        "while access control is off only a loopback name is served: use http://127.0.0.1 or http://localhost",
    )
}

/// What another site's page asks for, but for showing a page of ours as a whole. Browsers tell by `Sec-Fetch-Site`, older
/// ones by `Origin` (Fetch Metadata Request Headers, section 2).
fn anothers_page(request: &Request) -> Option<&'static str> {
    let headers = request.headers();
    let is_foreign = match headers.get("sec-fetch-site") {
        Some(site) => site != "same-origin" && site != "none",
        None => headers.get(header::ORIGIN).is_some_and(|origin| !is_origin_of(origin.as_bytes(), headers)),
    };
    let is_shown = request.method() == Method::GET
        && headers.get("sec-fetch-mode").is_some_and(|mode| mode == "navigate")
        && headers.get("sec-fetch-dest").is_some_and(|shown| shown == "document");
    (is_foreign && !is_shown).then_some("while access control is off no page of another site is served")
}

fn is_origin_of(origin: &[u8], headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).map(|host| host.as_bytes());
    let authority = [&b"http://"[..], b"https://"].iter().find_map(|scheme| origin.strip_prefix(*scheme));
    authority.is_some() && authority == host
}

/// Whether it is a loopback address or `localhost`, with or without a port.
pub(super) fn is_loopback(host: &str) -> bool {
    // A number may have a sign, and a port has none.
    let port = |port: &str| port.is_empty() || port.parse::<u16>().is_ok() && !port.starts_with('+');
    let (name, is_port) = match host.strip_prefix('[') {
        Some(bracketed) => match bracketed.split_once(']') {
            Some((name, rest)) => (name, rest.is_empty() || rest.strip_prefix(':').is_some_and(port)),
            None => return false,
        },
        None => host.split_once(':').map_or((host, true), |(name, rest)| (name, port(rest))),
    };
    let address = name.parse::<IpAddr>();
    is_port && (name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback()))
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn a_loopback_name_is_one_that_cannot_be_made_to_lead_elsewhere() {
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
