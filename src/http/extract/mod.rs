//! Extractors and parsers: they turn parts of a request into types that handlers can trust.

pub mod body;
pub mod caller;
pub mod client_ip;
pub mod command;
pub mod conditions;
pub mod content_negotiation;
pub mod cursor;
pub mod headers;
pub mod metadata;
pub mod nested_path;
pub mod parameters;
pub mod preferences;
pub mod search;
