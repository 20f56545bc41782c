//! The headers that conditions, retries and traces travel in: `Idempotency-Key`, `If-Match`, `If-None-Match`, `ETag`,
//! `traceparent`.

use axum::http::{HeaderMap, header};

use super::problem::{Code, Problem};
use passbook_bank::IfMatch;
use passbook_telemetry::trace::Traceparent;

const KEY_LENGTH_MAX: usize = 255;

/// The request's idempotency key, if it has one: bare, or a quoted string of RFC 8941.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let key = value.to_str().ok().and_then(|text| unquote(text.trim()));
    match key {
        Some(key) if is_key(&key) && values.next().is_none() => Ok(Some(key)),
        _ => Err(Problem::of(Code::InvalidIdempotencyKey)),
    }
}

/// The caller's place in a trace, if the request says one.
pub fn traceparent(headers: &HeaderMap) -> Option<Traceparent> {
    let mut values = headers.get_all("traceparent").iter();
    let value = values.next()?.to_str().ok()?;
    Traceparent::parse(value).filter(|_| values.next().is_none())
}

fn is_key(key: &str) -> bool {
    (1..=KEY_LENGTH_MAX).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A bare key as it is; a quoted one without quotes and escapes, or `None` where the quoting is broken.
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

/// The condition of `If-Match`, if the request has one. Tags that are no version of ours never match.
pub fn if_match(headers: &HeaderMap) -> Result<Option<IfMatch>, Problem> {
    Ok(entity_tags(headers, header::IF_MATCH)?.map(|condition| match condition {
        Tags::Any => IfMatch::Any,
        Tags::These(tags) => {
            // Strong comparison (RFC 9110, section 8.8.3.2): a weak tag matches nothing.
            let strong = tags.iter().filter(|tag| !tag.weak);
            IfMatch::Versions(strong.filter_map(|tag| version(&tag.opaque)).collect())
        }
    }))
}

/// The condition as it was sent, for the fingerprint of a request.
pub fn if_match_text(headers: &HeaderMap) -> Vec<u8> {
    let values: Vec<&[u8]> = headers.get_all(header::IF_MATCH).iter().map(|value| value.as_bytes()).collect();
    values.join(&b","[..])
}

/// Whether `If-None-Match` names `etag`: the caller has this representation already.
pub fn none_match(headers: &HeaderMap, etag: &str) -> Result<bool, Problem> {
    Ok(match entity_tags(headers, header::IF_NONE_MATCH)? {
        None => false,
        Some(Tags::Any) => true,
        Some(Tags::These(tags)) => tags.iter().any(|tag| tag.opaque == etag.trim_matches('"')),
    })
}

/// An account's ETag: its version, and the view's generation once that has been rebuilt.
pub fn etag(version: i64, generation: i16) -> String {
    match generation {
        1 => format!("\"{version}\""),
        _ => format!("\"{version}.{generation}\""),
    }
}

enum Tags {
    Any,
    These(Vec<Tag>),
}

struct Tag {
    weak: bool,
    opaque: String,
}

/// The version before the dot of an ETag of ours.
fn version(opaque: &str) -> Option<i64> {
    let (version, generation) = opaque.split_once('.').unwrap_or((opaque, "1"));
    let number = |text: &str| text.parse().ok().filter(|number: &i64| *number > 0 && number.to_string() == text);
    number(version).filter(|_| number(generation).is_some())
}

/// `*` or a list of entity tags (RFC 9110, section 8.8.3).
fn entity_tags(headers: &HeaderMap, name: header::HeaderName) -> Result<Option<Tags>, Problem> {
    let malformed = || {
        let detail = format!("{name} holds * or entity tags such as \"7\"");
        Problem::field(
            Code::InvalidParameter,
            if name == header::IF_MATCH { "If-Match" } else { "If-None-Match" },
            detail,
        )
    };
    let mut tags = Vec::new();
    let mut values = headers.get_all(&name).iter().peekable();
    if values.peek().is_none() {
        return Ok(None);
    }
    for value in values {
        let mut rest = value.to_str().map_err(|_| malformed())?.trim();
        if rest == "*" {
            return Ok(Some(Tags::Any));
        }
        while !rest.is_empty() {
            // Empty elements are passed over (RFC 9110, section 5.6.1).
            if let Some(next) = rest.strip_prefix(',') {
                rest = next.trim_start();
                continue;
            }
            let (weak, quoted) = rest.strip_prefix("W/").map_or((false, rest), |quoted| (true, quoted));
            let (opaque, after) =
                quoted.strip_prefix('"').and_then(|opaque| opaque.split_once('"')).ok_or_else(malformed)?;
            tags.push(Tag { weak, opaque: opaque.to_owned() });
            let after = after.trim_start();
            if !after.is_empty() && !after.starts_with(',') {
                return Err(malformed());
            }
            rest = after;
        }
    }
    match tags.is_empty() {
        true => Err(malformed()),
        false => Ok(Some(Tags::These(tags))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().expect("a header value"))])
    }

    #[test]
    fn a_key_is_bare_or_quoted_and_the_same_key_either_way() {
        let key =
            |value| idempotency_key(&headers(header::HeaderName::from_static("idempotency-key"), value)).ok().flatten();
        assert_eq!(key("abc").as_deref(), Some("abc"));
        assert_eq!(key("\"abc\"").as_deref(), Some("abc"));
        assert_eq!(key(r#""a\"\\b""#).as_deref(), Some(r#"a"\b"#));
        for broken in ["", "\"\"", "\"abc", "\"a\"b\"", "\"a\\b\"", "a b", "ä", &"x".repeat(256)] {
            assert_eq!(key(broken), None, "{broken}");
        }
    }

    #[test]
    fn if_match_compares_what_stands_before_the_dot_and_no_weak_tag() {
        let condition = |value| if_match(&headers(header::IF_MATCH, value)).ok().flatten();
        assert_eq!(condition("\"7\""), Some(IfMatch::Versions(vec![7])));
        assert_eq!(condition("\"7.2\", W/\"8\" , \"x\",\"9\""), Some(IfMatch::Versions(vec![7, 9])));
        assert_eq!(condition("*"), Some(IfMatch::Any));
        for broken in ["", "7", "\"7", "\"7\" \"8\"", "W/7", ","] {
            assert_eq!(condition(broken), None, "{broken}");
        }
    }
}
