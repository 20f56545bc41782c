//! The errors that end an import. Each message says what happened, to which line, and what to do.

use std::{io, path::PathBuf};

/// Why an import ended before its last line.
///
/// The lines with a result stay done. The same command continues with the others.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message describes it")]
pub enum Error {
    #[error("{path} cannot be opened: {source}")]
    Open { path: PathBuf, source: io::Error },
    #[error("{name} cannot be read after line {line}: {source}")]
    Read { name: String, line: u64, source: io::Error },
    #[error(
        "line {line} of {name} is not a JSON object: {reason}. The file must be NDJSON, one command a line, such as \
         {{\"command\": \"deposit\", \"account_id\": \"…\", \"amount\": 500}}"
    )]
    NotNdjson { name: String, line: u64, reason: String },
    #[error(
        "line {line} has no idempotency_key, and standard input has no name to derive one from: add --key-prefix <name>. A \
         second run with the same lines and the same prefix executes no command twice"
    )]
    NoKeyPrefix { line: u64 },
    #[error(
        "--url must be the URL of a service, such as http://127.0.0.1:8080, without user and password; it is {0:?}"
    )]
    InvalidUrl(String),
    #[error("the HTTP client cannot be created: {0}")]
    Client(String),
    #[error("PASSBOOK_TOKEN_FILE={path} cannot be read: {source}")]
    TokenFile { path: PathBuf, source: io::Error },
    #[error("the access token contains characters that an HTTP header cannot contain")]
    InvalidToken,
    #[error("{url} cannot be reached: {reason}. Check --url, and that the service runs")]
    Unreachable { url: String, reason: String },
    #[error("the service refused the import: {0}")]
    Refused(String),
    #[error(
        "the service does not accept the access token: {reason}. Line {line} and the lines after it may not be done: get a new \
         token and run the same command again, no command is executed twice"
    )]
    TokenRejected { line: u64, reason: String },
    #[error(
        "{attempts} attempts in a row brought no result; the last one: {reason}. Line {line} and the lines after it may not \
         be done: run the same command again later, no command is executed twice"
    )]
    GivenUp { attempts: u32, line: u64, reason: String },
    #[error("{0}: the answer is not that of POST /v1/batches")]
    Protocol(String),
    #[error("the file of the refusals {path} cannot be written: {source}")]
    RefusalFile { path: PathBuf, source: io::Error },
    #[error("--refusals names the file of the commands, {path}, which would be emptied: name another file")]
    RefusalFileIsInput { path: PathBuf },
}
