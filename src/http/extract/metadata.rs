//! The metadata in a body: an object of texts. Its number of members and their lengths are checked by the domain.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor},
};

use crate::http::problem::Problem;
use passbook_domain::Metadata;

/// Pairs of texts as a client sent them.
#[derive(Clone, Debug, Default)]
pub struct MetadataBody(BTreeMap<String, String>);

impl MetadataBody {
    /// The metadata of a command; empty if the body has none.
    ///
    /// # Errors
    /// 400 `invalid_parameter` if there are too many members, or if one of them is too long or contains NUL.
    pub fn metadata(body: Option<Self>) -> Result<Metadata, Problem> {
        let Self(pairs) = body.unwrap_or_default();
        Metadata::new(pairs).map_err(|error| Problem::invalid_parameter("metadata", sentence(&error.to_string())))
    }
}

/// The text as a sentence: with a capital letter and a full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).chain(['.']).collect()
}

impl<'de> Deserialize<'de> for MetadataBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Pairs)
    }
}

struct Pairs;

impl<'de> Visitor<'de> for Pairs {
    type Value = MetadataBody;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of strings")
    }

    /// Rejects a repeated key. A map would silently keep one of its values.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<MetadataBody, A::Error> {
        let mut pairs = BTreeMap::new();
        while let Some((key, value)) = map.next_entry::<String, String>()? {
            match pairs.entry(key) {
                Entry::Vacant(entry) => drop(entry.insert(value)),
                Entry::Occupied(_) => return Err(de::Error::custom("metadata has a repeated member")),
            }
        }
        Ok(MetadataBody(pairs))
    }
}

#[cfg(test)]
mod tests {
    use super::MetadataBody;

    #[test]
    fn metadata_is_an_object_of_texts_without_repeated_members() {
        let parse = serde_json::from_str::<MetadataBody>;
        assert_eq!(parse(r#"{"order": "17", "": ""}"#).map(|body| body.0.len()).ok(), Some(2));
        for invalid in [r#"{"a": "1", "a": "1"}"#, r#"{"a": 1}"#, r#"{"a": null}"#, r#"["a"]"#, r#""a""#, "17"] {
            assert!(parse(invalid).is_err(), "{invalid}");
        }
    }
}
