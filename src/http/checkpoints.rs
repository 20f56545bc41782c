//! Checkpoints of the log, and the keys that sign them.

use axum::{Json, extract::State, http::header, response::IntoResponse, response::Response};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    extract::parameters::{NoParameters, QueryParameters},
    problem::Problem,
    state::AppState,
};
use passbook_auth::{Caller, Scope};
use passbook_checkpoint::LogKey;
use passbook_event_store::timestamp;

/// The media type of a signed note.
const TEXT: &str = "text/plain; charset=utf-8";

/// The keys of the log.
#[derive(Debug, Serialize, ToSchema)]
pub struct LogKeys {
    /// The keys, the first one first. The last one signs.
    data: Vec<LogKeyView>,
}

/// A public key of the log.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LogKey)]
pub struct LogKeyView {
    /// The key, as `passbook verify --log-key` and other verifiers of C2SP signed notes take it.
    #[schema(
        example = "passbook/01900000-0000-7000-8000-000000000001+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
    )]
    key: String,
    /// Since when it signs.
    #[serde(with = "timestamp")]
    from: DateTime<Utc>,
    /// When another key replaced it; null for the current key.
    #[serde(with = "timestamp::option")]
    #[schema(required = true)]
    until: Option<DateTime<Utc>>,
}

impl From<LogKey> for LogKeyView {
    fn from(LogKey { key, from, until }: LogKey) -> Self {
        Self { key: key.to_string(), from, until }
    }
}

/// Get a checkpoint of the log
///
/// The head of each partition as a C2SP signed note (Ed25519): the name of the log, a line `partition position hash` for each
/// partition, the time, an empty line, and the signature. Keep it outside of the database: `passbook verify --checkpoint` proves
/// later that the log still contains the same events.
#[utoipa::path(
    get, path = "/v1/log/checkpoint", tag = "Audit", security(("bearer" = ["audit:read"])),
    responses((status = 200, description = "The signed note.", body = String, content_type = "text/plain")),
)]
pub async fn get_log_checkpoint(
    State(app): State<AppState>,
    caller: Caller,
    _: QueryParameters<NoParameters>,
) -> Result<Response, Problem> {
    caller.require(Scope::AuditRead)?;
    let (note, _) = app.checkpoints.sign().await?;
    Ok(([(header::CONTENT_TYPE, TEXT)], note).into_response())
}

/// List the keys of the log
///
/// The public keys that sign or signed checkpoints. Keep them outside of the database as well, and compare a new one with what the
/// operator announces.
#[utoipa::path(
    get, path = "/v1/log/keys", tag = "Audit", security(("bearer" = ["audit:read"])),
    responses((status = 200, description = "The keys.", body = LogKeys)),
)]
pub async fn list_log_keys(
    State(app): State<AppState>,
    caller: Caller,
    _: QueryParameters<NoParameters>,
) -> Result<Response, Problem> {
    caller.require(Scope::AuditRead)?;
    let keys = app.checkpoints.keys().await?;
    Ok(Json(LogKeys { data: keys.into_iter().map(LogKeyView::from).collect() }).into_response())
}
