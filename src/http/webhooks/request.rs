//! The requests on webhooks: a body and the context in which it is executed. They take neither an idempotency key nor a dry run.

use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, Request};
use serde::{Deserialize, de::DeserializeOwned};
use utoipa::ToSchema;

use crate::http::{
    error_code::ErrorCode,
    extract::{
        body::{JsonBody, parse},
        command::command_context,
        cursor,
        headers::idempotency_key,
        parameters::{owner, parse_query, uuid},
    },
    problem::Problem,
    state::AppState,
};
use passbook_audit::Cursor;
use passbook_auth::{Caller, Scope};
use passbook_bank::CommandContext;
use passbook_domain::EventType;
use passbook_webhooks::NewWebhook;

/// The most types of a request. It is more than there are.
const TYPES_MAX: usize = 64;

/// A command on webhooks with a body of type `B`, of a caller with the scope `webhooks`.
pub struct WebhookRequest<B> {
    pub body: B,
    pub context: CommandContext,
}

/// A body without members.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Empty {}

impl<B: DeserializeOwned> FromRequest<AppState> for WebhookRequest<B> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let caller = Caller::from_request_parts(&mut parts, state).await?;
        caller.require(Scope::Webhooks)?;
        let Empty {} = parse_query(&parts.uri)?;
        if idempotency_key(&parts.headers)?.is_some() {
            let detail = "Commands on webhooks take no Idempotency-Key. Leave the header out.";
            return Err(Problem::new(ErrorCode::InvalidIdempotencyKey, detail));
        }
        let context = command_context(&caller, &parts, false);
        let json = JsonBody::read(&parts.headers, body).await?;
        Ok(Self { body: parse(json.bytes())?, context })
    }
}

/// An endpoint to register.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegisterWebhook {
    /// The URL to which events are sent. It begins with `https://` and has no user name, and its host has public addresses only.
    #[schema(example = "https://hooks.example/passbook", max_length = 2048)]
    url: String,
    /// The types of the events to send; default: all.
    #[schema(value_type = Option<Vec<EventType>>, nullable = false, max_items = 64, example = json!(["MoneyDeposited"]))]
    types: Option<Vec<String>>,
    /// The account whose events to send; default: all.
    #[schema(value_type = Option<uuid::Uuid>, nullable = false)]
    account_id: Option<String>,
    /// The owner of the accounts whose events to send; default: all.
    #[schema(nullable = false, example = "customer-17", min_length = 1, max_length = 255, pattern = r"^[^\u0000]*$")]
    owner: Option<String>,
    /// Send the events after this cursor or position; `0`: from the first event. Default: the events from now on.
    #[schema(value_type = Option<Cursor>, nullable = false)]
    after: Option<String>,
}

impl RegisterWebhook {
    /// The endpoint.
    ///
    /// # Errors
    /// 400 `invalid_parameter`, with the field.
    pub fn into_new(self) -> Result<NewWebhook, Problem> {
        let types = self.types.unwrap_or_default();
        if types.len() > TYPES_MAX {
            let detail = format!("types must have at most {TYPES_MAX} items.");
            return Err(Problem::invalid_parameter("types", detail));
        }
        Ok(NewWebhook {
            url: self.url,
            types: types.iter().map(|name| event_type(name)).collect::<Result<_, _>>()?,
            account_id: self.account_id.as_deref().map(|id| uuid("account_id", id)).transpose()?,
            owner: self.owner.map(owner).transpose()?,
            after: self.after.map(|after| cursor::parse_log("after", Some(&after))).transpose()?,
        })
    }
}

fn event_type(name: &str) -> Result<EventType, Problem> {
    let unknown = || {
        let shown: String = name.chars().take(64).collect();
        Problem::invalid_parameter("types", format!("types must contain types of events, and {shown:?} is none."))
    };
    EventType::from_name(name).ok_or_else(unknown)
}

/// The position from which events are sent again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayWebhook {
    /// Send the events after this cursor or position; `0`: from the first event.
    #[schema(value_type = Cursor)]
    pub after: Arc<str>,
}
