//! Conditional requests: `If-Match`, `If-None-Match` and `ETag` (RFC 9110).

use axum::http::{HeaderMap, HeaderName, header};

use crate::http::problem::Problem;
use passbook_bank::IfMatch;

/// The condition of `If-Match`; `None` without the header. Tags that are not a version of an account never match.
///
/// # Errors
/// 400 `invalid_parameter` if the header is malformed.
pub fn if_match(headers: &HeaderMap) -> Result<Option<IfMatch>, Problem> {
    Ok(entity_tags(headers, header::IF_MATCH)?.map(|condition| match condition {
        Tags::Any => IfMatch::Any,
        Tags::These(tags) => {
            // Strong comparison (RFC 9110, section 8.8.3.2): a weak tag never matches.
            let strong = tags.iter().filter(|tag| !tag.weak);
            IfMatch::Versions(strong.filter_map(|tag| version(&tag.opaque)).collect())
        }
    }))
}

/// The detail of a problem for an `If-Match` that names the current version, but only with a weak tag.
pub fn weak_match(headers: &HeaderMap, current: i64) -> Option<String> {
    let Ok(Some(Tags::These(tags))) = entity_tags(headers, header::IF_MATCH) else { return None };
    let is_weak_match = tags.iter().any(|tag| tag.weak && version(&tag.opaque) == Some(current));
    is_weak_match.then(|| {
        format!(
            "The account is at version {current}, but If-Match names it with the weak entity tag W/\"{current}\", and a weak \
             entity tag never matches. Send the strong entity tag \"{current}\"."
        )
    })
}

/// The header as sent, for the fingerprint of the request.
pub fn if_match_text(headers: &HeaderMap) -> Vec<u8> {
    let values: Vec<&[u8]> = headers.get_all(header::IF_MATCH).iter().map(|value| value.as_bytes()).collect();
    values.join(&b","[..])
}

/// Whether `If-None-Match` names `etag`, so that the response is 304.
///
/// # Errors
/// 400 `invalid_parameter` if the header is malformed.
pub fn none_match(headers: &HeaderMap, etag: &str) -> Result<bool, Problem> {
    Ok(match entity_tags(headers, header::IF_NONE_MATCH)? {
        None => false,
        Some(Tags::Any) => true,
        Some(Tags::These(tags)) => tags.iter().any(|tag| tag.opaque == etag.trim_matches('"')),
    })
}

/// The ETag of an account in a view: its version, and behind a dot what else the representation depends on. That is the generation
/// of the view from the second one on, and the number of holds that are over and whose expiry is not recorded yet.
pub fn etag(version: i64, generation: i16, unrecorded_expiries: usize) -> String {
    match (generation, unrecorded_expiries) {
        (1, 0) => format!("\"{version}\""),
        (_, 0) => format!("\"{version}.{generation}\""),
        (_, _) => format!("\"{version}.{generation}.{unrecorded_expiries}\""),
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

/// The version before the dot of an account's ETag. What stands behind the dot is opaque.
fn version(opaque: &str) -> Option<i64> {
    let text = opaque.split('.').next().unwrap_or_default();
    text.parse().ok().filter(|number: &i64| *number > 0 && number.to_string() == text)
}

/// `*` or a list of entity tags (RFC 9110, section 8.8.3).
fn entity_tags(headers: &HeaderMap, name: HeaderName) -> Result<Option<Tags>, Problem> {
    let malformed = || {
        let field = if name == header::IF_MATCH { "If-Match" } else { "If-None-Match" };
        Problem::invalid_parameter(field, format!("{field} must be * or a list of entity tags such as \"7\"."))
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
            // Empty elements are ignored (RFC 9110, section 5.6.1).
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

    #[test]
    fn if_match_compares_the_part_before_the_dot_of_strong_tags() {
        let condition = |value: &str| {
            let headers = HeaderMap::from_iter([(header::IF_MATCH, value.parse().expect("a header value"))]);
            if_match(&headers).ok().flatten()
        };
        assert_eq!(condition("\"7\""), Some(IfMatch::Versions(vec![7])));
        assert_eq!(condition("\"7.2\", W/\"8\" , \"x\",\"9\""), Some(IfMatch::Versions(vec![7, 9])));
        assert_eq!(condition("\"7.abc.2\", \"8.\", \".9\""), Some(IfMatch::Versions(vec![7, 8])));
        assert_eq!(condition("*"), Some(IfMatch::Any));
        for malformed in ["", "7", "\"7", "\"7\" \"8\"", "W/7", ","] {
            assert_eq!(condition(malformed), None, "{malformed}");
        }
    }
}
