//! An HTTP client of Passbook's JSON API.
//!
//! It retries a request after a 503, a 429 or a connection error. A command is retried with the same idempotency key, so
//! that it takes effect once.

use std::error::Error;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::task::JoinSet;

const RESPONSE_SECONDS_MAX: u64 = 30;
const RETRIES_MAX: u32 = 15;
const RETRY_WAIT_MS_MIN: u64 = 50;
const RETRY_WAIT_MS_MAX: u64 = 5_000;

/// A client of one instance, cheap to clone.
#[derive(Clone)]
pub struct Passbook {
    http: Client,
    url: String,
}

/// The final response to a request.
pub struct ApiResponse {
    pub status: StatusCode,
    body: Vec<u8>,
}

#[derive(Deserialize)]
pub struct Receipt {
    pub balance: u64,
}

#[derive(Deserialize)]
pub struct List<T> {
    pub data: Vec<T>,
}

/// One generation of a projection.
#[derive(Clone, Debug, Deserialize)]
pub struct Projection {
    pub name: String,
    pub generation: i16,
    pub state: ProjectionState,
    pub failure: Option<String>,
    pub position: String,
    pub lag_events: u64,
    pub lag_seconds: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProjectionState {
    Building,
    Live,
    Stopped,
    Retired,
    Failed,
}

#[derive(Deserialize)]
struct RebuildStarted {
    generation: i16,
}

#[derive(Deserialize)]
struct Head {
    partition: u32,
    position: String,
}

#[derive(Deserialize)]
struct Problem {
    code: String,
    detail: Option<String>,
}

impl Passbook {
    pub fn new(url: &str) -> Result<Self> {
        ensure!(url.starts_with("http://"), "{url:?} is not a URL of Passbook; it must begin with http://");
        let http = Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(RESPONSE_SECONDS_MAX))
            .build()
            .context("cannot create an HTTP client")?;
        Ok(Self { http, url: url.trim_end_matches('/').to_owned() })
    }

    /// Requests `/livez` once, without retries, so that a wrong URL fails immediately.
    pub async fn check_reachable(&self) -> Result<()> {
        let response = self.http.get(format!("{}/livez", self.url)).send().await;
        let status = response.map_err(|error| self.unreachable(&error))?.status();
        ensure!(status.is_success(), "{} is not a Passbook server: GET /livez returned {status}", self.url);
        Ok(())
    }

    pub async fn command(&self, path: &str, key: &str, body: &Value) -> Result<ApiResponse> {
        let request = self.http.post(format!("{}{path}", self.url));
        self.send(request.header("Idempotency-Key", key).json(body)).await
    }

    pub async fn get(&self, path: &str) -> Result<ApiResponse> {
        self.send(self.http.get(format!("{}{path}", self.url))).await
    }

    /// Sends one GET request without retries, and reads the whole response within `seconds_max`.
    pub async fn get_once(&self, path: &str, seconds_max: u64) -> Result<ApiResponse> {
        let request = self.http.get(format!("{}{path}", self.url)).timeout(Duration::from_secs(seconds_max));
        let (status, _, body) = send_once(request).await.map_err(|error| self.unreachable(&error))?;
        Ok(ApiResponse { status, body })
    }

    /// Sends one GET request and reads the whole response without keeping it. Fails if the status is an error.
    pub async fn download(&self, path: &str, seconds_max: u64) -> Result<()> {
        let request = self.http.get(format!("{}{path}", self.url)).timeout(Duration::from_secs(seconds_max));
        let mut response = request.send().await.map_err(|error| self.unreachable(&error))?;
        ensure!(response.status().is_success(), "GET {path}: {}", response.status());
        while response.chunk().await.with_context(|| format!("the response to GET {path} broke off"))?.is_some() {}
        Ok(())
    }

    /// Executes commands in JSON, each by itself and without a key. The results are short.
    pub async fn execute_each(&self, commands: &[String]) -> Result<ApiResponse> {
        let body = format!("{{\"mode\":\"each\",\"commands\":[{}]}}", commands.join(","));
        let request = self.http.post(format!("{}/v1/batches", self.url)).header("Prefer", "return=minimal");
        self.send(request.header(CONTENT_TYPE, "application/json").body(body)).await
    }

    /// Starts a rebuild of a projection. Returns the generation that is being built.
    pub async fn rebuild(&self, name: &str) -> Result<i16> {
        let path = format!("/v1/projections/{name}/rebuild");
        let response = self.send(self.http.post(format!("{}{path}", self.url))).await?;
        ensure!(response.status.is_success(), "POST {path}: {}", response.problem());
        Ok(response.read::<RebuildStarted>()?.generation)
    }

    pub async fn projections(&self) -> Result<Vec<Projection>> {
        let response = self.get("/v1/projections").await?;
        ensure!(response.status.is_success(), "GET /v1/projections: {}", response.problem());
        Ok(response.read::<List<_>>()?.data)
    }

    /// The position of the log's last event; the sum over all partitions.
    pub async fn head(&self) -> Result<u64> {
        let heads = self.heads().await?;
        heads.iter().map(|head| head.position.parse::<u64>().context("a position is a number")).sum()
    }

    /// The position of the log's head as `min_position` expects it.
    pub async fn head_position(&self) -> Result<String> {
        let heads = self.heads().await?;
        Ok(match &heads[..] {
            [head] => head.position.clone(),
            heads => {
                let positions: Vec<_> =
                    heads.iter().map(|head| format!("{}:{}", head.partition, head.position)).collect();
                positions.join(",")
            }
        })
    }

    async fn heads(&self) -> Result<Vec<Head>> {
        let response = self.get("/v1/log/head").await?;
        ensure!(response.status.is_success(), "GET /v1/log/head: {}", response.problem());
        Ok(response.read::<List<_>>()?.data)
    }

    /// Sends a request, with retries.
    async fn send(&self, request: RequestBuilder) -> Result<ApiResponse> {
        let mut retries = 0;
        loop {
            let attempt = request.try_clone().context("a request with a streamed body cannot be retried")?;
            let (wait, failure) = match send_once(attempt).await {
                Ok((status, headers, _)) if is_retryable(status) => {
                    (retry_after(&headers), anyhow!("{} still returns {status} after {retries} retries", self.url))
                }
                Ok((status, _, body)) => return Ok(ApiResponse { status, body }),
                Err(error) => (backoff(retries), self.unreachable(&error)),
            };
            if retries == RETRIES_MAX {
                return Err(failure);
            }
            tokio::time::sleep(wait).await;
            retries += 1;
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> anyhow::Error {
        let cause = std::iter::successors(error.source(), |cause| (*cause).source()).last();
        let cause = cause.map_or_else(|| error.to_string(), ToString::to_string);
        anyhow!("cannot reach Passbook at {} (is it running?): {cause}", self.url)
    }
}

impl ApiResponse {
    pub fn read<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("cannot parse the response: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The status, code and detail of an error response.
    pub fn problem(&self) -> String {
        match self.read::<Problem>() {
            Ok(Problem { code, detail }) => {
                format!("{} {code}: {}", self.status.as_u16(), detail.unwrap_or_default())
            }
            Err(_) => format!("{} {}", self.status, String::from_utf8_lossy(&self.body)),
        }
    }
}

/// Runs at most `limit` jobs concurrently, passes each result to `each`, and stops at the first error.
pub async fn run_concurrently<T, F>(
    limit: usize,
    jobs: impl Iterator<Item = F>,
    mut each: impl FnMut(T) -> Result<()>,
) -> Result<()>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let mut running = JoinSet::new();
    for job in jobs {
        if running.len() == limit
            && let Some(done) = running.join_next().await
        {
            each(done??)?;
        }
        running.spawn(job);
    }
    while let Some(done) = running.join_next().await {
        each(done??)?;
    }
    Ok(())
}

async fn send_once(request: RequestBuilder) -> reqwest::Result<(StatusCode, HeaderMap, Vec<u8>)> {
    let response = request.send().await?;
    let (status, headers) = (response.status(), response.headers().clone());
    Ok((status, headers, response.bytes().await?.to_vec()))
}

fn is_retryable(status: StatusCode) -> bool {
    matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS)
}

/// The wait that the Retry-After header requests, clamped to the limits of a retry.
fn retry_after(headers: &HeaderMap) -> Duration {
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    bounded(seconds.unwrap_or(1).saturating_mul(1000))
}

fn backoff(retries: u32) -> Duration {
    bounded(RETRY_WAIT_MS_MIN << retries.min(16))
}

fn bounded(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds.clamp(RETRY_WAIT_MS_MIN, RETRY_WAIT_MS_MAX))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};

    use super::{backoff, retry_after};

    #[test]
    fn retry_after_is_obeyed_within_limits() {
        let wait = |text| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(text));
            retry_after(&headers)
        };
        assert_eq!(wait("2"), Duration::from_secs(2));
        assert_eq!(wait("0"), Duration::from_millis(50));
        assert_eq!(wait("3600"), Duration::from_secs(5));
        assert_eq!(wait("soon"), Duration::from_secs(1));
    }

    #[test]
    fn the_backoff_after_a_connection_error_grows_to_a_limit() {
        assert_eq!(backoff(0), Duration::from_millis(50));
        assert_eq!(backoff(3), Duration::from_millis(400));
        assert_eq!(backoff(60), Duration::from_secs(5));
    }
}
