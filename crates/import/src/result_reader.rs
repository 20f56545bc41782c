//! Sends one request and reads its results, one JSON object a line, while the request is still being sent.

use std::{error::Error as _, time::Duration};

use reqwest::{
    RequestBuilder, Response, StatusCode,
    header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use crate::endpoint::NDJSON;

/// The longest line of an answer, and the longest answer with an error.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// The result of one command.
#[derive(Debug, Deserialize)]
pub(crate) struct ItemResult {
    /// The number of the command in the request, from 0.
    pub index: u64,
    pub status: u16,
    #[serde(default)]
    pub replayed: bool,
    code: Option<String>,
    pub problem: Option<Box<RawValue>>,
}

/// How a request ended. The results that arrived before it are valid.
#[derive(Debug)]
pub(crate) enum End {
    /// The answer is complete.
    Complete,
    /// No connection.
    Unreachable(String),
    /// The connection was lost, or the service asks to try again.
    Interrupted { reason: String, retry_after: Option<Duration> },
    /// The service does not accept the token.
    Unauthenticated(String),
    /// The service refused the whole request.
    Refused(String),
    /// The answer is not one of the service.
    Protocol(String),
}

#[derive(Deserialize)]
struct Problem {
    code: String,
    detail: Option<String>,
}

impl ItemResult {
    /// The code of a refusal.
    pub(crate) fn code(&self) -> &str {
        self.code.as_deref().unwrap_or("unknown")
    }

    /// Status, code and detail of a refusal.
    pub(crate) fn reason(&self) -> String {
        let problem = self.problem.as_ref().and_then(|problem| serde_json::from_str::<Problem>(problem.get()).ok());
        let detail = problem.and_then(|problem| problem.detail).map(|detail| format!(": {detail}"));
        format!("{} {}{}", self.status, self.code(), detail.unwrap_or_default())
    }

    fn parse(line: &[u8]) -> Result<Self, String> {
        let result = serde_json::from_slice::<Self>(line);
        let mut result =
            result.map_err(|error| format!("{:?} is no result: {error}", String::from_utf8_lossy(line)))?;
        // The full form has the code inside the problem.
        if result.code.is_none()
            && let Some(problem) = &result.problem
        {
            result.code = serde_json::from_str::<Problem>(problem.get()).ok().map(|problem| problem.code);
        }
        Ok(result)
    }
}

/// Sends the request and passes on its results in batches, until the answer ends or the receiver is dropped. The first batch is
/// empty: the answer has begun.
pub(crate) async fn receive(request: RequestBuilder, results: mpsc::Sender<Vec<ItemResult>>) -> End {
    let mut response = match request.send().await {
        Ok(response) => response,
        Err(error) if error.is_connect() => return End::Unreachable(cause(&error)),
        Err(error) => return interrupted(&error),
    };
    if response.status() != StatusCode::OK {
        return refused(response).await;
    }
    let media_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if media_type.split(';').next().map(str::trim) != Some(NDJSON) {
        return End::Protocol(format!("the service answered with the media type {media_type:?}"));
    }
    if results.send(Vec::new()).await.is_err() {
        return End::Complete;
    }
    let mut unfinished = Vec::new();
    loop {
        let batch = match response.chunk().await {
            Ok(Some(chunk)) => parse_lines(&mut unfinished, &chunk),
            // A result that is cut is no result: its command is sent again.
            Ok(None) => return End::Complete,
            Err(error) => return interrupted(&error),
        };
        match batch {
            Ok(batch) if batch.is_empty() => {}
            Ok(batch) => {
                if results.send(batch).await.is_err() {
                    return End::Complete;
                }
            }
            Err(reason) => return End::Protocol(reason),
        }
    }
}

/// The results that end within `chunk`. The beginning of the next one is kept in `unfinished`.
fn parse_lines(unfinished: &mut Vec<u8>, chunk: &[u8]) -> Result<Vec<ItemResult>, String> {
    unfinished.extend_from_slice(chunk);
    let Some(end) = unfinished.iter().rposition(|byte| *byte == b'\n') else {
        return match unfinished.len() > ANSWER_BYTES_MAX {
            true => Err(format!("a line of the answer is longer than {ANSWER_BYTES_MAX} bytes")),
            false => Ok(Vec::new()),
        };
    };
    let lines = unfinished[..end].split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let batch = lines.filter(|line| !line.is_empty()).map(ItemResult::parse).collect();
    unfinished.drain(..=end);
    batch
}

/// Why the whole request was refused.
async fn refused(mut response: Response) -> End {
    let status = response.status();
    let retry_after = retry_after(response.headers());
    let mut body = Vec::new();
    while body.len() < ANSWER_BYTES_MAX
        && let Ok(Some(chunk)) = response.chunk().await
    {
        body.extend_from_slice(&chunk);
    }
    let reason = match serde_json::from_slice::<Problem>(&body) {
        Ok(Problem { code, detail }) => {
            let detail = detail.map(|detail| format!(": {detail}"));
            format!("{} {code}{}", status.as_u16(), detail.unwrap_or_default())
        }
        Err(_) => status.to_string(),
    };
    match status {
        StatusCode::UNAUTHORIZED => End::Unauthenticated(reason),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => End::Interrupted { reason, retry_after },
        status if status.is_server_error() => End::Interrupted { reason, retry_after },
        _ => End::Refused(reason),
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

fn interrupted(error: &reqwest::Error) -> End {
    End::Interrupted { reason: format!("the connection was lost: {}", cause(error)), retry_after: None }
}

/// The innermost cause, without the URL.
fn cause(error: &reqwest::Error) -> String {
    let innermost = std::iter::successors(error.source(), |cause| (*cause).source()).last();
    innermost.map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_parsed_wherever_the_answer_is_cut() {
        let text = "{\"index\":0,\"status\":201,\"version\":2}\n\n{\"index\":1,\"status\":422,\"code\":\"account_closed\"}\r\n";
        for cut in 0..text.len() {
            let mut unfinished = Vec::new();
            let mut results = parse_lines(&mut unfinished, &text.as_bytes()[..cut]).expect("results");
            results.extend(parse_lines(&mut unfinished, &text.as_bytes()[cut..]).expect("results"));
            assert_eq!(
                results.iter().map(|result| (result.index, result.status)).collect::<Vec<_>>(),
                [(0, 201), (1, 422)]
            );
            assert_eq!(results[1].reason(), "422 account_closed");
            assert!(unfinished.is_empty());
        }
    }

    #[test]
    fn a_full_result_has_the_code_and_the_detail_of_its_problem() {
        let line = br#"{"index":3,"status":422,"problem":{"code":"account_frozen","detail":"It is frozen."}}"#;
        assert_eq!(ItemResult::parse(line).expect("a result").reason(), "422 account_frozen: It is frozen.");
        let line = br#"{"index":3,"status":201,"replayed":true,"receipt":{"version":1}}"#;
        assert!(ItemResult::parse(line).expect("a result").replayed);
    }

    #[test]
    fn a_line_that_is_no_result_is_refused_and_a_long_one_not_kept() {
        assert!(parse_lines(&mut Vec::new(), b"<html>\n").is_err());
        let mut unfinished = Vec::new();
        assert!(parse_lines(&mut unfinished, &vec![b' '; ANSWER_BYTES_MAX]).is_ok());
        assert!(parse_lines(&mut unfinished, b" ").is_err());
    }
}
