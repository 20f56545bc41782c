//! The preferences of a client (RFC 7240).

use axum::http::HeaderMap;

use super::content_negotiation::split;
use crate::http::header_names::PREFER;

/// Whether the client prefers a short response: `return=minimal`. Of a repeated preference only the first instance counts (section 2).
pub fn prefers_minimal(headers: &HeaderMap) -> bool {
    let values = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    let preferences = values.flat_map(|value| split(value, ',')).map(|preference| split(preference, ';')[0]);
    let named = preferences.map(|preference| preference.split_once('=').unwrap_or((preference, "")));
    let mut returns = named.filter(|(name, _)| name.trim().eq_ignore_ascii_case("return"));
    returns.next().is_some_and(|(_, value)| value.trim().trim_matches('"').eq_ignore_ascii_case("minimal"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_minimal(values: &[&'static str]) -> bool {
        let values = values.iter().map(|value| (PREFER, value.parse().expect("a header value")));
        let mut headers = HeaderMap::new();
        values.for_each(|(name, value)| {
            headers.append(name, value);
        });
        prefers_minimal(&headers)
    }

    #[test]
    fn first_return_preference_counts() {
        for minimal in [
            "return=minimal",
            "Return = minimal",
            "return=\"minimal\"",
            "respond-async, wait=10, return=minimal",
            "return=minimal; foo=\"a,return=representation\"",
            "return=minimal, return=representation",
            "foo=\"return=representation, x\", return=minimal",
        ] {
            assert!(is_minimal(&[minimal]), "{minimal}");
        }
        for full in [
            "",
            "minimal",
            "return",
            "return=",
            "return=minimally",
            "return=representation",
            "returns=minimal",
            "return=representation, return=minimal",
            "handling=strict; return=minimal",
            "foo=\"return=minimal\"",
        ] {
            assert!(!is_minimal(&[full]), "{full}");
        }
        assert!(is_minimal(&["respond-async", "return=minimal"]));
        assert!(!is_minimal(&[]));
    }
}
