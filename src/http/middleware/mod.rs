//! Middleware around every route, from the request's id to the limits on memory.

pub mod body_limit;
pub mod compression;
pub mod denial_log;
pub mod origin_guard;
pub mod problem_log;
pub mod rate_limit;
pub mod request_context;
pub mod response_budget;
pub mod security_headers;
