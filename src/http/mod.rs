//! The way in: the route table is the API on one screen, and the OpenAPI document falls out of it.

mod accept;
mod accounts;
mod address;
mod answer;
mod ask;
mod audit;
mod caller;
mod code;
mod console;
mod cursor;
mod daily_balances;
mod door;
mod envelope;
mod events;
mod feed;
mod figures;
#[cfg(test)]
mod fuzz;
mod headers;
mod limit;
mod openapi;
mod operations;
mod overview;
mod parameters;
mod problem;
mod queries;
mod serve;
mod shield;
mod statement;
mod transactions;
mod transfers;
mod unread;

use std::{
    any::Any,
    ops::Deref,
    sync::{Arc, atomic::AtomicBool},
};

use axum::{Router, extract::DefaultBodyLimit, middleware, response::IntoResponse, response::Response, routing::get};
use tower::ServiceBuilder;
use tower_http::{catch_panic::CatchPanicLayer, compression::CompressionLayer, limit::RequestBodyLimitLayer};
use utoipa_axum::{router::OpenApiRouter, routes};
use utoipa_swagger_ui::SwaggerUi;

use self::problem::{Code, Problem};
use passbook_audit::{Audit, Trail, feed::Feed};
use passbook_auth::Access;
use passbook_bank::Bank;
use passbook_read_model::ReadModel;

pub use address::Proxies;
pub use figures::serve_metrics;
pub use limit::Limits;
pub use openapi::openapi_json;
pub use serve::{Server, serve};

/// How large a request body may be.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// What handlers work with. Each layer and each handler has a clone of its own.
#[derive(Clone)]
struct App(Arc<Rooms>);

impl Deref for App {
    type Target = Rooms;

    fn deref(&self) -> &Rooms {
        &self.0
    }
}

/// What the way in leads to.
pub struct Rooms {
    bank: Bank,
    read_model: ReadModel,
    audit: Audit,
    trail: Trail,
    feed: Feed,
    access: Access,
    limits: Option<Limits>,
    proxies: Proxies,
    /// Told to end, and serving on until a load balancer has noticed.
    is_leaving: Arc<AtomicBool>,
}

impl Rooms {
    /// Commands go to `bank`, queries to `read_model`, questions about the log itself to `audit`, and who reads or follows
    /// the log to `feed`; `access` says who may.
    pub fn new(bank: Bank, read_model: ReadModel, audit: Audit, feed: Feed, access: Access) -> Self {
        let trail = feed.trail().clone();
        Self {
            bank,
            read_model,
            audit,
            trail,
            feed,
            access,
            limits: None,
            proxies: Proxies::default(),
            is_leaving: Arc::default(),
        }
    }

    /// Limits how much each caller may ask.
    pub fn limited(self, limits: Option<Limits>) -> Self {
        Self { limits, ..self }
    }

    /// Believes what these proxies say of whom they were asked by.
    pub fn behind(self, proxies: Proxies) -> Self {
        Self { proxies, ..self }
    }
}

/// Every operation of the API.
fn api() -> OpenApiRouter<App> {
    openapi::document()
        // Commands
        .routes(routes!(accounts::open, queries::list_accounts))
        .routes(routes!(accounts::deposit))
        .routes(routes!(accounts::withdraw))
        .routes(routes!(transfers::transfer))
        .routes(routes!(accounts::freeze))
        .routes(routes!(accounts::unfreeze))
        .routes(routes!(accounts::close))
        // Queries
        .routes(routes!(queries::get_account))
        .routes(routes!(transactions::list_transactions))
        .routes(routes!(statement::get_statement))
        .routes(routes!(daily_balances::list_daily_balances))
        .routes(routes!(queries::get_transfer))
        .routes(routes!(overview::get_overview))
        .routes(routes!(operations::list_projections))
        .routes(routes!(operations::rebuild))
        // Audit
        .routes(routes!(events::list_account_events))
        .routes(routes!(events::list_events))
        .routes(routes!(feed::stream_events))
        .routes(routes!(audit::verify_account))
        .routes(routes!(audit::log_head))
        // Service
        .routes(routes!(operations::livez))
        .routes(routes!(operations::readyz))
        .routes(routes!(operations::metrics))
}

/// The API, its document and its pages, with what every request gets wrapped around.
fn router(app: App) -> Router {
    let (api, document) = api().split_for_parts();
    let document = openapi::secured(document);
    // From the outermost to the innermost, and as one layer: a router boxes, and for each request clones, every layer of it.
    let around = ServiceBuilder::new()
        .map_request(envelope::gzip_or_identity)
        .layer(CompressionLayer::new())
        .layer(middleware::from_fn(shield::headers))
        .layer(middleware::from_fn_with_state(app.proxies.clone(), envelope::wrap))
        .option_layer(app.limits.is_some().then(|| middleware::from_fn_with_state(app.clone(), limit::enforce)))
        .layer(middleware::from_fn_with_state(app.access.clone(), door::guard))
        .layer(middleware::from_fn(unread::bound))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(RequestBodyLimitLayer::new(BODY_BYTES_MAX))
        // In place of axum's own limit, which notices a body that is announced too large only once it has come.
        .layer(DefaultBodyLimit::disable());
    api.merge(SwaggerUi::new("/swagger-ui").url("/openapi.json", document))
        .route("/problems/{code}", get(code::page))
        .route("/", get(console::page))
        .route("/console/currencies.json", get(console::currencies))
        .route("/console/{*file}", get(console::file))
        .fallback(|| async { Problem::of(Code::NotFound) })
        .layer(around)
        .with_state(app)
}

/// What a connection beyond all limits is told.
fn overloaded(proxies: Proxies) -> Router {
    Router::new()
        .fallback(|| async { Problem::of(Code::Overloaded) })
        .layer(middleware::from_fn_with_state(proxies, envelope::wrap))
        .layer(middleware::from_fn(shield::headers))
}

/// No request should get here; if one does, the others go on.
fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let said = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(panic = said.unwrap_or("(no words)"), "a handler panicked");
    Problem::of(Code::InternalError).into_response()
}
