//! The OpenAPI document: what the route table cannot say by itself.

use std::fmt::Write;

use utoipa::{
    IntoParams, IntoResponses, OpenApi,
    openapi::{
        Content, Header, ObjectBuilder, OpenApi as Document, Ref, Response, ResponseBuilder, Schema, Type,
        path::Operation,
        security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
    },
};
use utoipa_axum::router::OpenApiRouter;

use super::{
    App, api,
    problem::{Code, FieldError, ProblemBody},
};
use passbook_auth::Scope;

/// What the document calls the way in which tokens come.
const BEARER: &str = "bearer";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Passbook",
        description = "An event-sourced bank. Commands change accounts and answer with a receipt; queries read views \
            that follow the log.\n\n\
            **Money** is an integer in the currency's minor unit: `12550` is 125.50 EUR.\n\n\
            **Retries** are safe with an `Idempotency-Key`: the same request under the same key is carried out once, \
            and answered alike ever after.\n\n\
            **Read your own writes**: pass the `position` of a receipt as `min_position` to a query. It is one text, \
            `42`, or `0:42,3:17` where the log has several partitions; never take it apart.\n\n\
            **Access**: with access control on, each operation needs a bearer token with the scope that it names. An \
            account that the caller may not see is answered as one that is not there.\n\n\
            **Errors** are `application/problem+json` (RFC 9457); compare `code`.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    servers((url = "/", description = "This server")),
    security(()),
    components(schemas(ProblemBody<'static>, Code, FieldError<'static>)),
    tags(
        (name = "Commands", description = "What changes accounts."),
        (name = "Queries", description = "What the views know."),
        (name = "Audit", description = "The log itself, for those who check it."),
        (name = "Service", description = "For whoever runs it."),
    ),
)]
struct Passbook;

/// The document without its operations, to which the route table adds them.
pub fn document() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Passbook::openapi())
}

/// The whole document as `passbook openapi` prints it.
pub fn openapi_json() -> String {
    let document = secured(api().into_openapi());
    let json = serde_json::to_string_pretty(&document);
    json.map(|json| json + "\n").unwrap_or_default()
}

/// The document with what access control adds to every operation that names a scope: how to send a token, which scope
/// is needed, what is answered without, and to who asks too often.
pub fn secured(mut document: Document) -> Document {
    let mut bearer = Http::new(HttpAuthScheme::Bearer);
    bearer.bearer_format = Some("JWT".to_owned());
    bearer.description = Some(
        "A token of the OpenID Connect provider that the service trusts, with scopes in `scope` or `scp`. \
         None is needed where access control is off."
            .to_owned(),
    );
    document.components.get_or_insert_default().add_security_scheme(BEARER, SecurityScheme::Http(bearer));
    for item in document.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
        operations.into_iter().flatten().for_each(secure);
    }
    document
}

fn secure(operation: &mut Operation) {
    let Some(scope) = operation.security.as_ref().and_then(|needed| needed.first()).and_then(scope_of) else { return };
    let mut said = operation.description.take().unwrap_or_default();
    match scope.any() {
        Some(any) => {
            let (own, any) = (scope.word(), any.word());
            // Writing is fmt to a String, which cannot fail.
            let _ =
                write!(said, "\n\nNeeds the scope `{own}` for the caller's own accounts, or `{any}` for any account.");
            operation.security.get_or_insert_default().push(SecurityRequirement::new(BEARER, [any]));
        }
        None => {
            let _ = write!(said, "\n\nNeeds the scope `{}`.", scope.word());
        }
    }
    operation.description = Some(said);
    let responses = &mut operation.responses.responses;
    for (status, description) in [
        ("401", "No token, or none that is taken: `unauthenticated`. `WWW-Authenticate` tells why."),
        ("403", "The token lacks a scope: `forbidden`. `WWW-Authenticate` names it."),
    ] {
        responses.insert(status.to_owned(), refusal(description, &["WWW-Authenticate"]).into());
    }
    let limited = "The caller asks too often: `rate_limited`. Nothing was done.";
    responses.insert("429".to_owned(), refusal(limited, &["Retry-After", "RateLimit", "RateLimit-Policy"]).into());
}

/// The scope that a requirement names.
fn scope_of(requirement: &SecurityRequirement) -> Option<Scope> {
    let requirement = serde_json::to_value(requirement).ok()?;
    Scope::of(requirement.get(BEARER)?.get(0)?.as_str()?)
}

fn refusal(description: &str, headers: &[&str]) -> Response {
    let text = Header::new(Schema::from(ObjectBuilder::new().schema_type(Type::String)));
    let response = ResponseBuilder::new()
        .description(description)
        .content("application/problem+json", Content::new(Some(Ref::from_schema_name("Problem"))));
    headers.iter().fold(response, |response, name| response.header(*name, text.clone())).build()
}

/// What every command may say of its retries.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct RetryHeader {
    /// Makes retries safe: 1 to 255 visible ASCII characters, a new one for each new request.
    #[param(
        rename = "Idempotency-Key",
        required = false,
        nullable = false,
        pattern = r#"^([!#-~][!-~]{0,254}|"([!#-\[\]-~]|\\["\\]){1,255}")$"#
    )]
    idempotency_key: Option<String>,
}

/// What a command on one account may demand.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct ConditionHeader {
    /// Carry the command out only if the account has this ETag, such as `"7"`; `*` is any.
    #[param(
        rename = "If-Match",
        required = false,
        nullable = false,
        example = "*",
        pattern = r#"^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)$"#
    )]
    if_match: Option<String>,
}

/// Declares which problems an operation may answer.
macro_rules! problems {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $status:literal: $description:literal,)+ }) => {
        $(#[$doc])*
        #[derive(IntoResponses)]
        #[expect(dead_code, reason = "read by the derive alone")]
        pub enum $name {
            $(
                #[doc = $description]
                #[response(status = $status, content_type = "application/problem+json")]
                $variant(ProblemBody<'static>),
            )+
        }
    };
}

problems! {
    /// What opening an account may answer instead.
    OpenProblems {
        BadRequest = 400: "The request cannot be understood: `malformed_request`, `invalid_amount`, `invalid_currency`, `invalid_parameter`, `invalid_idempotency_key`.",
        Conflict = 409: "An account with this id exists: `account_exists`.",
        PayloadTooLarge = 413: "The body is too large: `payload_too_large`.",
        UnsupportedMediaType = 415: "The body is not JSON: `unsupported_media_type`.",
        UnprocessableContent = 422: "The key stands for another request: `idempotency_key_reused`.",
        InternalServerError = 500: "A fault of the service: `internal_error`.",
        ServiceUnavailable = 503: "Try again later: `overloaded`, `storage_unavailable`, `outcome_unknown`.",
    }
}

problems! {
    /// What a command on one account may answer instead.
    CommandProblems {
        BadRequest = 400: "The request cannot be understood: `malformed_request`, `invalid_amount`, `invalid_currency`, `invalid_parameter`, `invalid_idempotency_key`.",
        NotFound = 404: "There is no such account: `account_not_found`.",
        PreconditionFailed = 412: "The account has another version than `If-Match` says: `version_mismatch`.",
        PayloadTooLarge = 413: "The body is too large: `payload_too_large`.",
        UnsupportedMediaType = 415: "The body is not JSON: `unsupported_media_type`.",
        UnprocessableContent = 422: "The state refuses the command (`account_closed`, `account_frozen`, `account_not_frozen`, `insufficient_funds`, `balance_not_zero`, `currency_mismatch`, `balance_limit_exceeded`), or the key stands for another request (`idempotency_key_reused`).",
        InternalServerError = 500: "A fault of the service: `internal_error`.",
        ServiceUnavailable = 503: "Try again later: `overloaded`, `storage_unavailable`, `outcome_unknown`.",
    }
}

problems! {
    /// What a transfer may answer instead.
    TransferProblems {
        BadRequest = 400: "The request cannot be understood: `malformed_request`, `invalid_amount`, `invalid_currency`, `invalid_parameter`, `invalid_idempotency_key`, `same_account`.",
        NotFound = 404: "There is no such account: `account_not_found`.",
        PayloadTooLarge = 413: "The body is too large: `payload_too_large`.",
        UnsupportedMediaType = 415: "The body is not JSON: `unsupported_media_type`.",
        UnprocessableContent = 422: "The state refuses the command (`account_closed`, `account_frozen`, `insufficient_funds`, `currency_mismatch`, `balance_limit_exceeded`), or the key stands for another request (`idempotency_key_reused`).",
        InternalServerError = 500: "A fault of the service: `internal_error`.",
        ServiceUnavailable = 503: "Try again later: `overloaded`, `storage_unavailable`, `outcome_unknown`.",
    }
}

problems! {
    /// What a query of one thing may answer instead.
    QueryProblems {
        BadRequest = 400: "The request cannot be understood: `invalid_parameter`, `invalid_currency`.",
        NotFound = 404: "There is no such account (`account_not_found`) or transfer (`not_found`).",
        InternalServerError = 500: "A fault of the service: `internal_error`.",
        ServiceUnavailable = 503: "Try again later: `storage_unavailable`, `projection_behind`, `overloaded`.",
    }
}

problems! {
    /// What the request for a statement may answer instead.
    StatementProblems {
        BadRequest = 400: "A parameter is missing or not valid: `invalid_parameter`.",
        NotFound = 404: "There is no such account: `account_not_found`.",
        NotAcceptable = 406: "`Accept` takes neither JSON nor CSV: `not_acceptable`.",
        InternalServerError = 500: "A fault of the service: `internal_error`.",
        ServiceUnavailable = 503: "Try again later: `storage_unavailable`, `projection_behind`, `overloaded`.",
    }
}

problems! {
    /// What a list may answer instead.
    ListProblems {
        BadRequest = 400: "The request cannot be understood: `invalid_parameter`, `invalid_currency`.",
        InternalServerError = 500: "A fault of the service: `internal_error`.",
        ServiceUnavailable = 503: "Try again later: `storage_unavailable`, `projection_behind`, `overloaded`.",
    }
}

problems! {
    /// What a question without parameters may answer instead.
    StatusProblems {
        BadRequest = 400: "There is a parameter, and none is taken: `invalid_parameter`.",
        InternalServerError = 500: "A fault of the service: `internal_error`.",
        ServiceUnavailable = 503: "Try again later: `storage_unavailable`, `projection_behind`, `overloaded`.",
    }
}

problems! {
    /// What the request for a rebuild may answer instead.
    RebuildProblems {
        BadRequest = 400: "A parameter is not valid: `invalid_parameter`.",
        NotFound = 404: "There is no such projection: `not_found`.",
        Conflict = 409: "It is being rebuilt already: `rebuild_running`.",
        InternalServerError = 500: "A fault of the service: `internal_error`.",
        ServiceUnavailable = 503: "Try again later: `storage_unavailable`, `overloaded`.",
    }
}
