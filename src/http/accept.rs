//! Which form of an answer the caller prefers (RFC 9110, section 12.5.1).

use axum::http::{HeaderMap, header};

/// Of the media types that are had, the one that `Accept` prefers, the earlier one where it has no preference; `None`
/// where it takes none of them.
pub fn preferred<'a>(headers: &HeaderMap, had: &[&'a str]) -> Option<&'a str> {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let ranges: Vec<Range<'_>> = values.flat_map(|value| split(value, ',')).filter_map(range).collect();
    if ranges.is_empty() {
        return had.first().copied();
    }
    // Of equal weight is rather what was named than what `*/*` lets pass.
    let weighed = had.iter().filter_map(|media_type| {
        let range = ranges.iter().filter_map(|range| range.matches(media_type)).max_by_key(|found| found.0)?;
        Some((range.1, range.0, *media_type))
    });
    let acceptable = weighed.filter(|(weight, ..)| *weight > 0);
    acceptable.rev().max_by_key(|(weight, precision, _)| (*weight, *precision)).map(|(.., media_type)| media_type)
}

struct Range<'a> {
    kind: &'a str,
    subtype: &'a str,
    /// In thousandths.
    weight: u16,
}

impl Range<'_> {
    /// How precisely it names the media type, and its weight.
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

/// The parts of a list; a separator within quotes is none.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    let parts = text.split(|character| {
        let separates = character == separator && !quoted;
        quoted ^= character == '"' && !escaped;
        escaped = quoted && character == '\\' && !escaped;
        separates
    });
    parts.map(str::trim).collect()
}

/// A media range with its weight; what is none is passed over.
fn range(element: &str) -> Option<Range<'_>> {
    let mut parts = split(element, ';').into_iter();
    let (kind, subtype) = parts.next()?.split_once('/')?;
    let named = parts.find_map(|parameter| parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q=")));
    let weight = named.map_or(Some(1_000), weight)?;
    let usable = !kind.is_empty() && !subtype.is_empty() && (kind != "*" || subtype == "*");
    usable.then_some(Range { kind: kind.trim(), subtype: subtype.trim(), weight })
}

/// 0 to 1 with at most three decimals, in thousandths.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(accept: &str) -> Option<&'static str> {
        let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().expect("a header value"))]);
        preferred(&headers, &["application/json", "text/csv"])
    }

    #[test]
    fn the_heaviest_range_chooses_and_the_most_precise_one_weighs() {
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
