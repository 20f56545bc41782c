//! Reads and parses request bodies.

use std::{error::Error, iter::successors, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, header},
};
use http_body_util::{BodyExt, LengthLimitError};
use serde::Deserialize;
use serde_path_to_error::Segment;
use tokio::time::timeout;

use crate::http::{error_code::ErrorCode, problem::Problem};

/// A byte order mark, which some clients write before JSON. It is ignored (RFC 8259, section 8.1).
pub const UTF8_BOM: &[u8] = b"\xef\xbb\xbf";
/// How long a body may take to arrive, in milliseconds.
const BODY_MS_MAX: u64 = 10_000;
/// The most bytes of the name of a malformed field.
const FIELD_BYTES_MAX: usize = 100;
/// The most bytes of the description of a malformed field. It can repeat a value of the request, and hundreds of problems of one
/// batch can wait in memory.
const DETAIL_BYTES_MAX: usize = 300;

/// A body that has arrived completely, without a byte order mark.
#[derive(Clone, Debug)]
pub struct JsonBody(Bytes);

impl JsonBody {
    /// Reads a JSON body. An empty one has no `Content-Type`.
    ///
    /// # Errors
    /// 400, 408, 413 or 415 if the body is incomplete, late, too large or not JSON.
    pub async fn read(headers: &HeaderMap, body: Body) -> Result<Self, Problem> {
        let mut bytes = read_body(body).await?;
        if bytes.starts_with(UTF8_BOM) {
            bytes = bytes.slice(UTF8_BOM.len()..);
        }
        require_json(headers, &bytes)?;
        Ok(Self(bytes))
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The media type of a body, in lower case and without parameters.
pub fn media_type(headers: &HeaderMap) -> Option<String> {
    let content_type = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default())?;
    Some(content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// Rejects a compressed body.
///
/// # Errors
/// 415 `unsupported_media_type` if the body has a content coding.
pub fn require_identity(headers: &HeaderMap) -> Result<(), Problem> {
    match headers.get(header::CONTENT_ENCODING) {
        Some(coding) if coding != "identity" => {
            let detail = "Content-Encoding is not supported. Send the body without it.";
            Err(Problem::new(ErrorCode::UnsupportedMediaType, detail))
        }
        Some(_) | None => Ok(()),
    }
}

async fn read_body(body: Body) -> Result<Bytes, Problem> {
    match timeout(Duration::from_millis(BODY_MS_MAX), body.collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => Err(incomplete_body(&error)),
        Err(_) => {
            let detail = format!("The request body did not arrive within {BODY_MS_MAX} ms.");
            Err(Problem::new(ErrorCode::RequestTimeout, detail))
        }
    }
}

fn incomplete_body(error: &axum::Error) -> Problem {
    let mut causes = successors(error.source(), |cause| (*cause).source());
    match causes.any(|cause| cause.is::<LengthLimitError>()) {
        true => Problem::from_code(ErrorCode::PayloadTooLarge),
        false => Problem::new(ErrorCode::MalformedRequest, "The request body did not arrive completely."),
    }
}

/// An empty body means the empty object, whatever its `Content-Type`.
fn require_json(headers: &HeaderMap, body: &[u8]) -> Result<(), Problem> {
    require_identity(headers)?;
    match media_type(headers).as_deref() {
        _ if body.is_empty() => Ok(()),
        Some("application/json") => Ok(()),
        Some(_) | None => Err(Problem::from_code(ErrorCode::UnsupportedMediaType)),
    }
}

/// Parses a body. An empty one is the empty object.
///
/// # Errors
/// 400 `malformed_request`, with the field if one is to blame.
pub fn parse<'a, B: Deserialize<'a>>(body: &'a [u8]) -> Result<B, Problem> {
    let body = if body.is_empty() { b"{}" } else { body };
    // serde would also read a struct from an array, by the order of its fields.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(Problem::new(ErrorCode::MalformedRequest, "The request body must be a JSON object."));
    }
    serde_json::from_slice(body).map_err(|error| {
        let mut json = serde_json::Deserializer::from_slice(body);
        let field = match error.is_data() {
            true => serde_path_to_error::deserialize::<_, B>(&mut json).err().and_then(|error| field_of(&error)),
            false => None,
        };
        malformed(field, format!("The request body could not be parsed: {error}."))
    })
}

/// 400 `malformed_request`, with the field if it is known. Long texts are cut.
pub fn malformed(field: Option<String>, detail: String) -> Problem {
    let detail = cut(detail, DETAIL_BYTES_MAX);
    match field {
        Some(field) => Problem::field(ErrorCode::MalformedRequest, cut(field, FIELD_BYTES_MAX), detail),
        None => Problem::new(ErrorCode::MalformedRequest, detail),
    }
}

/// The text, or its beginning in an allocation of that size.
fn cut(text: String, bytes_max: usize) -> String {
    match text.len() <= bytes_max {
        true => text,
        false => [&text[..text.floor_char_boundary(bytes_max)], "…"].concat(),
    }
}

/// The field that a type rejects.
pub fn field_of<E: std::fmt::Display>(error: &serde_path_to_error::Error<E>) -> Option<String> {
    if let Some(Segment::Map { key }) = error.path().iter().next() {
        return Some(key.clone());
    }
    // A field that is missing, unknown or repeated is named only by the text of the error.
    let text = error.inner().to_string();
    let kinds = ["missing field `", "unknown field `", "duplicate field `"];
    kinds.iter().find_map(|kind| text.strip_prefix(kind)?.split('`').next()).map(str::to_owned)
}

/// A body that was parsed, without the differences that two equal JSON texts may have: white space and the order of members.
///
/// It never rejects a body: only [`parse`] does, so that the same body has the same error with and without a key. A body with a
/// value that [`serde_json::Value`] cannot hold, such as `1e400`, is used as it was sent; no command accepts such a value.
pub fn canonical(body: &[u8]) -> Vec<u8> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body)
        .map_or_else(|_| body.to_vec(), |value: serde_json::Value| value.to_string().into_bytes())
}
