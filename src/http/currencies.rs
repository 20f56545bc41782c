//! The list of currencies: `GET /v1/currencies`.

use std::sync::LazyLock;

use axum::{http::HeaderMap, response::Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    extract::parameters::{NoParameters, QueryParameters},
    problem::Problem,
    static_content::StaticContent,
};
use passbook_auth::Caller;
use passbook_domain::money::{currencies, digits, is_withdrawn};

/// A currency and how its amounts are formatted.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Currency)]
pub struct CurrencyInfo {
    /// The code (ISO 4217).
    #[schema(example = "EUR", pattern = "^[A-Z]{3}$")]
    code: &'static str,
    /// The English name.
    #[schema(example = "Euro")]
    name: String,
    /// The digits after the decimal point: 2 means that 12550 minor units are 125.50.
    #[schema(example = 2)]
    digits: u16,
}

/// The currencies in which accounts can be opened.
#[derive(Debug, Serialize, ToSchema)]
pub struct CurrencyList {
    /// The currencies by code.
    data: Vec<CurrencyInfo>,
}

/// The currencies in use, as JSON.
static IN_USE: LazyLock<StaticContent> = LazyLock::new(|| {
    let in_use = all_currencies().into_iter().filter(|(_, is_withdrawn)| !is_withdrawn);
    StaticContent::json(&CurrencyList { data: in_use.map(|(currency, _)| currency).collect() })
});

/// Every currency that an account can have, by code, and whether it is withdrawn.
pub fn all_currencies() -> Vec<(CurrencyInfo, bool)> {
    let mut all: Vec<_> = currencies()
        .map(|currency| {
            let info =
                CurrencyInfo { code: currency.code(), name: currency.name().to_owned(), digits: digits(currency) };
            (info, is_withdrawn(currency))
        })
        .collect();
    all.sort_by_key(|(currency, _)| currency.code);
    all
}

/// List currencies
///
/// The currencies in which accounts can be opened, with the digits of their amounts. Currencies that were withdrawn from ISO 4217
/// are not listed.
#[utoipa::path(
    get, path = "/v1/currencies", tag = "Queries", security(("bearer" = [])),
    params(("If-None-Match" = Option<String>, Header, nullable = false, pattern = r#"^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)$"#, description = "The ETag of the list that the client has.")),
    responses(
        (status = 200, description = "The currencies.", body = CurrencyList),
        (status = 304, description = "The list has not changed."),
    ),
)]
pub async fn list_currencies(
    _: Caller,
    _: QueryParameters<NoParameters>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    IN_USE.response(&headers)
}
