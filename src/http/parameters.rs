//! Parts of paths, queries and bodies, parsed at the edge into types that can be trusted from there on.

use axum::extract::{FromRequestParts, Query, RawPathParams, rejection::QueryRejection};
use axum::http::request::Parts;
use chrono::{DateTime, Datelike, NaiveDate, Utc};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, IgnoredAny, IntoDeserializer, value},
};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::problem::{Code, Problem};
use passbook_domain::{Amount, Channel, Currency, money::MINOR_UNITS_MAX};
use passbook_event_store::Position;

/// How many characters a reference or a reason may have.
pub const TEXT_CHARS_MAX: usize = 500;
/// How many characters an owner may have.
pub const OWNER_CHARS_MAX: usize = 255;
const LIMIT_DEFAULT: i64 = 100;
const LIMIT_MAX: i64 = 1_000;

/// An id in a path.
#[derive(Clone, Copy, Debug)]
pub struct Id(pub Uuid);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = RawPathParams::from_request_parts(parts, state).await;
        let path = path.map_err(|_| Problem::field(Code::InvalidParameter, "path", "the path is not UTF-8"))?;
        match path.iter().next() {
            Some(("transfer_id", id)) => uuid("transfer_id", id).map(Self),
            Some((_, id)) => uuid("account_id", id).map(Self),
            None => Err(Problem::of(Code::NotFound)),
        }
    }
}

/// The query string, parsed into `Q`. Unknown parameters are refused, so that a misspelt one is never ignored.
#[derive(Clone, Copy, Debug)]
pub struct Parameters<Q>(pub Q);

impl<S: Send + Sync, Q: DeserializeOwned> FromRequestParts<S> for Parameters<Q> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Query::try_from_uri(&parts.uri).map(|Query(query)| Self(query)).map_err(invalid_query)
    }
}

/// No parameter at all.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// The query string cannot be parsed.
pub fn invalid_query(rejection: QueryRejection) -> Problem {
    Problem::new(Code::InvalidParameter, rejection.body_text())
}

/// A UUID in its hyphenated form.
pub fn uuid(field: &'static str, text: &str) -> Result<Uuid, Problem> {
    let parsed = Uuid::parse_str(text).ok().filter(|_| text.len() == 36);
    parsed.ok_or_else(|| Problem::field(Code::InvalidParameter, field, format!("{field} is not a UUID")))
}

/// How many rows a page may have.
pub fn limit(limit: Option<i64>) -> Result<i64, Problem> {
    match limit {
        None => Ok(LIMIT_DEFAULT),
        Some(limit @ 1..=LIMIT_MAX) => Ok(limit),
        Some(_) => Err(Problem::field(Code::InvalidParameter, "limit", format!("limit is from 1 to {LIMIT_MAX}"))),
    }
}

/// The position that a read asks for.
pub fn min_position(text: Option<&str>) -> Result<Option<Position>, Problem> {
    let parsed = text.map(str::parse).transpose();
    parsed.map_err(|error: passbook_event_store::InvalidPosition| {
        Problem::field(Code::InvalidParameter, "min_position", error.to_string())
    })
}

/// A time of RFC 3339.
pub fn time(field: &'static str, text: Option<&str>) -> Result<Option<DateTime<Utc>>, Problem> {
    let parsed = text.map(DateTime::parse_from_rfc3339).transpose();
    let time = parsed.map_err(|_| {
        let detail =
            format!("{field} is a time such as 2026-01-31T12:00:00Z (RFC 3339, a + in a query is written %2B)");
        Problem::field(Code::InvalidParameter, field, detail)
    })?;
    Ok(time.map(|time| time.with_timezone(&Utc)))
}

/// A day in UTC, such as `2026-01-31` (RFC 3339, full-date).
pub fn date(field: &'static str, text: Option<&str>) -> Result<Option<NaiveDate>, Problem> {
    let parsed = text.map(|text| calendar_date(text).ok_or(field)).transpose();
    parsed.map_err(|field| {
        Problem::field(Code::InvalidParameter, field, format!("{field} is a day in UTC such as 2026-01-31"))
    })
}

/// Four digits, two and two, from the year 1 on: chrono alone would take signs and years that Postgres has no date for.
pub fn calendar_date(text: &str) -> Option<NaiveDate> {
    let shape = |(place, byte): (usize, u8)| if matches!(place, 4 | 7) { byte == b'-' } else { byte.is_ascii_digit() };
    let shaped = text.len() == 10 && text.bytes().enumerate().all(shape);
    shaped.then(|| text.parse().ok()).flatten().filter(|date: &NaiveDate| date.year() > 0)
}

/// An ISO 4217 code.
pub fn currency(code: &str) -> Result<Currency, Problem> {
    Currency::from_code(code)
        .ok_or_else(|| Problem::field(Code::InvalidCurrency, "currency", "a currency is an ISO 4217 code such as EUR"))
}

/// A channel by its word. In a body serde would take `{"atm": null}` for it, too.
pub fn channel(word: &str) -> Result<Channel, Problem> {
    Channel::deserialize(word.into_deserializer())
        .map_err(|error: value::Error| Problem::field(Code::MalformedRequest, "channel", error.to_string()))
}

/// A text that is kept for ever.
pub fn text(field: &'static str, text: Option<String>) -> Result<Option<String>, Problem> {
    text.map(|text| bounded(field, text, TEXT_CHARS_MAX)).transpose()
}

/// The customer that an account belongs to.
pub fn owner(owner: String) -> Result<String, Problem> {
    if owner.is_empty() {
        return Err(Problem::field(Code::InvalidParameter, "owner", "owner is empty"));
    }
    bounded("owner", owner, OWNER_CHARS_MAX)
}

fn bounded(field: &'static str, text: String, chars_max: usize) -> Result<String, Problem> {
    let wrong = |detail: String| Err(Problem::field(Code::InvalidParameter, field, detail));
    if text.chars().count() > chars_max {
        return wrong(format!("{field} has more than {chars_max} characters"));
    }
    // Postgres keeps no NUL in a text.
    if text.contains('\0') {
        return wrong(format!("{field} holds a NUL character"));
    }
    Ok(text)
}

/// A number in a body that may be an amount of money: what is no plain integer is remembered as such, so that it is
/// refused as an amount and not as a body that cannot be read.
#[derive(Clone, Copy, Debug)]
pub struct MinorUnits(Option<i64>);

impl MinorUnits {
    /// An amount that can be moved.
    pub fn amount(self) -> Result<Amount, Problem> {
        let amount = self.0.and_then(|minor_units| Amount::try_from(minor_units).ok());
        amount.ok_or_else(|| invalid_amount("amount", 1))
    }

    /// An initial deposit, which may be 0.
    pub fn initial_deposit(self) -> Result<i64, Problem> {
        let deposit = self.0.filter(|minor_units| (0..=MINOR_UNITS_MAX).contains(minor_units));
        deposit.ok_or_else(|| invalid_amount("initial_deposit", 0))
    }
}

fn invalid_amount(field: &'static str, least: i64) -> Problem {
    let detail = format!("{field} is a whole number of minor units from {least} to {MINOR_UNITS_MAX}");
    Problem::field(Code::InvalidAmount, field, detail)
}

impl<'de> Deserialize<'de> for MinorUnits {
    /// From the digits as they were sent: no number that stands for the same, such as `1e2` or `-0`.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let sent = <&RawValue>::deserialize(deserializer)?;
        let digits = sent.get().parse::<u64>().ok();
        Ok(Self(digits.and_then(|minor_units| i64::try_from(minor_units).ok())))
    }
}

/// A currency in a body: what is no text is refused as a currency.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum CurrencyCode {
    /// A text that may be a code.
    Text(String),
    /// Anything else.
    Other(IgnoredAny),
}

impl CurrencyCode {
    /// The currency.
    pub fn currency(&self) -> Result<Currency, Problem> {
        match self {
            CurrencyCode::Text(code) => currency(code),
            CurrencyCode::Other(IgnoredAny) => currency(""),
        }
    }
}
