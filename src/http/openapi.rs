//! The OpenAPI document, besides its operations: general information, access control and the names of operations.

use std::fmt::Write;

use utoipa::{
    OpenApi,
    openapi::{
        Content, Header, ObjectBuilder, OpenApi as Document, Ref, Response, ResponseBuilder, Schema, Type,
        path::{Operation, PathItem},
        security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
    },
};
use utoipa_axum::router::OpenApiRouter;

use super::{
    error_code::ErrorCode,
    problem::{FieldError, PROBLEM_JSON, ProblemBody},
    state::AppState,
};
use passbook_auth::Scope;

/// The name of the security scheme.
const BEARER: &str = "bearer";

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
    components(schemas(ProblemBody<'static>, ErrorCode, FieldError<'static>)),
    tags(
        (name = "Commands", description = "Change accounts."),
        (name = "Queries", description = "Read the views."),
        (name = "Audit", description = "Read and verify the log of events."),
        (name = "Service", description = "Operate the service."),
    ),
)]
struct Passbook;

/// The document without operations. The route table adds them.
pub fn document() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(Passbook::openapi())
}

/// Completes a document that has its operations: gives them camelCase ids, and adds what access control means for them.
pub fn finish(mut document: Document) -> Document {
    let mut bearer = Http::new(HttpAuthScheme::Bearer);
    bearer.bearer_format = Some("JWT".to_owned());
    bearer.description = Some(
        "A token of the OpenID Connect provider that the service trusts, with scopes in `scope` or `scp`. Without access \
         control, no token is needed."
            .to_owned(),
    );
    document.components.get_or_insert_default().add_security_scheme(BEARER, SecurityScheme::Http(bearer));
    for operation in document.paths.paths.values_mut().flat_map(operations) {
        operation.operation_id = operation.operation_id.as_deref().map(camel_case);
        add_access_control(operation);
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
    for word in words {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}

/// Adds what access control means to an operation that requires a token: its scope, and the responses without it.
fn add_access_control(operation: &mut Operation) {
    let Some(requirement) = operation.security.as_ref().and_then(|required| required.first()) else { return };
    if let Some(scope) = scope_of(requirement) {
        add_scope(operation, scope);
    }
    let responses = &mut operation.responses.responses;
    for (status, description, headers) in [
        (
            "401",
            "The request has no valid token: `unauthenticated`. `WWW-Authenticate` has the reason.",
            &["WWW-Authenticate"][..],
        ),
        (
            "429",
            "The caller sent too many requests: `rate_limited`. Nothing was done.",
            &["Retry-After", "RateLimit", "RateLimit-Policy"],
        ),
    ] {
        responses.insert(status.to_owned(), problem_response(description, headers).into());
    }
}

fn add_scope(operation: &mut Operation, scope: Scope) {
    let mut description = operation.description.take().unwrap_or_default();
    // Writing to a String cannot fail.
    let _ = match scope.on_any_account() {
        Some(any) => {
            operation.security.get_or_insert_default().push(SecurityRequirement::new(BEARER, [any.name()]));
            let (own, any) = (scope.name(), any.name());
            write!(
                description,
                "\n\nRequires the scope `{own}` for the caller's own accounts, or `{any}` for any account."
            )
        }
        None => write!(description, "\n\nRequires the scope `{}`.", scope.name()),
    };
    operation.description = Some(description);
    let refusal = "The token lacks a scope: `forbidden`. `WWW-Authenticate` names it.";
    let response = problem_response(refusal, &["WWW-Authenticate"]);
    operation.responses.responses.insert("403".to_owned(), response.into());
}

/// The scope of a security requirement.
fn scope_of(requirement: &SecurityRequirement) -> Option<Scope> {
    let requirement = serde_json::to_value(requirement).ok()?;
    Scope::from_name(requirement.get(BEARER)?.get(0)?.as_str()?)
}

fn problem_response(description: &str, headers: &[&str]) -> Response {
    let text = Header::new(Schema::from(ObjectBuilder::new().schema_type(Type::String)));
    let response = ResponseBuilder::new()
        .description(description)
        .content(PROBLEM_JSON, Content::new(Some(Ref::from_schema_name("Problem"))));
    headers.iter().fold(response, |response, name| response.header(*name, text.clone())).build()
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
