//! The request id, the idempotency key and the trace context of a request.

use std::sync::Arc;

use axum::http::HeaderMap;
use uuid::Uuid;

use crate::http::{
    error_code::ErrorCode,
    header_names::{IDEMPOTENCY_KEY, X_REQUEST_ID},
    problem::Problem,
};
use passbook_telemetry::trace::Traceparent;

/// The most characters of an idempotency key.
const KEY_LENGTH_MAX: usize = 255;
/// The most characters of a request id that a client chose.
const REQUEST_ID_LENGTH_MAX: usize = 128;

/// The id of the request: the one that the client sent, or a new one.
#[derive(Clone, Debug)]
pub struct RequestId(pub Arc<str>);

impl RequestId {
    /// The id in `x-request-id`, or a new one if that is absent, too long or not visible ASCII.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let sent = headers.get(X_REQUEST_ID).and_then(|value| value.to_str().ok());
        let is_usable =
            |id: &&str| (1..=REQUEST_ID_LENGTH_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic());
        Self(sent.filter(is_usable).map_or_else(|| Uuid::now_v7().to_string().into(), Arc::from))
    }
}

/// The idempotency key, bare or as a quoted string (RFC 8941); `None` without the header.
///
/// # Errors
/// 400 `invalid_idempotency_key` if the header is malformed or repeated.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let key = value.to_str().ok().and_then(|text| unquote(text.trim()));
    match key {
        Some(key) if is_key(&key) && values.next().is_none() => Ok(Some(key)),
        _ => Err(Problem::from_code(ErrorCode::InvalidIdempotencyKey)),
    }
}

/// The caller's span in its trace (W3C Trace Context); `None` without a single valid header.
pub fn traceparent(headers: &HeaderMap) -> Option<Traceparent> {
    let mut values = headers.get_all("traceparent").iter();
    let value = values.next()?.to_str().ok()?;
    Traceparent::parse(value).filter(|_| values.next().is_none())
}

/// Whether a text can be an idempotency key: 1 to 255 visible ASCII characters.
pub fn is_key(key: &str) -> bool {
    (1..=KEY_LENGTH_MAX).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A bare key unchanged, a quoted key without quotes and escapes; `None` if the quoting is invalid.
fn unquote(text: &str) -> Option<String> {
    let Some(quoted) = text.strip_prefix('"') else { return Some(text.to_owned()) };
    let quoted = quoted.strip_suffix('"')?;
    let mut key = String::with_capacity(quoted.len());
    let mut characters = quoted.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => key.push(characters.next().filter(|escaped| matches!(escaped, '"' | '\\'))?),
            '"' => return None,
            plain => key.push(plain),
        }
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_and_a_quoted_idempotency_key_are_the_same() {
        let key = |value: &str| {
            let headers = HeaderMap::from_iter([(IDEMPOTENCY_KEY, value.parse().expect("a header value"))]);
            idempotency_key(&headers).ok().flatten()
        };
        assert_eq!(key("abc").as_deref(), Some("abc"));
        assert_eq!(key("\"abc\"").as_deref(), Some("abc"));
        assert_eq!(key(r#""a\"\\b""#).as_deref(), Some(r#"a"\b"#));
        for malformed in ["", "\"\"", "\"abc", "\"a\"b\"", "\"a\\b\"", "a b", "ä", &"x".repeat(256)] {
            assert_eq!(key(malformed), None, "{malformed}");
        }
    }
}
