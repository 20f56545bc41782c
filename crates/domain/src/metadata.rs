//! Metadata: pairs of texts that a client attaches to an account, a movement or a hold. The service stores and shows them, and
//! no decision depends on them.

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Serialize};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};

/// How many pairs the metadata of one object has at most.
pub const METADATA_PAIRS_MAX: usize = 20;
/// The longest key of a pair, in characters. The shortest has one.
pub const METADATA_KEY_CHARACTERS_MAX: usize = 40;
/// The longest value of a pair, in characters.
pub const METADATA_VALUE_CHARACTERS_MAX: usize = 500;

/// Pairs of texts, in the order of their keys. Events without metadata do not store the member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Metadata(BTreeMap<String, String>);

/// The pairs are too many, or one of them is too long.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMetadata {
    /// There are more than [`METADATA_PAIRS_MAX`] pairs.
    #[error("metadata has at most {METADATA_PAIRS_MAX} members")]
    TooManyPairs,
    /// A key is empty, longer than [`METADATA_KEY_CHARACTERS_MAX`], or contains the character U+0000.
    #[error("the keys of metadata have 1 to {METADATA_KEY_CHARACTERS_MAX} characters, none of them U+0000")]
    InvalidKey,
    /// The value of this key is longer than [`METADATA_VALUE_CHARACTERS_MAX`], or contains the character U+0000.
    #[error("the values of metadata have at most {METADATA_VALUE_CHARACTERS_MAX} characters, none of them U+0000")]
    InvalidValue {
        /// The key, which is valid.
        key: String,
    },
}

impl Metadata {
    /// Checks pairs that a client sent.
    ///
    /// # Errors
    /// Which limit the pairs exceed.
    pub fn new(pairs: BTreeMap<String, String>) -> Result<Self, InvalidMetadata> {
        if pairs.len() > METADATA_PAIRS_MAX {
            return Err(InvalidMetadata::TooManyPairs);
        }
        for (key, value) in &pairs {
            if key.is_empty() || !is_text(key, METADATA_KEY_CHARACTERS_MAX) {
                return Err(InvalidMetadata::InvalidKey);
            }
            if !is_text(value, METADATA_VALUE_CHARACTERS_MAX) {
                return Err(InvalidMetadata::InvalidValue { key: key.clone() });
            }
        }
        Ok(Self(pairs))
    }

    /// Whether there is no pair.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The pairs in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

impl PartialSchema for Metadata {
    fn schema() -> RefOr<Schema> {
        let text = || ObjectBuilder::new().schema_type(Type::String).pattern(Some(r"^[^\u0000]*$"));
        let key = text().min_length(Some(1)).max_length(Some(METADATA_KEY_CHARACTERS_MAX));
        let value = text().max_length(Some(METADATA_VALUE_CHARACTERS_MAX));
        ObjectBuilder::new()
            .description(Some("Pairs of texts of the caller, stored for ever; no personal data."))
            .property_names(Some(key))
            .additional_properties(Some(value))
            .max_properties(Some(METADATA_PAIRS_MAX))
            .into()
    }
}

impl ToSchema for Metadata {
    fn name() -> Cow<'static, str> {
        "Metadata".into()
    }
}

/// Whether the text is short enough and has no U+0000, which Postgres cannot store in a text.
fn is_text(text: &str, characters_max: usize) -> bool {
    !text.contains('\0') && text.chars().nth(characters_max).is_none()
}
