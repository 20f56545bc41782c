//! Keys, conditions, preferences, names and tokens, as headers bring them.

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, header},
};
use proptest::{collection::vec, option, prelude::*};

use super::{
    super::{accept::preferred, caller::bearer, door::is_loopback, envelope, headers::*},
    bytes, mutated,
};
use passbook_bank::IfMatch;

const KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A header with this value, where it can be one.
fn header(name: &HeaderName, value: &[u8]) -> Option<HeaderMap> {
    Some(HeaderMap::from_iter([(name.clone(), HeaderValue::from_bytes(value).ok()?)]))
}

fn quoted(key: &str) -> String {
    format!("\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\""))
}

fn tag() -> impl Strategy<Value = (bool, i64, i16)> {
    (any::<bool>(), 1..=i64::MAX, 1..=i16::MAX)
}

fn preference() -> impl Strategy<Value = String> {
    let range = ("[a-z*]{0,4}", "[/;,]?", "[a-z*]{0,4}", option::of("; ?q=[0-9.einfa-]{0,5}"));
    let range = range.prop_map(|(a, b, c, q)| format!("{a}{b}{c}{}", q.unwrap_or_default()));
    let known = prop_oneof![Just("text/csv"), Just("application/json"), Just("*/*"), Just("gzip;q=0.5"), Just("*;q=0")];
    vec(prop_oneof![range, known.prop_map(str::to_owned)], 0..6).prop_map(|ranges| ranges.join(","))
}

proptest! {
    #[test]
    fn whatever_comes_as_a_key_is_one_of_the_contract_or_refused(
        value in prop_oneof![bytes(), mutated("\"([!#-Z]|\\\\[\"\\\\]){0,260}\"").prop_map(String::into_bytes)]
    ) {
        let Some(headers) = header(&KEY, &value) else { return Ok(()) };
        if let Ok(key) = idempotency_key(&headers) {
            let key = key.expect("there is one");
            prop_assert!((1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()), "{key:?}");
            let again = idempotency_key(&header(&KEY, quoted(&key).as_bytes()).expect("a header"));
            prop_assert_eq!(again.ok().flatten(), Some(key));
        }
    }

    #[test]
    fn whatever_key_is_of_the_contract_is_taken_bare_and_quoted(key in "[!-~]{1,255}") {
        let taken = |text: &str| idempotency_key(&header(&KEY, text.as_bytes()).expect("a header")).ok().flatten();
        prop_assert_eq!(taken(&quoted(&key)), Some(key.clone()));
        if !key.starts_with('"') {
            prop_assert_eq!(taken(&key), Some(key));
        }
    }

    #[test]
    fn whatever_comes_as_a_condition_is_tags_or_refused(
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
    fn whatever_etags_are_made_are_read_back(tags in vec(tag(), 1..9), separator in " ?, ?") {
        let texts = tags.iter().map(|(weak, version, generation)| {
            format!("{}{}", if *weak { "W/" } else { "" }, etag(*version, *generation))
        });
        let text = texts.collect::<Vec<_>>().join(&separator);
        let strong: Vec<i64> = tags.iter().filter(|(weak, ..)| !weak).map(|(_, version, _)| *version).collect();
        let read = if_match(&header(&header::IF_MATCH, text.as_bytes()).expect("a header"));
        prop_assert_eq!(read.ok().flatten(), Some(IfMatch::Versions(strong)));
        let headers = header(&header::IF_NONE_MATCH, text.as_bytes()).expect("a header");
        for (_, version, generation) in tags {
            prop_assert_eq!(none_match(&headers, &etag(version, generation)).ok(), Some(true));
        }
    }

    #[test]
    fn whatever_is_preferred_is_one_of_what_is_had(
        value in prop_oneof![bytes(), mutated(preference()).prop_map(String::into_bytes)]
    ) {
        let had = ["application/json", "text/csv"];
        let Some(headers) = header(&header::ACCEPT, &value) else { return Ok(()) };
        if let Some(chosen) = preferred(&headers, &had) {
            prop_assert!(had.contains(&chosen));
        }
    }

    #[test]
    fn whatever_encodings_are_taken_gzip_is_left_of_them_or_nothing(
        value in prop_oneof![bytes(), mutated(preference()).prop_map(String::into_bytes)]
    ) {
        let Ok(value) = HeaderValue::from_bytes(&value) else { return Ok(()) };
        let request = Request::builder().header(header::ACCEPT_ENCODING, value).body(Body::empty()).expect("a request");
        let request = envelope::gzip_or_identity(request);
        let left: Vec<_> = request.headers().get_all(header::ACCEPT_ENCODING).iter().collect();
        prop_assert!(left.is_empty() || left == ["gzip"], "{left:?}");
    }

    #[test]
    fn whatever_id_a_request_has_the_one_that_is_logged_is_short_and_visible(value in bytes()) {
        let Ok(value) = HeaderValue::from_bytes(&value) else { return Ok(()) };
        let request = Request::builder().header("x-request-id", value).body(Body::empty()).expect("a request");
        let id = envelope::request_id(&request);
        prop_assert!((1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()), "{id}");
    }

    #[test]
    fn whatever_is_taken_for_a_token_stands_behind_the_word_bearer(
        value in prop_oneof![bytes(), mutated("(?i)bearer {0,3}[a-z.]{0,9} ?").prop_map(String::into_bytes)]
    ) {
        let Some(headers) = header(&header::AUTHORIZATION, &value) else { return Ok(()) };
        if let Ok(token) = bearer(&headers) {
            prop_assert!(!token.is_empty() && value.to_ascii_lowercase().starts_with(b"bearer "), "{token:?}");
        }
    }

    #[test]
    fn whatever_name_passes_for_this_machine_is_localhost_or_a_loopback_address(
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
