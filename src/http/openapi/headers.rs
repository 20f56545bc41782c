//! The response headers that many operations share. Headers of few operations stand beside their handlers.

use axum::http::{HeaderName, header};
use utoipa::openapi::{
    Header, HeaderBuilder, ObjectBuilder, Ref, RefOr, Response, Type,
    path::{Operation, ParameterIn},
};

use super::positions::POSITION_PATTERN;
use crate::http::header_names::{IDEMPOTENCY_REPLAYED, PASSBOOK_POSITION, RATELIMIT, RATELIMIT_POLICY, X_REQUEST_ID};

/// The name of a header in the document, its pattern and its description.
const HEADERS: [(&str, &str, &str); 9] = [
    ("x-request-id", "^[!-~]+$", "The id of the request, as sent or new."),
    (
        "Passbook-Position",
        POSITION_PATTERN,
        "The position of the command in the log, or how far the view has read. Pass it as `min_position` to read your own write.",
    ),
    ("Idempotency-Replayed", "^true$", "Present if the outcome was recorded earlier under the same `Idempotency-Key`."),
    (
        "ETag",
        r#"^(W/)?"[!#-~]*"$"#,
        "The version of the account in quotes, or of the list. Send it back as `If-Match` or `If-None-Match`.",
    ),
    ("Vary", ".", "The request headers that the representation depends on."),
    ("Retry-After", "^[0-9]+$", "Retry after this many seconds."),
    (
        "WWW-Authenticate",
        "^Bearer ",
        "Which token is required (RFC 6750, section 3). A 403 of a foreign page has none.",
    ),
    ("RateLimit", ".", "The requests that remain of the rate limit."),
    ("RateLimit-Policy", ".", "The rate limit."),
];

/// The headers as components, which responses refer to.
pub fn components() -> impl Iterator<Item = (String, RefOr<Header>)> {
    HEADERS.into_iter().map(|(name, pattern, description)| {
        let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern));
        let header = HeaderBuilder::new().schema(Some(text)).description(Some(description)).build();
        (name.to_owned(), header.into())
    })
}

/// Adds the shared headers to every response of an operation.
pub fn add_headers(operation: &mut Operation) {
    let is_command = has_parameter(operation, ParameterIn::Header, "Idempotency-Key");
    let reads_view = has_parameter(operation, ParameterIn::Query, "min_position");
    let is_conditional = has_parameter(operation, ParameterIn::Header, "If-None-Match");
    let creates = operation.responses.responses.contains_key("201");
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        let status = status.as_str();
        add(response, &X_REQUEST_ID);
        let is_outcome = matches!(status, "200" | "201" | "404" | "409" | "412" | "422");
        if is_command && is_outcome || reads_view && matches!(status, "200" | "304" | "404" | "503") {
            add(response, &PASSBOOK_POSITION);
        }
        let is_dry_run = creates && status == "200";
        if is_command && is_outcome && !is_dry_run {
            add(response, &IDEMPOTENCY_REPLAYED);
        }
        if is_conditional && matches!(status, "200" | "304") {
            add(response, &header::VARY);
        }
        if is_conditional && matches!(status, "200" | "304") || is_receipt_of_account(response) {
            add(response, &header::ETAG);
        }
        match status {
            "401" | "403" => add(response, &header::WWW_AUTHENTICATE),
            "429" => [header::RETRY_AFTER, RATELIMIT, RATELIMIT_POLICY].iter().for_each(|name| add(response, name)),
            "503" => add(response, &header::RETRY_AFTER),
            _ => {}
        }
    }
}

fn has_parameter(operation: &Operation, parameter_in: ParameterIn, name: &str) -> bool {
    operation.parameters.iter().flatten().any(|parameter| match parameter {
        RefOr::T(parameter) => parameter.parameter_in == parameter_in && parameter.name == name,
        RefOr::Ref(_) => false,
    })
}

/// Whether the response is the receipt of a command on one account, also if it may change another one.
fn is_receipt_of_account(response: &Response) -> bool {
    let Some(RefOr::T(content)) = response.content.get("application/json") else { return false };
    let Some(RefOr::Ref(body)) = &content.schema else { return false };
    ["AccountReceipt", "CommandReceipt"].iter().any(|name| *body == Ref::from_schema_name(*name))
}

fn add(response: &mut Response, header: &HeaderName) {
    let known = HEADERS.iter().find(|(name, ..)| name.eq_ignore_ascii_case(header.as_str()));
    if let Some((name, ..)) = known {
        let reference = Ref::new(format!("#/components/headers/{name}"));
        response.headers.insert((*name).to_owned(), RefOr::Ref(reference));
    }
}
