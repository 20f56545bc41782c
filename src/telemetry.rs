//! Structured logs on standard error; standard output is left to what a command prints.

use std::io::{BufWriter, IsTerminal, stderr};

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};

/// How many log lines may wait for a slow reader; beyond them lines are lost, and the bank goes on.
const BUFFERED_LINES_MAX: usize = 16_384;
/// How many bytes of log lines share one write.
const BATCHED_BYTES_MAX: usize = 64 * 1024;

/// Starts logging; lines are written by a thread of their own until the guard is dropped.
///
/// # Errors
/// A sentence, where the filter cannot be read.
pub fn start(config: &Config) -> Result<WorkerGuard, String> {
    let filter = EnvFilter::try_new(&config.log)
        .map_err(|error| format!("PASSBOOK_LOG={:?} is not a log filter: {error}", config.log))?;
    let on_terminal = stderr().is_terminal();
    let format = config.log_format.unwrap_or(if on_terminal { LogFormat::Text } else { LogFormat::Json });
    // Flushed whenever no line waits: under load many lines share one write.
    let batched = BufWriter::with_capacity(BATCHED_BYTES_MAX, stderr());
    let (writer, guard) =
        NonBlockingBuilder::default().buffered_lines_limit(BUFFERED_LINES_MAX).lossy(true).finish(batched);
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(on_terminal);
    match format {
        LogFormat::Text => lines.with_target(false).init(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).init(),
    }
    Ok(guard)
}
