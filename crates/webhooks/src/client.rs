//! Sends one event to one endpoint.

use std::{error::Error, io, sync::Arc, time::Duration};

use bytes::Bytes;
use chrono::Utc;
use passbook_auth::install_crypto_provider;
use reqwest::{
    Client, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
    redirect::Policy,
};
use tokio::time::{Instant, timeout};

use crate::{
    secret::{Secret, signatures},
    target::{InvalidUrl, Targets},
    timing::Timing,
};

/// How much of a response is read. The rest is not: the connection is closed.
const RESPONSE_BYTES_MAX: usize = 4 * 1024;
/// How long the body of a response may take. Its status counts, whatever becomes of the body.
const RESPONSE_MS_MAX: u64 = 1_000;
/// How long an idle connection is kept. The address of a host is checked for each new connection.
const IDLE_S_MAX: u64 = 30;
/// The idle connections that are kept for one host.
const IDLE_CONNECTIONS_MAX: usize = 16;
/// The longest error that is stored, in characters.
const ERROR_CHARS_MAX: usize = 200;

/// A message to send.
pub(crate) struct Message<'a> {
    /// The id of the event: the same for each attempt.
    pub(crate) id: String,
    pub(crate) body: Bytes,
    /// Each secret signs.
    pub(crate) secrets: &'a [Secret],
}

/// The result of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// The status of the response; `None` if there was none.
    pub(crate) status: Option<u16>,
    pub(crate) duration: Duration,
    /// Why there was no response, or what is wrong with it; `None` for a success.
    pub(crate) error: Option<String>,
    /// What the endpoint asks for by `Retry-After`, in seconds.
    pub(crate) retry_after_s: Option<u64>,
}

impl Attempt {
    /// Whether the endpoint has the event.
    pub(crate) fn has_succeeded(&self) -> bool {
        self.error.is_none()
    }

    /// Whether the endpoint wants no further events.
    pub(crate) fn is_gone(&self) -> bool {
        self.status == Some(StatusCode::GONE.as_u16())
    }
}

const NO_CERTIFICATES: &str = "the certificates of this machine cannot be loaded";

/// The client of all deliveries of a process. Cheap to clone.
#[derive(Clone)]
pub(crate) struct DeliveryClient {
    /// `None` if the certificates of this machine cannot be loaded. Deliveries then fail, and the service goes on.
    client: Option<Client>,
    targets: Targets,
    attempt_max: Duration,
}

impl DeliveryClient {
    /// A client without proxies, redirects and decompression, which connects only to `targets`.
    pub(crate) fn new(targets: Targets, timing: Timing) -> Self {
        install_crypto_provider();
        let client = Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .no_gzip()
            .http1_only()
            .referer(false)
            .user_agent(concat!("passbook/", env!("CARGO_PKG_VERSION")))
            .pool_idle_timeout(Duration::from_secs(IDLE_S_MAX))
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .dns_resolver(Arc::new(targets.clone()))
            .build();
        let client = client.inspect_err(|error| tracing::warn!(error = reason(error), "webhooks cannot be sent")).ok();
        Self { client, targets, attempt_max: timing.attempt_max() }
    }

    /// Sends a message to `url`, signed at this moment.
    pub(crate) async fn send(&self, url: &str, message: Message<'_>) -> Attempt {
        let started = Instant::now();
        let result = match timeout(self.attempt_max, self.request(url, message)).await {
            Ok(result) => result,
            Err(_) => Err(format!("no response within {:?}", self.attempt_max)),
        };
        let duration = started.elapsed();
        match result {
            Err(error) => Attempt { status: None, duration, error: Some(shortened(error)), retry_after_s: None },
            Ok(response) => {
                let status = response.status();
                let error = (!status.is_success()).then(|| format!("the endpoint answered {}", status.as_u16()));
                let retry_after_s = retry_after(&response);
                discard_body(response).await;
                Attempt { status: Some(status.as_u16()), duration, error, retry_after_s }
            }
        }
    }

    async fn request(&self, url: &str, Message { id, body, secrets }: Message<'_>) -> Result<Response, String> {
        let url = self.targets.before_connection(url).map_err(|error| error.to_string())?;
        let Some(client) = &self.client else { return Err(NO_CERTIFICATES.to_owned()) };
        let at = Utc::now();
        let signature = signatures(secrets, &id, at, &body).ok_or("the secret cannot sign")?;
        let request = client.post(url).header(CONTENT_TYPE, "application/json");
        let request = request.header("webhook-timestamp", at.timestamp()).header("webhook-signature", signature);
        let request = request.header("webhook-id", id).body(body);
        request.send().await.map_err(|error| reason(&error))
    }
}

/// `Retry-After` in seconds, of a response that may have one. The form with a date is rare, and is ignored.
fn retry_after(response: &Response) -> Option<u64> {
    let may_have = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&response.status());
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    may_have.then_some(seconds)
}

/// Reads the beginning of the body, so that the connection can be used again if that is all.
async fn discard_body(mut response: Response) {
    let reading = async {
        let mut bytes = 0;
        while let Ok(Some(chunk)) = response.chunk().await {
            bytes += chunk.len();
            if bytes > RESPONSE_BYTES_MAX {
                break;
            }
        }
    };
    // Late bodies are not waited for.
    let _ = timeout(Duration::from_millis(RESPONSE_MS_MAX), reading).await;
}

/// Why a request failed, in words that reveal no internals: an operator of an endpoint reads them.
fn reason(error: &reqwest::Error) -> String {
    let mut causes: Vec<&dyn Error> = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push(cause);
        next = cause.source();
    }
    if let Some(refused) = causes.iter().find_map(|cause| cause.downcast_ref::<InvalidUrl>()) {
        return refused.to_string();
    }
    if let Some(error) = causes.iter().rev().find_map(|cause| cause.downcast_ref::<io::Error>()) {
        return format!("the connection failed: {error}");
    }
    let last = causes.last().map_or_else(|| error.to_string(), ToString::to_string);
    match error.is_connect() {
        true => format!("no connection: {last}"),
        false => format!("the request failed: {last}"),
    }
}

fn shortened(text: String) -> String {
    match text.char_indices().nth(ERROR_CHARS_MAX) {
        Some((end, _)) => text[..end].to_owned(),
        None => text,
    }
}
