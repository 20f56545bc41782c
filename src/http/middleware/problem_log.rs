//! Counts the problems of a request, and logs the denials among them. A batch has one for each command that fails.

use std::sync::Arc;

use axum::http::{Method, request::Parts};

use super::{
    denial_log::{self, Denial},
    rate_limit::is_probe,
};
use crate::http::{
    error_code::ErrorCode,
    extract::{caller::CallerSlot, client_ip::ClientIp, headers::RequestId},
    problem::Problem,
};
use passbook_telemetry::metrics::METRICS;

/// The parts of a request that its problems and log lines name.
#[derive(Clone, Debug)]
pub struct ProblemLog {
    /// The id of the request.
    pub id: Arc<str>,
    /// Its method.
    pub method: Method,
    /// Its path.
    pub path: Arc<str>,
    /// Its caller, once that is known.
    pub caller: CallerSlot,
    /// The address of its client.
    pub client: Option<ClientIp>,
}

impl ProblemLog {
    /// The log of a request that has passed the request-context middleware.
    pub fn of(parts: &Parts) -> Self {
        let RequestId(id) = parts.extensions.get().cloned().unwrap_or_else(|| RequestId::from_headers(&parts.headers));
        Self {
            id,
            method: parts.method.clone(),
            path: Arc::from(parts.uri.path()),
            caller: parts.extensions.get().cloned().unwrap_or_default(),
            client: parts.extensions.get().copied(),
        }
    }

    /// Counts a problem, and logs it if the caller was denied.
    pub fn record(&self, problem: &Problem) {
        let code = &[problem.code().as_str()];
        METRICS.refusals.with_label_values(code).inc();
        let Some(reason) = problem.denial_reason() else { return };
        METRICS.authority_refusals.with_label_values(code).inc();
        if problem.code() == ErrorCode::RateLimited || is_probe(&self.path) {
            tracing::debug!(request_id = &*self.id, path = &*self.path, reason, "access denied");
            return;
        }
        let denial = Denial {
            caller: self.caller.subject().unwrap_or("unknown").to_owned(),
            address: self.client.map(|ClientIp(address)| address),
            method: self.method.clone(),
            path: (*self.path).to_owned(),
            reason: reason.to_owned(),
        };
        denial_log::record(denial, self.caller.client_key(self.client), &self.id);
    }
}
