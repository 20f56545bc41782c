//! The route table: the API on one screen, and the layers around it. The OpenAPI document is generated from it.

use std::{any::Any, sync::Arc};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::HeaderMap,
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    account_status, accounts, batches, books, checkpoints, console, currencies, daily_balances, documents,
    error_code::ErrorCode,
    event_stream, events,
    extract::client_ip::TrustedProxies,
    health, holds, limits, metrics,
    middleware::{
        body_limit::BodyLimitLayer,
        compression::{self, EncoderBudget},
        origin_guard, rate_limit, request_context, response_budget, security_headers,
    },
    movements,
    openapi::{self, AccessControl},
    overview,
    problem::{Problem, problem_page},
    projections, reversals,
    state::AppState,
    statement,
    static_content::StaticContent,
    swagger_ui, transactions, transfers, verification, webhooks,
};
use passbook_telemetry::{metrics::METRICS, supervision::panic_message};

/// The most bytes of a request body, except that of a batch.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// Every operation of the API.
fn api() -> OpenApiRouter<AppState> {
    openapi::document()
        // Commands
        .routes(routes!(accounts::open_account, accounts::list_accounts))
        .routes(routes!(movements::create_deposit))
        .routes(routes!(movements::create_withdrawal))
        .routes(routes!(transfers::create_transfer))
        .routes(routes!(holds::place_hold, holds::list_holds))
        .routes(routes!(holds::capture_hold))
        .routes(routes!(holds::void_hold))
        .routes(routes!(reversals::reverse_transaction))
        .routes(routes!(limits::set_limits, limits::get_limits))
        .routes(routes!(account_status::freeze_account))
        .routes(routes!(account_status::unfreeze_account))
        .routes(routes!(account_status::close_account))
        .routes(routes!(batches::execute_batch))
        // Queries
        .routes(routes!(accounts::get_account))
        .routes(routes!(holds::get_hold))
        .routes(routes!(transactions::list_transactions))
        .routes(routes!(transactions::search_transactions))
        .routes(routes!(statement::get_statement))
        .routes(routes!(daily_balances::list_daily_balances))
        .routes(routes!(transfers::get_transfer))
        .routes(routes!(overview::get_overview))
        .routes(routes!(books::trial_balance::get_trial_balance))
        .routes(routes!(books::journal::get_journal))
        .routes(routes!(currencies::list_currencies))
        .routes(routes!(projections::list_projections))
        .routes(routes!(projections::rebuild_projection))
        // Audit
        .routes(routes!(events::list_account_events))
        .routes(routes!(events::list_events))
        .routes(routes!(event_stream::stream_events))
        .routes(routes!(verification::verify_account))
        .routes(routes!(verification::get_log_head))
        .routes(routes!(checkpoints::get_log_checkpoint))
        .routes(routes!(checkpoints::list_log_keys))
        // Webhooks
        .routes(routes!(webhooks::register_webhook, webhooks::list_webhooks))
        .routes(routes!(webhooks::get_webhook, webhooks::delete_webhook))
        .routes(routes!(webhooks::pause_webhook))
        .routes(routes!(webhooks::resume_webhook))
        .routes(routes!(webhooks::rotate_webhook_secret))
        .routes(routes!(webhooks::replay_webhook))
        .routes(routes!(webhooks::send_webhook_test))
        .routes(routes!(webhooks::list_webhook_deliveries))
        // Service
        .routes(routes!(health::get_liveness))
        .routes(routes!(health::get_readiness))
        .routes(routes!(metrics::get_metrics))
}

/// The API, its document and its pages, with the layers around them.
pub fn router(app: AppState) -> Router {
    let (api, document) = api().split_for_parts();
    // From the outermost layer to the innermost.
    let layers = ServiceBuilder::new()
        .layer(from_fn_with_state((app.clone(), EncoderBudget::new()), middleware))
        .layer(CatchPanicLayer::custom(panic_response))
        .layer(BodyLimitLayer::new(batches::body_bytes_max))
        // axum's own limit rejects a body only after it has arrived, even if its Content-Length is too large.
        .layer(DefaultBodyLimit::disable());
    let document = openapi::finish(document, AccessControl::from(&app.access));
    let document = Arc::new(StaticContent::json(&document));
    let serve_document = async move |headers: HeaderMap| document.response(&headers);
    console::prepare();
    api.merge(swagger_ui::routes())
        .merge(documents::routes())
        .route("/openapi.json", get(serve_document))
        .route("/problems/{code}", get(problem_page))
        .route("/", get(console::index))
        .route("/console/currencies.json", get(console::currencies))
        .route("/console/sign-in.json", get(console::sign_in))
        .route("/console/{*file}", get(console::file))
        .fallback(|| async { Problem::from_code(ErrorCode::NotFound) })
        .layer(layers)
        .with_state(app)
}

/// The middleware of every route, from the outermost to the innermost. It is one layer, because a router boxes each of its layers and
/// clones it for each request.
async fn middleware(
    State((app, encoders)): State<(AppState, EncoderBudget)>,
    request: Request,
    next: Next,
) -> Response {
    let handle = |request| response_budget::enforce(request, |request| next.run(request));
    let guard = |request| origin_guard::reject_cross_site(&app.access, request, handle);
    let limit = |request| rate_limit::enforce(&app, request, guard);
    let record = |request| request_context::request_context(&app.trusted_proxies, request, limit);
    let secure = |request| security_headers::security_headers(request, record);
    compression::compress(&encoders, request, secure).await
}

/// The middleware of a response that is 503 in any case.
async fn overloaded_middleware(State(proxies): State<TrustedProxies>, request: Request, next: Next) -> Response {
    let record = |request| request_context::request_context(&proxies, request, |request| next.run(request));
    security_headers::security_headers(request, record).await
}

/// Answers 503 to every request, for connections beyond the limit.
pub fn overloaded_router(proxies: TrustedProxies) -> Router {
    Router::new()
        .fallback(|| async { Problem::from_code(ErrorCode::Overloaded) })
        .layer(from_fn_with_state(proxies, overloaded_middleware))
}

/// The OpenAPI document as `passbook openapi` prints it, for services with and without access control.
pub fn openapi_json() -> String {
    let document = openapi::finish(api().into_openapi(), AccessControl::Either);
    let json = serde_json::to_string_pretty(&document);
    json.map(|json| json + "\n").unwrap_or_default()
}

/// Logs a panic of a handler and answers 500. Other requests are not affected.
fn panic_response(panic: Box<dyn Any + Send + 'static>) -> Response {
    METRICS.request_panics.inc();
    tracing::error!(panic = panic_message(&*panic), "handler panicked");
    Problem::from_code(ErrorCode::InternalError).into_response()
}
