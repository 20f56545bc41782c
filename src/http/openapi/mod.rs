//! The OpenAPI document, besides its operations: general information, access control and the names of operations.
//!
//! The parts that many operations share are added here: their problems ([`errors`]), their headers ([`headers`]), and the schemas
//! of events ([`events`]) and positions ([`positions`]).

mod errors;
mod events;
mod headers;
mod positions;

use std::fmt::Write;

use utoipa::{
    OpenApi,
    openapi::{
        OpenApi as Document,
        path::{Operation, PathItem},
        security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
    },
};
use utoipa_axum::router::OpenApiRouter;

pub use self::positions::PositionText;
use super::{
    batches::add_item_schemas,
    error_code::ErrorCode,
    problem::{FieldError, ProblemBody},
    state::AppState,
};
use passbook_auth::{Access, Scope};
use passbook_domain::{
    Limits,
    event::{
        AccountOpened, HoldCaptured, HoldPlaced, HoldReleased, MoneyMoved, MovementReversed, StatusChanged,
        TransferReceived, TransferSent,
    },
    other_event::{WebhookDeleted, WebhookPaused, WebhookRegistered, WebhookResumed},
};

/// The name of the security scheme.
const BEARER: &str = "bearer";

/// Whether the service that a document describes has access control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessControl {
    /// Each operation requires a token with its scope.
    On,
    /// No operation requires a token.
    Off,
    /// The document describes services with and without access control.
    Either,
}

impl From<&Access> for AccessControl {
    fn from(access: &Access) -> Self {
        match access {
            Access::Tokens(_) => Self::On,
            Access::Loopback | Access::Off => Self::Off,
        }
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Passbook",
        description = "An event-sourced bank. Commands change accounts and respond with a receipt; queries read views that \
            follow the log of events.\n\n\
            **Money** is an integer in the currency's minor unit: `12550` is 125.50 EUR.\n\n\
            **Retries** are safe with an `Idempotency-Key`: the same request with the same key is executed once and always has \
            the same response.\n\n\
            **Read your own writes**: pass the `position` of a receipt as `min_position` to a query. It is an opaque text, \
            such as `42`, or `0:42,3:17` if the log has several partitions.\n\n\
            **Access**: with access control on, each operation requires a bearer token with the scope that it names. The \
            response for an account that the caller may not see is the same as for a missing account.\n\n\
            **Errors** are `application/problem+json` (RFC 9457). Compare `code`.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    servers((url = "/", description = "This server")),
    security(()),
    components(schemas(
        ProblemBody<'static>, ErrorCode, FieldError<'static>, PositionText,
        AccountOpened, MoneyMoved, TransferSent, TransferReceived, HoldPlaced, HoldCaptured, HoldReleased,
        MovementReversed, Limits, StatusChanged, WebhookRegistered, WebhookPaused, WebhookResumed, WebhookDeleted,
    )),
    tags(
        (name = "Commands", description = "Change accounts."),
        (name = "Queries", description = "Read the views."),
        (name = "Audit", description = "Read and verify the log of events."),
        (name = "Webhooks", description = "Send events to other programs."),
        (name = "Service", description = "Operate the service."),
    ),
)]
struct Passbook;

/// The document without operations. The route table adds them.
pub fn document() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(Passbook::openapi())
}

/// Completes a document that has its operations: gives them camelCase ids, and adds their problems, headers and access control.
pub fn finish(mut document: Document, access: AccessControl) -> Document {
    let components = document.components.get_or_insert_default();
    if access != AccessControl::Off {
        components.add_security_scheme(BEARER, SecurityScheme::Http(bearer_scheme()));
    }
    components.headers.extend(headers::components());
    positions::refer_to_positions(&mut components.schemas);
    events::split_by_type(&mut components.schemas);
    add_item_schemas(&mut components.schemas);
    for (path, item) in &mut document.paths.paths {
        for operation in operations(item) {
            operation.operation_id = operation.operation_id.as_deref().map(camel_case);
            add_access_control(operation, access);
            let (name, schema) = errors::add_problems(operation, path, access);
            components.schemas.insert(name, schema);
            headers::add_headers(operation);
        }
    }
    document
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch].into_iter().flatten()
}

/// `open_account` as `openAccount`. The names of handlers are verbs with nouns, and so are the ids of their operations.
fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    camel.extend(words.map(capitalized));
    camel
}

fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

fn bearer_scheme() -> Http {
    let mut bearer = Http::new(HttpAuthScheme::Bearer);
    bearer.bearer_format = Some("JWT".to_owned());
    bearer.description = Some(
        "A token of the OpenID Connect provider that the service trusts, with scopes in `scope` or `scp`. Without access \
         control, no token is needed."
            .to_owned(),
    );
    bearer
}

/// Describes the scope of an operation that requires a token, or that it requires none.
fn add_access_control(operation: &mut Operation, access: AccessControl) {
    if access == AccessControl::Off {
        operation.security = None;
        return;
    }
    let Some(security) = &mut operation.security else { return };
    let scope = security.first().and_then(scope_of);
    if let Some(any) = scope.and_then(Scope::on_any_account) {
        security.push(SecurityRequirement::new(BEARER, [any.name()]));
    }
    if access == AccessControl::Either {
        security.insert(0, SecurityRequirement::default());
    }
    if let Some(scope) = scope {
        // Writing to a String cannot fail.
        let _ = write!(operation.description.get_or_insert_default(), "\n\n{}", scope_sentence(scope));
    }
}

fn scope_sentence(scope: Scope) -> String {
    let own = scope.name();
    match scope.on_any_account() {
        Some(any) => {
            format!("Requires the scope `{own}` for the caller's own accounts, or `{}` for any account.", any.name())
        }
        None => format!("Requires the scope `{own}`."),
    }
}

/// The scope of a security requirement.
fn scope_of(requirement: &SecurityRequirement) -> Option<Scope> {
    let requirement = serde_json::to_value(requirement).ok()?;
    Scope::from_name(requirement.get(BEARER)?.get(0)?.as_str()?)
}

#[cfg(test)]
mod tests {
    use super::camel_case;

    #[test]
    fn operation_ids_are_the_names_of_handlers_in_camel_case() {
        assert_eq!(camel_case("open_account"), "openAccount");
        assert_eq!(camel_case("list_account_events"), "listAccountEvents");
        assert_eq!(camel_case("freeze"), "freeze");
    }
}
