//! Passbook as its clients see it: JSON over HTTP, and patience.
//!
//! A 503, a 429 and a lost connection are tried again with the same key, so trying again never
//! moves money twice.

use std::error::Error;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::task::JoinSet;

const ANSWER_SECONDS_MAX: u64 = 30;
const RETRIES_MAX: u32 = 15;
const RETRY_WAIT_MS_MIN: u64 = 50;
const RETRY_WAIT_MS_MAX: u64 = 5_000;

#[derive(Clone)]
pub struct Passbook {
    http: Client,
    url: String,
}

/// What came back in the end, and how often it had to be asked for again.
pub struct Answer {
    pub status: StatusCode,
    pub replayed: bool,
    pub retries: u32,
    body: Vec<u8>,
}

#[derive(Deserialize)]
pub struct Receipt {
    pub balance: u64,
    pub version: u64,
    pub position: String,
}

#[derive(Deserialize)]
pub struct AccountView {
    pub balance: u64,
    pub version: u64,
    pub transaction_count: u64,
}

#[derive(Deserialize)]
pub struct List<T> {
    pub data: Vec<T>,
}

#[derive(Deserialize)]
pub struct Projection {
    pub lag_events: u64,
    pub lag_seconds: Option<f64>,
}

#[derive(Deserialize)]
struct Head {
    position: u64,
}

#[derive(Deserialize)]
struct Problem {
    code: String,
    detail: Option<String>,
}

impl Passbook {
    pub fn new(url: &str) -> Result<Self> {
        ensure!(url.starts_with("http://"), "{url:?} is no URL of Passbook: it begins with http://");
        let http = Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(ANSWER_SECONDS_MAX))
            .build()
            .context("cannot make an HTTP client")?;
        Ok(Self { http, url: url.trim_end_matches('/').to_owned() })
    }

    /// Asks once whether anybody is there, so that a wrong URL is said at once.
    pub async fn greet(&self) -> Result<()> {
        let answer = self.http.get(format!("{}/livez", self.url)).send().await;
        let status = answer.map_err(|error| self.unreachable(&error))?.status();
        ensure!(status.is_success(), "{} is no Passbook: /livez answers {status}", self.url);
        Ok(())
    }

    pub async fn command(&self, path: &str, key: &str, body: &Value) -> Result<Answer> {
        let request = self.http.post(format!("{}{path}", self.url));
        self.answer(request.header("Idempotency-Key", key).json(body)).await
    }

    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.answer(self.http.get(format!("{}{path}", self.url))).await
    }

    pub async fn projections(&self) -> Result<Vec<Projection>> {
        let answer = self.get("/v1/projections").await?;
        ensure!(answer.status.is_success(), "GET /v1/projections: {}", answer.refusal());
        Ok(answer.read::<List<_>>()?.data)
    }

    /// The log's last position.
    pub async fn head(&self) -> Result<u64> {
        let answer = self.get("/v1/log/head").await?;
        ensure!(answer.status.is_success(), "GET /v1/log/head: {}", answer.refusal());
        let heads: Vec<Head> = answer.read::<List<_>>()?.data;
        Ok(heads.iter().map(|head| head.position).sum())
    }

    async fn answer(&self, request: RequestBuilder) -> Result<Answer> {
        let mut retries = 0;
        loop {
            let attempt = request.try_clone().context("a request can be sent only once")?;
            let (wait, complaint) = match once(attempt).await {
                Ok((status, headers, _)) if is_passing(status) => {
                    (retry_after(&headers), anyhow!("{} answers {status}, after {retries} retries too", self.url))
                }
                Ok((status, headers, body)) => {
                    let replayed = headers.get("Idempotency-Replayed").is_some_and(|value| value == "true");
                    return Ok(Answer { status, replayed, retries, body });
                }
                Err(error) => (back_off(retries), self.unreachable(&error)),
            };
            if retries == RETRIES_MAX {
                return Err(complaint);
            }
            tokio::time::sleep(wait).await;
            retries += 1;
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> anyhow::Error {
        let cause = std::iter::successors(error.source(), |cause| (*cause).source()).last();
        let cause = cause.map_or_else(|| error.to_string(), ToString::to_string);
        anyhow!("cannot reach Passbook at {}, is it running? {cause}", self.url)
    }
}

impl Answer {
    pub fn read<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("an answer that cannot be read: {}", String::from_utf8_lossy(&self.body)))
    }

    /// Why a command was refused, in a few words.
    pub fn refusal(&self) -> String {
        match self.read::<Problem>() {
            Ok(Problem { code, detail }) => {
                format!("{} {code}: {}", self.status.as_u16(), detail.unwrap_or_default())
            }
            Err(_) => format!("{} {}", self.status, String::from_utf8_lossy(&self.body)),
        }
    }
}

/// Runs `jobs` side by side, never more than `limit` at once, and stops at the first error.
pub async fn side_by_side<T, F>(
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

async fn once(request: RequestBuilder) -> reqwest::Result<(StatusCode, HeaderMap, Vec<u8>)> {
    let response = request.send().await?;
    let (status, headers) = (response.status(), response.headers().clone());
    Ok((status, headers, response.bytes().await?.to_vec()))
}

fn is_passing(status: StatusCode) -> bool {
    matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS)
}

/// How long the answer asks to wait, within bounds.
fn retry_after(headers: &HeaderMap) -> Duration {
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    bounded(seconds.unwrap_or(1).saturating_mul(1000))
}

fn back_off(retries: u32) -> Duration {
    bounded(RETRY_WAIT_MS_MIN << retries.min(16))
}

fn bounded(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds.clamp(RETRY_WAIT_MS_MIN, RETRY_WAIT_MS_MAX))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};

    use super::{back_off, retry_after};

    #[test]
    fn the_wait_that_is_asked_for_is_honoured_within_bounds() {
        let asked = |text| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(text));
            retry_after(&headers)
        };
        assert_eq!(asked("2"), Duration::from_secs(2));
        assert_eq!(asked("0"), Duration::from_millis(50));
        assert_eq!(asked("3600"), Duration::from_secs(5));
        assert_eq!(asked("soon"), Duration::from_secs(1));
    }

    #[test]
    fn the_wait_after_a_lost_connection_grows_to_a_bound() {
        assert_eq!(back_off(0), Duration::from_millis(50));
        assert_eq!(back_off(3), Duration::from_millis(400));
        assert_eq!(back_off(60), Duration::from_secs(5));
    }
}
