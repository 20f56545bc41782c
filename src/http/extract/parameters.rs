//! Parses path segments, query parameters and body fields into types that handlers can trust.

use std::collections::HashSet;

use axum::{
    extract::{FromRequestParts, RawPathParams},
    http::{Uri, request::Parts},
};
use chrono::{DateTime, Datelike, NaiveDate, Utc};
use percent_encoding::percent_decode_str;
use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeOwned, IntoDeserializer, value},
};
use serde_json::value::RawValue;
use utoipa::IntoParams;
use uuid::Uuid;

use super::body::malformed;
use crate::http::{error_code::ErrorCode, openapi::PositionText, problem::Problem};
use passbook_domain::{
    Amount, Channel, Currency,
    money::{MINOR_UNITS_MAX, is_withdrawn},
};
use passbook_event_store::{InvalidPosition, Position};

/// The most characters of a reference or a reason.
pub const TEXT_CHARS_MAX: usize = 500;
/// The most characters of an owner.
pub const OWNER_CHARS_MAX: usize = 255;
/// The rows of a page without `limit`.
const LIMIT_DEFAULT: i64 = 100;
/// The most rows of a page.
const LIMIT_MAX: i64 = 1_000;

/// The id in a path.
#[derive(Clone, Copy, Debug)]
pub struct PathId(pub Uuid);

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match path_parameters(parts, state).await?.iter().next() {
            Some(("transfer_id", id)) => uuid("transfer_id", id).map(Self),
            Some((_, id)) => uuid("account_id", id).map(Self),
            None => Err(Problem::from_code(ErrorCode::NotFound)),
        }
    }
}

/// The name in a path.
#[derive(Clone, Debug)]
pub struct PathText(pub String);

impl<S: Send + Sync> FromRequestParts<S> for PathText {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match path_parameters(parts, state).await?.iter().next() {
            Some((_, text)) => Ok(Self(text.to_owned())),
            None => Err(Problem::from_code(ErrorCode::NotFound)),
        }
    }
}

pub(super) async fn path_parameters<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<RawPathParams, Problem> {
    let parameters = RawPathParams::from_request_parts(parts, state).await;
    parameters.map_err(|_| Problem::invalid_parameter("path", "The path must be UTF-8."))
}

/// The query string, parsed into `Q`. Unknown parameters are rejected, so that a misspelt one is never ignored.
#[derive(Clone, Copy, Debug)]
pub struct QueryParameters<Q>(pub Q);

impl<S: Send + Sync, Q: DeserializeOwned> FromRequestParts<S> for QueryParameters<Q> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parse_query(&parts.uri).map(Self)
    }
}

/// The query parameters of an operation that has none.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoParameters {}

/// The query parameters of an operation that only has `min_position`.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Freshness {
    /// Wait until the view has read up to this position (a `Passbook-Position`), at most 2 s.
    #[param(value_type = Option<PositionText>, nullable = false)]
    min_position: Option<String>,
}

impl Freshness {
    /// The position that the view must have reached; `None` if any is acceptable.
    ///
    /// # Errors
    /// 400 `invalid_parameter` if the parameter is not a position.
    pub fn min_position(&self) -> Result<Option<Position>, Problem> {
        min_position(self.min_position.as_deref())
    }
}

/// Parses the query string of `uri`. Percent-encoded bytes must be UTF-8: a decoder that replaces them would read another value
/// than the client sent.
///
/// # Errors
/// An [`ErrorCode::InvalidParameter`] that names the parameter.
pub fn parse_query<Q: DeserializeOwned>(uri: &Uri) -> Result<Q, Problem> {
    let query = uri.query().unwrap_or_default();
    require_utf8(query)?;
    parse_text(query)
}

/// The names and values of a query string.
///
/// # Errors
/// An [`ErrorCode::InvalidParameter`] that names the parameter whose bytes are not UTF-8.
pub(super) fn decoded_pairs(query: &str) -> Result<Vec<(String, String)>, Problem> {
    require_utf8(query)?;
    serde_urlencoded::from_str(query).map_err(invalid_query)
}

/// Parses the names and values of a query as [`parse_query`] does.
///
/// # Errors
/// An [`ErrorCode::InvalidParameter`] that names the parameter.
pub(super) fn parse_pairs<Q: DeserializeOwned>(pairs: &[(String, String)]) -> Result<Q, Problem> {
    let query = serde_urlencoded::to_string(pairs)
        .map_err(|error| Problem::new(ErrorCode::InvalidParameter, format!("The query is invalid: {error}.")))?;
    parse_text(&query)
}

fn require_utf8(query: &str) -> Result<(), Problem> {
    if percent_decode_str(query).decode_utf8().is_err() {
        return Err(Problem::invalid_parameter(parameter_that_is_not_utf8(query), "The query must be UTF-8."));
    }
    Ok(())
}

fn parse_text<Q: DeserializeOwned>(query: &str) -> Result<Q, Problem> {
    serde_urlencoded::from_str(query).map_err(|error| {
        let detail = |name: &str, error| format!("The query parameter {name} is invalid: {error}.");
        match invalid_parameter::<Q>(query) {
            Some((name, error)) => Problem::invalid_parameter(name.clone(), detail(&name, error)),
            None => invalid_query(error),
        }
    })
}

fn invalid_query(error: value::Error) -> Problem {
    Problem::new(ErrorCode::InvalidParameter, format!("The query is invalid: {error}."))
}

fn parameter_that_is_not_utf8(query: &str) -> String {
    let is_utf8 = |pair: &&str| percent_decode_str(pair).decode_utf8().is_ok();
    let pair = query.split('&').find(|pair| !is_utf8(pair)).unwrap_or_default();
    let name = pair.split('=').next().unwrap_or_default();
    percent_decode_str(name).decode_utf8_lossy().into_owned()
}

/// The first parameter that `Q` rejects, and why. All parameters are optional, so each can be parsed by itself. If none is
/// rejected, one of them is repeated.
fn invalid_parameter<Q: DeserializeOwned>(query: &str) -> Option<(String, value::Error)> {
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query).ok()?;
    let mut names = HashSet::new();
    for (name, text) in &pairs {
        let alone = serde_urlencoded::to_string([(name, text)]).ok()?;
        let parsed = serde_urlencoded::from_str::<Q>(&alone);
        if let Err(error) = parsed.map(drop) {
            return Some((name.clone(), error));
        }
        if !names.insert(name) {
            return Some((name.clone(), de::Error::custom("it must not be repeated")));
        }
    }
    None
}

/// Rejects a period that begins after its end.
///
/// # Errors
/// An [`ErrorCode::InvalidParameter`] with the field `from`.
pub fn require_ordered<T: PartialOrd>(from: Option<T>, to: Option<T>) -> Result<(), Problem> {
    match from.zip(to) {
        Some((from, to)) if from > to => Err(Problem::invalid_parameter("from", "from must not be later than to.")),
        _ => Ok(()),
    }
}

/// A UUID in its hyphenated form.
///
/// # Errors
/// 400 `invalid_parameter` if the text is not such a UUID.
pub fn uuid(field: &'static str, text: &str) -> Result<Uuid, Problem> {
    let parsed = Uuid::parse_str(text).ok().filter(|_| text.len() == 36);
    parsed.ok_or_else(|| Problem::invalid_parameter(field, format!("{field} must be a UUID with hyphens.")))
}

/// The number of rows of a page.
///
/// # Errors
/// 400 `invalid_parameter` if the number is out of range.
pub fn limit(limit: Option<i64>) -> Result<i64, Problem> {
    match limit {
        None => Ok(LIMIT_DEFAULT),
        Some(limit @ 1..=LIMIT_MAX) => Ok(limit),
        Some(_) => Err(Problem::invalid_parameter("limit", format!("limit must be from 1 to {LIMIT_MAX}."))),
    }
}

/// The position that a view must have reached.
///
/// # Errors
/// 400 `invalid_parameter` if the text is not a position.
pub fn min_position(text: Option<&str>) -> Result<Option<Position>, Problem> {
    let parsed = text.map(str::parse).transpose();
    parsed.map_err(|error: InvalidPosition| Problem::invalid_parameter("min_position", error.to_string()))
}

/// A time of RFC 3339, with at most nine digits of a second's fraction.
///
/// # Errors
/// 400 `invalid_parameter` if the text is not such a time.
pub fn time(field: &'static str, text: Option<&str>) -> Result<Option<DateTime<Utc>>, Problem> {
    let parsed = text.map(|text| rfc3339(text).ok_or(())).transpose();
    parsed.map_err(|()| {
        let detail =
            format!("{field} must be an RFC 3339 time such as 2026-01-31T12:00:00Z. In a query, write + as %2B.");
        Problem::invalid_parameter(field, detail)
    })
}

/// chrono alone would also accept a leap second, a space in place of `T`, a Unicode minus sign and more digits than it stores.
fn rfc3339(text: &str) -> Option<DateTime<Utc>> {
    let (date_time, rest) = text.split_at_checked("2026-01-31T12:00:00".len())?;
    let is_expected = |(index, byte): (usize, u8)| match index {
        4 | 7 => byte == b'-',
        10 => byte == b'T' || byte == b't',
        13 | 16 => byte == b':',
        // The first digit of the seconds: 60 is a leap second.
        17 => byte.is_ascii_digit() && byte < b'6',
        _ => byte.is_ascii_digit(),
    };
    let after_fraction = match rest.strip_prefix('.') {
        None => rest,
        Some(fraction) => {
            let offset = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
            if !(1..=9).contains(&(fraction.len() - offset.len())) {
                return None;
            }
            offset
        }
    };
    let is_offset = match after_fraction.as_bytes() {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => {
            let is_hour = matches!((h1, h2), (b'0' | b'1', b'0'..=b'9') | (b'2', b'0'..=b'3'));
            is_hour && (b'0'..=b'5').contains(m1) && m2.is_ascii_digit()
        }
        _ => false,
    };
    let is_valid = is_offset && date_time.bytes().enumerate().all(is_expected);
    is_valid.then(|| DateTime::parse_from_rfc3339(text).ok()).flatten().map(|time| time.with_timezone(&Utc))
}

/// A day in UTC, such as `2026-01-31` (RFC 3339, full-date).
///
/// # Errors
/// 400 `invalid_parameter` if the text is not such a day.
pub fn date(field: &'static str, text: Option<&str>) -> Result<Option<NaiveDate>, Problem> {
    let parsed = text.map(|text| calendar_date(text).ok_or(field)).transpose();
    parsed
        .map_err(|field| Problem::invalid_parameter(field, format!("{field} must be a day in UTC such as 2026-01-31.")))
}

/// A day in UTC that the request must name.
///
/// # Errors
/// 400 `invalid_parameter` if it is missing, or the text is not such a day.
pub fn required_day(field: &'static str, text: Option<&str>) -> Result<NaiveDate, Problem> {
    let missing = || {
        let detail = format!("The parameter {field} is missing. Send a day in UTC such as 2026-01-31.");
        Problem::invalid_parameter(field, detail)
    };
    date(field, text)?.ok_or_else(missing)
}

/// A date as `YYYY-MM-DD` from the year 1 on. chrono alone would also accept signs and years that Postgres cannot store.
pub fn calendar_date(text: &str) -> Option<NaiveDate> {
    let is_expected =
        |(index, byte): (usize, u8)| if matches!(index, 4 | 7) { byte == b'-' } else { byte.is_ascii_digit() };
    let is_formatted = text.len() == 10 && text.bytes().enumerate().all(is_expected);
    is_formatted.then(|| text.parse().ok()).flatten().filter(|date: &NaiveDate| date.year() > 0)
}

/// A currency by its ISO 4217 code.
///
/// # Errors
/// 400 `invalid_currency` if no currency has this code.
pub fn currency(code: &str) -> Result<Currency, Problem> {
    let invalid = || Problem::field(ErrorCode::InvalidCurrency, "currency", ErrorCode::InvalidCurrency.spec().help);
    Currency::from_code(code).ok_or_else(invalid)
}

/// A channel by its name. In a body, serde alone would also accept `{"atm": null}`.
///
/// # Errors
/// 400 `malformed_request` if no channel has this name.
pub fn channel(name: &str) -> Result<Channel, Problem> {
    Channel::deserialize(name.into_deserializer())
        .map_err(|error: value::Error| malformed(Some("channel".to_owned()), format!("channel is invalid: {error}.")))
}

/// A text that is stored for ever.
///
/// # Errors
/// 400 `invalid_parameter` if the text is too long or contains NUL.
pub fn text(field: &'static str, text: Option<String>) -> Result<Option<String>, Problem> {
    text.map(|text| bounded_text(field, text, TEXT_CHARS_MAX)).transpose()
}

/// The beginning of a reference that a list is filtered by.
///
/// # Errors
/// 400 `invalid_parameter` if the text is empty, too long or contains NUL.
pub fn reference(text: String) -> Result<String, Problem> {
    if text.is_empty() {
        return Err(Problem::invalid_parameter("reference", "reference must not be empty."));
    }
    bounded_text("reference", text, TEXT_CHARS_MAX)
}

/// The customer that an account belongs to.
///
/// # Errors
/// 400 `invalid_parameter` if the text is empty, too long or contains NUL.
pub fn owner(owner: String) -> Result<String, Problem> {
    if owner.is_empty() {
        return Err(Problem::invalid_parameter("owner", "owner must not be empty."));
    }
    bounded_text("owner", owner, OWNER_CHARS_MAX)
}

fn bounded_text(field: &'static str, text: String, chars_max: usize) -> Result<String, Problem> {
    if text.chars().count() > chars_max {
        return Err(Problem::invalid_parameter(field, format!("{field} must not exceed {chars_max} characters.")));
    }
    // Postgres cannot store NUL in a text.
    if text.contains('\0') {
        return Err(Problem::invalid_parameter(field, format!("{field} must not contain a NUL character.")));
    }
    Ok(text)
}

/// A number in a body that may be an amount of money. `None` if it is not a plain integer, so that the error is
/// `invalid_amount` and not `malformed_request`.
#[derive(Clone, Copy, Debug)]
pub struct MinorUnits(Option<i64>);

impl MinorUnits {
    /// The amount of a movement, at least 1.
    ///
    /// # Errors
    /// 400 `invalid_amount` if the number is not an integer in range.
    pub fn amount(self) -> Result<Amount, Problem> {
        let amount = self.0.and_then(|minor_units| Amount::try_from(minor_units).ok());
        amount.ok_or_else(|| invalid_amount("amount", 1))
    }

    /// An amount in minor units that may be 0, such as an initial deposit or a limit.
    ///
    /// # Errors
    /// 400 `invalid_amount` with this field if the number is not an integer in range.
    pub fn zero_or_more(self, field: &'static str) -> Result<i64, Problem> {
        let amount = self.0.filter(|minor_units| (0..=MINOR_UNITS_MAX).contains(minor_units));
        amount.ok_or_else(|| invalid_amount(field, 0))
    }
}

fn invalid_amount(field: &'static str, minimum: i64) -> Problem {
    let detail = format!("{field} must be an integer in minor units from {minimum} to {MINOR_UNITS_MAX}.");
    Problem::field(ErrorCode::InvalidAmount, field, detail)
}

impl<'de> Deserialize<'de> for MinorUnits {
    /// Reads the digits as sent and accepts no other form of the same number, such as `1e2` or `-0`.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let sent = <&RawValue>::deserialize(deserializer)?;
        let digits = sent.get().parse::<u64>().ok();
        Ok(Self(digits.and_then(|minor_units| i64::try_from(minor_units).ok())))
    }
}

/// A currency in a body. `None` if it is not a text, so that the error is `invalid_currency` and not `malformed_request`.
#[derive(Clone, Debug)]
pub struct CurrencyCode(Option<String>);

impl CurrencyCode {
    /// The currency.
    pub fn currency(&self) -> Result<Currency, Problem> {
        currency(self.0.as_deref().unwrap_or_default())
    }

    /// The currency of a new account.
    pub fn currency_in_use(&self) -> Result<Currency, Problem> {
        let currency = self.currency()?;
        if is_withdrawn(currency) {
            let detail = format!("The currency {} was withdrawn from ISO 4217.", currency.code());
            return Err(Problem::field(ErrorCode::InvalidCurrency, "currency", detail));
        }
        Ok(currency)
    }
}

impl<'de> Deserialize<'de> for CurrencyCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let sent = <&RawValue>::deserialize(deserializer)?.get();
        let text = sent.starts_with('"').then(|| serde_json::from_str(sent).map_err(de::Error::custom)).transpose()?;
        Ok(Self(text))
    }
}
