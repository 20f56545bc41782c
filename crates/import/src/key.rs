//! The idempotency keys of lines without one: derived from the name of the input, the number of the line and its text.
//!
//! The reasons for these three parts are in `docs/decisions/0019`.

use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use sha2::{Digest, Sha256};

use crate::{error::Error, line::RawLine};

/// The bytes of the hash that a key holds.
const HASH_BYTES: usize = 16;

/// What distinguishes the derived keys of this input from those of others. `None`: every line must have a key of its own.
#[derive(Clone, Debug)]
pub struct KeyPrefix(pub Option<String>);

/// A command as it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// The number in the file, from 1.
    pub number: u64,
    /// The text with its key and with the end of the line.
    pub text: Bytes,
    /// The number of bytes after the opening brace that were added.
    added: usize,
}

impl Line {
    /// The text as it stands in the file.
    pub(crate) fn original(&self) -> Vec<u8> {
        let text = self.text.strip_suffix(b"\n").unwrap_or(&self.text);
        match self.added {
            0 => text.to_vec(),
            added => [&text[..1], &text[1 + added..]].concat(),
        }
    }
}

impl KeyPrefix {
    /// Adds a key to a line that has none. A line that is no JSON object is returned unchanged, because the service refuses it.
    ///
    /// # Errors
    /// [`Error::NoKeyPrefix`].
    pub(crate) fn complete(&self, line: RawLine) -> Result<Line, Error> {
        let RawLine { number, text } = line;
        let mut member = String::new();
        if let Ok(Members { has_key: false, is_empty }) = Members::of(&text) {
            let prefix = self.0.as_ref().ok_or(Error::NoKeyPrefix { line: number })?;
            let comma = if is_empty { "" } else { "," };
            member = format!(r#""idempotency_key":"{}"{comma}"#, derive(prefix, number, &text));
        }
        let (brace, rest) = text.split_at(usize::from(!member.is_empty()));
        // Of exactly this size, because the window limits the size of lines and not of allocations.
        let complete = [brace, member.as_bytes(), rest, b"\n"].concat();
        Ok(Line { number, text: complete.into(), added: member.len() })
    }
}

/// Checks that a line is a JSON object.
///
/// # Errors
/// Why it is none.
pub(crate) fn check_object(text: &[u8]) -> Result<(), String> {
    Members::of(text).map(|_| ())
}

fn derive(prefix: &str, number: u64, text: &[u8]) -> String {
    let mut hash = Sha256::new();
    // Neither a number nor a line contains the separator, so different inputs have different texts.
    hash.update(format!("{prefix}\n{number}\n"));
    hash.update(text);
    format!("import-{}", hex::encode(&hash.finalize()[..HASH_BYTES]))
}

/// What a key depends on of an object's members.
struct Members {
    has_key: bool,
    is_empty: bool,
}

impl Members {
    fn of(text: &[u8]) -> Result<Self, String> {
        // The derived deserialization of an object would accept an array.
        match text.first() {
            Some(b'{') => serde_json::from_slice(text).map_err(|error| error.to_string()),
            Some(_) | None => Err("it does not begin with {".to_owned()),
        }
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Members { has_key: false, is_empty: true };
                while let Some(name) = map.next_key::<Name>()? {
                    let is_null = map.next_value::<Option<IgnoredAny>>()?.is_none();
                    members.has_key |= name.is_key && !is_null;
                    members.is_empty = false;
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// The name of a member, compared without an allocation.
struct Name {
    is_key: bool,
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Name;

            fn expecting(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
                formatter.write_str("a name")
            }

            fn visit_str<E>(self, name: &str) -> Result<Name, E> {
                Ok(Name { is_key: name == "idempotency_key" })
            }
        }

        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn complete(prefix: &str, number: u64, text: &str) -> Line {
        let line = RawLine { number, text: text.into() };
        KeyPrefix(Some(prefix.to_owned())).complete(line).expect("a prefix")
    }

    fn key(prefix: &str, number: u64, text: &str) -> String {
        let sent: Value = serde_json::from_slice(&complete(prefix, number, text).text).expect("JSON");
        sent["idempotency_key"].as_str().expect("a key").to_owned()
    }

    #[test]
    fn a_line_without_a_key_gets_one_and_keeps_its_members() {
        let line = complete("payroll", 7, r#"{"command": "open", "currency": "EUR"}"#);
        let sent: Value = serde_json::from_slice(&line.text).expect("JSON");
        assert_eq!((sent["command"].as_str(), sent["currency"].as_str()), (Some("open"), Some("EUR")));
        assert!(line.text.ends_with(b"}\n"));
        assert_eq!(line.original(), br#"{"command": "open", "currency": "EUR"}"#);
        assert_eq!(complete("payroll", 1, "{}").original(), b"{}");
        assert!(key("payroll", 1, "{}").starts_with("import-"));
    }

    #[test]
    fn a_key_depends_on_prefix_number_and_text_and_nothing_else() {
        let first = key("payroll", 7, r#"{"a":1}"#);
        assert_eq!(first, key("payroll", 7, r#"{"a":1}"#));
        let others = [key("other", 7, r#"{"a":1}"#), key("payroll", 8, r#"{"a":1}"#), key("payroll", 7, r#"{"a":2}"#)];
        assert!(!others.contains(&first), "{first} {others:?}");
    }

    /// The keys of releases must not change: an import that one release began, the next one continues.
    #[test]
    fn the_derived_key_of_a_known_line_stays_the_same() {
        assert_eq!(key("payroll-2026-11.ndjson", 1, r#"{"command":"open","currency":"EUR"}"#), KNOWN_KEY);
    }

    const KNOWN_KEY: &str = "import-d02b3fb44793bbaf9c5cbe8acbc4b63e";

    #[test]
    fn a_line_with_a_key_or_without_an_object_is_sent_unchanged() {
        for text in [
            r#"{"idempotency_key": "mine"}"#,
            r#"{"\u0069dempotency_key": "mine"}"#,
            r#"{"idempotency_key": 1, "idempotency_key": 2}"#,
            "[1]",
            "{",
            "{} {}",
            "date,amount",
        ] {
            let line = complete("payroll", 1, text);
            assert_eq!(line.text, format!("{text}\n"));
            assert_eq!(line.original(), text.as_bytes());
        }
    }

    /// For the service `null` is no key. The line gets a second member of this name, so that it is refused and not executed.
    #[test]
    fn a_key_that_is_null_does_not_let_a_line_pass_without_a_key() {
        let line = complete("payroll", 1, r#"{"idempotency_key": null}"#);
        let text = String::from_utf8(line.text.to_vec()).expect("UTF-8");
        assert_eq!(text.matches("idempotency_key").count(), 2, "{text}");
    }

    #[test]
    fn without_a_prefix_a_line_needs_a_key_of_its_own() {
        let line = |text: &str| RawLine { number: 3, text: text.into() };
        assert!(KeyPrefix(None).complete(line(r#"{"idempotency_key": "mine"}"#)).is_ok());
        assert!(matches!(KeyPrefix(None).complete(line("{}")), Err(Error::NoKeyPrefix { line: 3 })));
    }
}
