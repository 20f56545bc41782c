//! Content negotiation (RFC 9110, section 12.5): the media type of a response, and whether it may be compressed.

use axum::http::{HeaderMap, header};

/// The media type that `Accept` prefers among `available`, the earlier one if it has no preference; `None` if it accepts
/// none of them.
pub fn preferred<'a>(headers: &HeaderMap, available: &[&'a str]) -> Option<&'a str> {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let ranges: Vec<MediaRange<'_>> = values.flat_map(|value| split(value, ',')).filter_map(media_range).collect();
    if ranges.is_empty() {
        return available.first().copied();
    }
    // With equal weights, a type that was named goes before one that only `*/*` matches.
    let weighed = available.iter().filter_map(|media_type| {
        let range = ranges.iter().filter_map(|range| range.matches(media_type)).max_by_key(|found| found.0)?;
        Some((range.1, range.0, *media_type))
    });
    let acceptable = weighed.filter(|(weight, ..)| *weight > 0);
    acceptable.rev().max_by_key(|(weight, precision, _)| (*weight, *precision)).map(|(.., media_type)| media_type)
}

/// A range of media types with its weight, such as `text/*;q=0.5`.
struct MediaRange<'a> {
    kind: &'a str,
    subtype: &'a str,
    /// The weight in thousandths.
    weight: u16,
}

impl MediaRange<'_> {
    /// How precisely the range names the media type, and its weight; `None` if it does not match.
    fn matches(&self, media_type: &str) -> Option<(u8, u16)> {
        let (kind, subtype) = media_type.split_once('/')?;
        let precision = match (self.kind, self.subtype) {
            ("*", "*") => 0,
            (wanted, "*") if wanted.eq_ignore_ascii_case(kind) => 1,
            (wanted, exactly) if wanted.eq_ignore_ascii_case(kind) && exactly.eq_ignore_ascii_case(subtype) => 2,
            _ => return None,
        };
        Some((precision, self.weight))
    }
}

/// Splits a list at a separator, but not within quotes.
pub(super) fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    let parts = text.split(|character| {
        let separates = character == separator && !quoted;
        quoted ^= character == '"' && !escaped;
        escaped = quoted && character == '\\' && !escaped;
        separates
    });
    parts.map(str::trim).collect()
}

/// A media range with its weight; `None` if it is invalid and therefore ignored.
fn media_range(element: &str) -> Option<MediaRange<'_>> {
    let mut parts = split(element, ';').into_iter();
    let (kind, subtype) = parts.next()?.split_once('/')?;
    let named = parts.find_map(|parameter| parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q=")));
    let weight = named.map_or(Some(1_000), weight)?;
    let usable = !kind.is_empty() && !subtype.is_empty() && (kind != "*" || subtype == "*");
    usable.then_some(MediaRange { kind: kind.trim(), subtype: subtype.trim(), weight })
}

/// A weight from 0 to 1 with at most three decimals, in thousandths.
fn weight(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let is_number = decimals.len() <= 3 && decimals.bytes().all(|byte| byte.is_ascii_digit());
    let thousandths = format!("{decimals:0<3}").parse::<u16>().ok().filter(|_| is_number)?;
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(1_000),
        _ => None,
    }
}

/// Whether the client accepts gzip. A client that does not gets an uncompressed response, even if it accepts no encoding at all
/// (RFC 9110, section 12.5.3): the command may have been executed.
pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let codings: Vec<(&str, f32)> = values.flat_map(|value| value.split(',')).map(coding).collect();
    let weight_of = |name: &str| codings.iter().find(|(coding, _)| coding.eq_ignore_ascii_case(name)).map(|(_, w)| *w);
    weight_of("gzip").or(weight_of("*")).is_some_and(|weight| weight > 0.0)
}

/// A coding and its weight, such as `gzip;q=0.5`.
fn coding(element: &str) -> (&str, f32) {
    let (name, parameters) = element.split_once(';').unwrap_or((element, ""));
    let weight = parameters.trim().strip_prefix("q=").map_or(1.0, |weight| weight.trim().parse().unwrap_or(0.0));
    (name.trim(), weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(accept: &str) -> Option<&'static str> {
        let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().expect("a header value"))]);
        preferred(&headers, &["application/json", "text/csv"])
    }

    #[test]
    fn the_most_precise_range_gives_the_weight_and_the_highest_weight_wins() {
        let (json, csv) = (Some("application/json"), Some("text/csv"));
        assert_eq!(preferred(&HeaderMap::new(), &["application/json", "text/csv"]), json);
        let expected = [
            ("", json),
            ("*/*", json),
            ("text/csv", csv),
            ("TEXT/CSV; charset=utf-8", csv),
            ("text/*", csv),
            ("text/csv, */*", csv),
            ("text/csv, application/json", json),
            ("text/csv, application/json;q=0.9", csv),
            ("text/csv;q=0.5, application/json;q=0.501", json),
            ("text/csv;q=0.5,*/*;q=0.1", csv),
            ("*/*, application/json;q=0", csv),
            ("text/*;q=0.9, text/csv;q=0.1, application/json;q=0.5", json),
            ("text/html, application/xhtml+xml, */*;q=0.8", json),
            ("application/json;profile=\"a,text/csv;q=1\";q=0.2, text/csv;q=0.3", csv),
            ("nonsense, text/csv", csv),
            ("nonsense", json),
            ("text/csv;q=2, application/json;q=0.1", json),
            ("text/csv;q=0", None),
            ("text/html", None),
            ("*/*;q=0", None),
            ("text/csv;q=0.000, application/*;q=0.0", None),
        ];
        for (accept, expected) in expected {
            assert_eq!(chosen(accept), expected, "{accept}");
        }
    }
}
