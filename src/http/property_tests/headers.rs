//! Headers: idempotency keys, conditions, content negotiation, request ids, tokens and hosts.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use proptest::{collection::vec, option, prelude::*};

use super::{
    super::{
        extract::{
            caller::bearer_token,
            conditions::{etag, if_match, none_match},
            content_negotiation::{accepts_gzip, preferred},
            headers::{RequestId, idempotency_key},
        },
        header_names::{IDEMPOTENCY_KEY, X_REQUEST_ID},
        middleware::origin_guard::is_loopback,
    },
    bytes, mutated,
};
use passbook_bank::IfMatch;

/// A header with this value; `None` if no header can have it.
fn header(name: &HeaderName, value: &[u8]) -> Option<HeaderMap> {
    Some(HeaderMap::from_iter([(name.clone(), HeaderValue::from_bytes(value).ok()?)]))
}

fn quoted(key: &str) -> String {
    format!("\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\""))
}

fn tag() -> impl Strategy<Value = (bool, i64, (i16, usize))> {
    (any::<bool>(), 1..=i64::MAX, (1..=i16::MAX, 0..=200_usize))
}

fn preference() -> impl Strategy<Value = String> {
    let range = ("[a-z*]{0,4}", "[/;,]?", "[a-z*]{0,4}", option::of("; ?q=[0-9.einfa-]{0,5}"));
    let range = range.prop_map(|(a, b, c, q)| format!("{a}{b}{c}{}", q.unwrap_or_default()));
    let known = prop_oneof![Just("text/csv"), Just("application/json"), Just("*/*"), Just("gzip;q=0.5"), Just("*;q=0")];
    vec(prop_oneof![range, known.prop_map(str::to_owned)], 0..6).prop_map(|ranges| ranges.join(","))
}

proptest! {
    #[test]
    fn arbitrary_idempotency_keys_are_valid_or_rejected(
        value in prop_oneof![bytes(), mutated("\"([!#-Z]|\\\\[\"\\\\]){0,260}\"").prop_map(String::into_bytes)]
    ) {
        let Some(headers) = header(&IDEMPOTENCY_KEY, &value) else { return Ok(()) };
        if let Ok(key) = idempotency_key(&headers) {
            let key = key.expect("there is one");
            prop_assert!((1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()), "{key:?}");
            let again = idempotency_key(&header(&IDEMPOTENCY_KEY, quoted(&key).as_bytes()).expect("a header"));
            prop_assert_eq!(again.ok().flatten(), Some(key));
        }
    }

    #[test]
    fn arbitrary_valid_idempotency_keys_are_accepted_bare_and_quoted(key in "[!-~]{1,255}") {
        let parsed = |text: &str| idempotency_key(&header(&IDEMPOTENCY_KEY, text.as_bytes()).expect("a header")).ok().flatten();
        prop_assert_eq!(parsed(&quoted(&key)), Some(key.clone()));
        if !key.starts_with('"') {
            prop_assert_eq!(parsed(&key), Some(key));
        }
    }

    #[test]
    fn arbitrary_conditions_are_entity_tags_or_rejected(
        value in prop_oneof![bytes(), mutated("((W/)?\"[0-9.x]{0,20}\" ?,? ?){0,9}").prop_map(String::into_bytes)]
    ) {
        let Some(headers) = header(&header::IF_MATCH, &value) else { return Ok(()) };
        if let Ok(condition) = if_match(&headers) {
            match condition.expect("there is one") {
                IfMatch::Any => prop_assert!(value.contains(&b'*')),
                IfMatch::Versions(versions) => {
                    prop_assert!(versions.iter().all(|version| *version > 0), "{versions:?}");
                    prop_assert!(value.iter().filter(|byte| **byte == b'"').count() >= 2 * versions.len());
                }
            }
        }
        let headers = header(&header::IF_NONE_MATCH, &value).expect("a header");
        let _ = none_match(&headers, "\"7\"");
    }

    #[test]
    fn arbitrary_etags_are_parsed_back(tags in vec(tag(), 1..9), separator in " ?, ?") {
        let texts = tags.iter().map(|(weak, version, (generation, holds_over))| {
            format!("{}{}", if *weak { "W/" } else { "" }, etag(*version, *generation, *holds_over))
        });
        let text = texts.collect::<Vec<_>>().join(&separator);
        let strong: Vec<i64> = tags.iter().filter(|(weak, ..)| !weak).map(|(_, version, _)| *version).collect();
        let parsed = if_match(&header(&header::IF_MATCH, text.as_bytes()).expect("a header"));
        prop_assert_eq!(parsed.ok().flatten(), Some(IfMatch::Versions(strong)));
        let headers = header(&header::IF_NONE_MATCH, text.as_bytes()).expect("a header");
        for (_, version, (generation, holds_over)) in tags {
            prop_assert_eq!(none_match(&headers, &etag(version, generation, holds_over)).ok(), Some(true));
        }
    }

    #[test]
    fn arbitrary_accept_headers_select_an_available_type_or_none(
        value in prop_oneof![bytes(), mutated(preference()).prop_map(String::into_bytes)]
    ) {
        let available = ["application/json", "text/csv"];
        let Some(headers) = header(&header::ACCEPT, &value) else { return Ok(()) };
        if let Some(chosen) = preferred(&headers, &available) {
            prop_assert!(available.contains(&chosen));
        }
    }

    #[test]
    fn arbitrary_accept_encodings_accept_gzip_only_if_they_name_it_or_all(
        value in prop_oneof![bytes(), mutated(preference()).prop_map(String::into_bytes)]
    ) {
        let Some(headers) = header(&header::ACCEPT_ENCODING, &value) else { return Ok(()) };
        let text = String::from_utf8_lossy(&value).to_ascii_lowercase();
        prop_assert!(!accepts_gzip(&headers) || text.contains("gzip") || text.contains('*'), "{text}");
    }

    #[test]
    fn arbitrary_request_ids_are_logged_short_and_visible(value in bytes()) {
        let Ok(value) = HeaderValue::from_bytes(&value) else { return Ok(()) };
        let RequestId(id) = RequestId::from_headers(&HeaderMap::from_iter([(X_REQUEST_ID, value)]));
        prop_assert!((1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()), "{id}");
    }

    #[test]
    fn arbitrary_authorization_headers_have_a_bearer_token_or_none(
        value in prop_oneof![bytes(), mutated("(?i)bearer {0,3}[a-z.]{0,9} ?").prop_map(String::into_bytes)]
    ) {
        let Some(headers) = header(&header::AUTHORIZATION, &value) else { return Ok(()) };
        if let Ok(token) = bearer_token(&headers) {
            prop_assert!(!token.is_empty() && value.to_ascii_lowercase().starts_with(b"bearer "), "{token:?}");
        }
    }

    #[test]
    fn arbitrary_loopback_hosts_are_localhost_or_loopback_addresses(
        host in prop_oneof!["\\PC{0,40}", mutated("(localhost|127\\.[0-9]{1,3}\\.0\\.1|\\[::1\\])(:[0-9]{0,5})?")]
    ) {
        if is_loopback(&host) {
            let host = host.to_ascii_lowercase();
            prop_assert!(["localhost", "127.", "["].iter().any(|start| host.starts_with(start)), "{host}");
            let is_ordinary = |c: char| c.is_ascii_alphanumeric() || ".:[]".contains(c);
            prop_assert!(host.chars().all(is_ordinary), "{host}");
        }
    }
}
