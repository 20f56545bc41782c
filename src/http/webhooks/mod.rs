//! Webhooks: the endpoints that receive the events of the log.

mod request;

use axum::{
    Json,
    extract::{FromRequestParts, State},
    http::{HeaderName, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use self::request::{Empty, WebhookRequest};
pub use self::request::{RegisterWebhook, ReplayWebhook};
use super::{
    error_code::ErrorCode,
    extract::{
        cursor,
        parameters::{NoParameters, PathText, QueryParameters, limit, uuid},
    },
    problem::Problem,
    response::{DeliveryPage, Page, WebhookPage},
    state::AppState,
};
use passbook_auth::{Caller, Scope};
use passbook_webhooks::{Error, Webhook};

/// The id of a webhook in a path.
pub struct WebhookId(Uuid);

impl FromRequestParts<AppState> for WebhookId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        // Without a token, a request learns nothing about its path.
        Caller::from_request_parts(parts, state).await?;
        let PathText(text) = PathText::from_request_parts(parts, state).await?;
        uuid("webhook_id", &text).map(Self)
    }
}

/// The query parameters of the lists of webhooks and deliveries.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// The most rows of the page.
    #[param(example = 100, minimum = 1, maximum = 1000, default = 100, nullable = false)]
    limit: Option<i64>,
    /// Continue after this cursor, the `next` of the previous page.
    #[param(nullable = false)]
    after: Option<String>,
}

/// A webhook with its secret, which is shown this once.
#[derive(Serialize, ToSchema)]
pub struct WebhookWithSecret {
    #[serde(flatten)]
    webhook: Webhook,
    /// The secret that signs the deliveries. Store it now: no other response contains it.
    #[schema(example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=")]
    secret: String,
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound => Self::new(ErrorCode::NotFound, "There is no webhook with this id."),
            Error::Exists(_) => Self::new(ErrorCode::WebhookExists, format!("{}.", sentence(&error.to_string()))),
            Error::TooMany => {
                let detail = format!("{}. Delete one first.", sentence(&error.to_string()));
                Self::new(ErrorCode::LimitExceeded, detail)
            }
            Error::InvalidUrl(error) => Self::invalid_parameter("url", error.to_string()),
            Error::NoKeys(reason) => {
                let detail = format!("The secret of a webhook cannot be stored: {reason}. Nothing was done.");
                Self::new(ErrorCode::StorageUnavailable, detail)
            }
            Error::Log(error) => error.into(),
            Error::Append(error) => error.into(),
            Error::Storage(error) => passbook_audit::Error::Storage(error).into(),
        }
    }
}

/// The text with an upper-case first letter.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}

/// A secret must not be stored by a cache between client and service.
fn with_secret(status: StatusCode, (webhook, secret): (Webhook, String)) -> Response {
    let no_store: [(HeaderName, &str); 1] = [(header::CACHE_CONTROL, "no-store")];
    (status, no_store, Json(WebhookWithSecret { webhook, secret })).into_response()
}

/// Register a webhook
///
/// From now on, or from `after` on, the events of the log that the filters select are sent to the URL: at least once, in order for
/// each account, signed as in Standard Webhooks 1.0. The response contains the secret, this once. At most 100 webhooks exist.
#[utoipa::path(
    post, path = "/v1/webhooks", tag = "Webhooks", security(("bearer" = ["webhooks"])), 
    request_body(content = RegisterWebhook, example = json!({"url": "https://hooks.example/passbook", "types": ["MoneyDeposited"]})),
    responses((status = 201, description = "The webhook, with its secret.", body = WebhookWithSecret, headers(
        ("Location" = String, description = "The path of the webhook."),
    ))),
)]
pub async fn register_webhook(
    State(app): State<AppState>,
    WebhookRequest { body, context }: WebhookRequest<RegisterWebhook>,
) -> Result<Response, Problem> {
    let registered = app.webhooks.register(body.into_new()?, &context).await?;
    let location = format!("/v1/webhooks/{}", registered.0.webhook_id);
    let mut response = with_secret(StatusCode::CREATED, registered);
    if let Ok(location) = location.parse() {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// List webhooks
///
/// All webhooks in the order of their registration.
#[utoipa::path(
    get, path = "/v1/webhooks", tag = "Webhooks", security(("bearer" = ["webhooks"])), params(ListQuery),
    responses((status = 200, description = "A page of webhooks.", body = WebhookPage)),
)]
pub async fn list_webhooks(
    State(app): State<AppState>,
    caller: Caller,
    QueryParameters(query): QueryParameters<ListQuery>,
) -> Result<Response, Problem> {
    caller.require(Scope::Webhooks)?;
    let limit = limit(query.limit)?;
    let after = query.after.as_deref().map(cursor::parse_webhook).transpose()?.unwrap_or_default();
    let mut data = app.webhooks.list(after, limit + 1).await?;
    let has_more = data.len() as i64 > limit;
    data.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(Json(Page::new(data, has_more, |last| cursor::after_webhook(last.webhook_id))).into_response())
}

/// Get a webhook
///
/// Its state, how far the log was delivered, and what was wrong last.
#[utoipa::path(
    get, path = "/v1/webhooks/{webhook_id}", tag = "Webhooks", security(("bearer" = ["webhooks"])),
    params(("webhook_id" = Uuid, Path, description = "The webhook.")),
    responses((status = 200, description = "The webhook.", body = Webhook)),
)]
pub async fn get_webhook(
    State(app): State<AppState>,
    caller: Caller,
    WebhookId(webhook_id): WebhookId,
    _: QueryParameters<NoParameters>,
) -> Result<Json<Webhook>, Problem> {
    caller.require(Scope::Webhooks)?;
    Ok(Json(app.webhooks.get(webhook_id).await?))
}

/// Delete a webhook
///
/// No further deliveries begin. Its attempts are deleted after 30 days.
#[utoipa::path(
    delete, path = "/v1/webhooks/{webhook_id}", tag = "Webhooks", security(("bearer" = ["webhooks"])),
    params(("webhook_id" = Uuid, Path, description = "The webhook.")),
    responses((status = 204, description = "The webhook is deleted.")),
)]
pub async fn delete_webhook(
    State(app): State<AppState>,
    WebhookId(webhook_id): WebhookId,
    WebhookRequest { body: Empty {}, context }: WebhookRequest<Empty>,
) -> Result<StatusCode, Problem> {
    app.webhooks.delete(webhook_id, &context).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Pause a webhook
///
/// No further deliveries begin until it is resumed. It then continues where it stopped.
#[utoipa::path(
    post, path = "/v1/webhooks/{webhook_id}/pause", tag = "Webhooks", security(("bearer" = ["webhooks"])),
    params(("webhook_id" = Uuid, Path, description = "The webhook.")),
    responses((status = 200, description = "The webhook.", body = Webhook)),
)]
pub async fn pause_webhook(
    State(app): State<AppState>,
    WebhookId(webhook_id): WebhookId,
    WebhookRequest { body: Empty {}, context }: WebhookRequest<Empty>,
) -> Result<Json<Webhook>, Problem> {
    Ok(Json(app.webhooks.pause(webhook_id, &context).await?))
}

/// Resume a webhook
///
/// Continues where the webhook stopped, whether it was paused or is failing. Events that failed are sent again at once.
#[utoipa::path(
    post, path = "/v1/webhooks/{webhook_id}/resume", tag = "Webhooks", security(("bearer" = ["webhooks"])),
    params(("webhook_id" = Uuid, Path, description = "The webhook.")),
    responses((status = 200, description = "The webhook.", body = Webhook)),
)]
pub async fn resume_webhook(
    State(app): State<AppState>,
    WebhookId(webhook_id): WebhookId,
    WebhookRequest { body: Empty {}, context }: WebhookRequest<Empty>,
) -> Result<Json<Webhook>, Problem> {
    Ok(Json(app.webhooks.resume(webhook_id, &context).await?))
}

/// Rotate a webhook's secret
///
/// The response contains the new secret, this once. For 24 hours deliveries have two signatures, one by each secret.
#[utoipa::path(
    post, path = "/v1/webhooks/{webhook_id}/rotate-secret", tag = "Webhooks", security(("bearer" = ["webhooks"])),
    params(("webhook_id" = Uuid, Path, description = "The webhook.")),
    responses((status = 200, description = "The webhook, with its new secret.", body = WebhookWithSecret)),
)]
pub async fn rotate_webhook_secret(
    State(app): State<AppState>,
    WebhookId(webhook_id): WebhookId,
    WebhookRequest { body: Empty {}, .. }: WebhookRequest<Empty>,
) -> Result<Response, Problem> {
    Ok(with_secret(StatusCode::OK, app.webhooks.rotate_secret(webhook_id).await?))
}

/// Replay events to a webhook
///
/// Sets the position of the webhook: the events after it are sent, again or for the first time. A webhook that is paused or failing
/// stays so.
#[utoipa::path(
    post, path = "/v1/webhooks/{webhook_id}/replay", tag = "Webhooks", security(("bearer" = ["webhooks"])),
    params(("webhook_id" = Uuid, Path, description = "The webhook.")),
    request_body(content = ReplayWebhook, example = json!({"after": "0"})),
    responses((status = 200, description = "The webhook.", body = Webhook)),
)]
pub async fn replay_webhook(
    State(app): State<AppState>,
    WebhookId(webhook_id): WebhookId,
    WebhookRequest { body, .. }: WebhookRequest<ReplayWebhook>,
) -> Result<Json<Webhook>, Problem> {
    let after = cursor::parse_log("after", Some(&body.after))?;
    Ok(Json(app.webhooks.replay(webhook_id, &after).await?))
}

/// Test a webhook
///
/// Sends an event of the type `WebhookTest`, which is not in the log, once and at once, and waits for the result: `last_status` and
/// `last_error`.
#[utoipa::path(
    post, path = "/v1/webhooks/{webhook_id}/test", tag = "Webhooks", security(("bearer" = ["webhooks"])),
    params(("webhook_id" = Uuid, Path, description = "The webhook.")),
    responses((status = 200, description = "The webhook, with the result of the test.", body = Webhook)),
)]
pub async fn send_webhook_test(
    State(app): State<AppState>,
    WebhookId(webhook_id): WebhookId,
    WebhookRequest { body: Empty {}, .. }: WebhookRequest<Empty>,
) -> Result<Json<Webhook>, Problem> {
    Ok(Json(app.webhooks.test(webhook_id).await?))
}

/// List a webhook's deliveries
///
/// The attempts of the last 30 days, newest first. They are stored within a second.
#[utoipa::path(
    get, path = "/v1/webhooks/{webhook_id}/deliveries", tag = "Webhooks", security(("bearer" = ["webhooks"])),
    params(
        ("webhook_id" = Uuid, Path, description = "The webhook."),
        ListQuery,
    ),
    responses((status = 200, description = "A page of attempts.", body = DeliveryPage)),
)]
pub async fn list_webhook_deliveries(
    State(app): State<AppState>,
    caller: Caller,
    WebhookId(webhook_id): WebhookId,
    QueryParameters(query): QueryParameters<ListQuery>,
) -> Result<Response, Problem> {
    caller.require(Scope::Webhooks)?;
    let limit = limit(query.limit)?;
    let before = query.after.as_deref().map(cursor::parse_webhook).transpose()?.unwrap_or(Uuid::max());
    let mut data = app.webhooks.deliveries(webhook_id, before, limit + 1).await?;
    let has_more = data.len() as i64 > limit;
    data.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(Json(Page::new(data, has_more, |last| cursor::after_webhook(last.delivery_id))).into_response())
}
