//! Parses the query parameters of searches: texts, ranges of money, orders, and pairs of metadata.

use std::collections::BTreeMap;

use axum::{extract::FromRequestParts, http::request::Parts};
use serde::de::DeserializeOwned;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};

use super::parameters::{OWNER_CHARS_MAX, decoded_pairs, parse_pairs, parse_query};
use crate::http::problem::Problem;
use passbook_domain::{Metadata, money::MINOR_UNITS_MAX};
use passbook_read_model::accounts::{SearchText, Sort, SortBy};

/// The names of parameters for metadata begin with this.
const METADATA_PREFIX: &str = "metadata.";
/// The fewest digits of a part of an id that finds an account. Fewer would be in nearly every id.
const ID_DIGITS_MIN: usize = 4;
/// The digits of an id, without its hyphens.
const ID_DIGITS: usize = 32;

/// The query string, parsed into `Q`, without the parameters `metadata.<key>`, whose keys the client chooses.
#[derive(Clone, Debug)]
pub struct QueryWithMetadata<Q> {
    /// The other parameters.
    pub parameters: Q,
    /// The pairs.
    pub metadata: Metadata,
}

impl<S: Send + Sync, Q: DeserializeOwned> FromRequestParts<S> for QueryWithMetadata<Q> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        if !query.contains("metadata") && !query.contains('%') {
            return Ok(Self { parameters: parse_query(&parts.uri)?, metadata: Metadata::default() });
        }
        let is_pair = |(name, _): &(String, String)| name.starts_with(METADATA_PREFIX);
        let (pairs, others): (Vec<_>, Vec<_>) = decoded_pairs(query)?.into_iter().partition(is_pair);
        Ok(Self { metadata: metadata(pairs)?, parameters: parse_pairs(&others)? })
    }
}

fn metadata(parameters: Vec<(String, String)>) -> Result<Metadata, Problem> {
    let mut pairs = BTreeMap::new();
    for (name, value) in parameters {
        let key = name.strip_prefix(METADATA_PREFIX).unwrap_or_default().to_owned();
        let invalid = |detail: String| Problem::invalid_parameter(name.clone(), detail);
        if let Err(error) = Metadata::new(BTreeMap::from([(key.clone(), value.clone())])) {
            return Err(invalid(format!("The query parameter {name} is invalid: {error}.")));
        }
        if pairs.insert(key, value).is_some() {
            return Err(invalid(format!("The query parameter {name} is invalid: it must not be repeated.")));
        }
    }
    Metadata::new(pairs)
        .map_err(|error| Problem::invalid_parameter("metadata", format!("The query is invalid: {error}.")))
}

/// The schema of the parameters `metadata.<key>`.
pub struct MetadataParameters;

impl PartialSchema for MetadataParameters {
    fn schema() -> RefOr<Schema> {
        let text = || ObjectBuilder::new().schema_type(Type::String);
        let name = text().pattern(Some(r"^metadata\.[^\u0000]{1,40}$"));
        let value = text().pattern(Some(r"^[^\u0000]{0,500}$"));
        ObjectBuilder::new()
            .max_properties(Some(20))
            .property_names(Some(name))
            .additional_properties(Some(value))
            .into()
    }
}

impl ToSchema for MetadataParameters {}

/// The text of a search for accounts.
///
/// # Errors
/// 400 `invalid_parameter` if the text is empty, too long or contains NUL.
pub fn search_text(text: String) -> Result<SearchText, Problem> {
    let invalid = |detail: String| Err(Problem::invalid_parameter("q", detail));
    match text.chars().count() {
        0 => invalid("q must not be empty.".to_owned()),
        characters if characters > OWNER_CHARS_MAX => {
            invalid(format!("q must not exceed {OWNER_CHARS_MAX} characters."))
        }
        _ if text.contains('\0') => invalid("q must not contain a NUL character.".to_owned()),
        _ => Ok(SearchText { id_part: id_part(&text), owner: text }),
    }
}

/// The text as a part of an id: its digits in lower case. Hyphens do not count, so an id is also found as other systems write it.
fn id_part(text: &str) -> Option<String> {
    let digits: String = text.chars().filter(|c| *c != '-').map(|c| c.to_ascii_lowercase()).collect();
    let is_part = (ID_DIGITS_MIN..=ID_DIGITS).contains(&digits.len()) && digits.bytes().all(|c| c.is_ascii_hexdigit());
    is_part.then_some(digits)
}

/// The order of a list of accounts.
///
/// # Errors
/// 400 `invalid_parameter` if no order has this name.
pub fn sort(name: &str) -> Result<Sort, Problem> {
    let (column, is_descending) = name.strip_prefix('-').map_or((name, false), |column| (column, true));
    let by = match column {
        "balance" => SortBy::Balance,
        "last_activity_at" => SortBy::LastActivity,
        _ => {
            let detail = "sort must be balance, -balance, last_activity_at or -last_activity_at.";
            return Err(Problem::invalid_parameter("sort", detail));
        }
    };
    Ok(Sort { by, is_descending })
}

/// The least and the greatest balance of a list, in minor units.
///
/// # Errors
/// 400 `invalid_parameter` if one of them is out of range, or if the least is greater than the greatest.
pub fn balance_range(minimum: Option<i64>, maximum: Option<i64>) -> Result<(), Problem> {
    check_range(("min_balance", minimum), ("max_balance", maximum), -MINOR_UNITS_MAX)
}

/// The least and the greatest amount of a list, in minor units.
///
/// # Errors
/// 400 `invalid_parameter` if one of them is out of range, or if the least is greater than the greatest.
pub fn amount_range(minimum: Option<i64>, maximum: Option<i64>) -> Result<(), Problem> {
    check_range(("min_amount", minimum), ("max_amount", maximum), 0)
}

type Bound = (&'static str, Option<i64>);

fn check_range(minimum: Bound, maximum: Bound, lowest: i64) -> Result<(), Problem> {
    for (field, bound) in [minimum, maximum] {
        if bound.is_some_and(|bound| !(lowest..=MINOR_UNITS_MAX).contains(&bound)) {
            let detail = format!("{field} must be an integer in minor units from {lowest} to {MINOR_UNITS_MAX}.");
            return Err(Problem::invalid_parameter(field, detail));
        }
    }
    match minimum.1.zip(maximum.1) {
        Some((least, greatest)) if least > greatest => {
            let detail = format!("{} must not be greater than {}.", minimum.0, maximum.0);
            Err(Problem::invalid_parameter(minimum.0, detail))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::id_part;

    #[test]
    fn a_part_of_an_id_has_at_least_four_hexadecimal_digits() {
        assert_eq!(
            id_part("01900000-0000-7000-8000-00000000000A").as_deref(),
            Some("0190000000007000800000000000000a")
        );
        assert_eq!(id_part("9F-3a").as_deref(), Some("9f3a"));
        for other in ["", "9f3", "9-f-3", "customer", "9f3_", "9f3%", "9f3ä", &"0".repeat(33)] {
            assert_eq!(id_part(other), None, "{other}");
        }
    }
}
