//! Structured logs on standard error, and traces for who asks for them; standard output is left to what a command prints.

pub mod metrics;
pub mod trace;

use std::io::{BufWriter, IsTerminal, stderr};

use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, Layer, Registry, layer::SubscriberExt, util::SubscriberInitExt};

/// How many log lines may wait for a slow reader; beyond them lines are lost, and the bank goes on.
const BUFFERED_LINES_MAX: usize = 16_384;
/// How many bytes of log lines share one write.
const BATCHED_BYTES_MAX: usize = 64 * 1024;

/// What is logged, and how.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// A level, or a filter such as `info,sqlx=debug`.
    pub filter: String,
    /// JSON or text; `None`: text on a terminal, JSON elsewhere.
    pub is_json: Option<bool>,
}

/// Lines and spans are written by threads of their own until this is dropped.
#[derive(Debug)]
pub struct Telemetry {
    _lines: WorkerGuard,
    traces: Option<SdkTracerProvider>,
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        // Best effort: the collector may be away.
        self.traces.take().map(|traces| traces.shutdown());
    }
}

/// Starts logging, and tracing where `OTEL_EXPORTER_OTLP_ENDPOINT` is set.
///
/// # Errors
/// A sentence, where the filter or the endpoint cannot be read.
pub fn start(settings: &LogSettings) -> Result<Telemetry, String> {
    let filter = EnvFilter::try_new(&settings.filter)
        .map_err(|error| format!("PASSBOOK_LOG={:?} is not a log filter: {error}", settings.filter))?;
    let traces = trace::exporter()?;
    let on_terminal = stderr().is_terminal();
    let is_json = settings.is_json.unwrap_or(!on_terminal);
    // Flushed whenever no line waits: under load many lines share one write.
    let batched = BufWriter::with_capacity(BATCHED_BYTES_MAX, stderr());
    let (writer, lines) =
        NonBlockingBuilder::default().buffered_lines_limit(BUFFERED_LINES_MAX).lossy(true).finish(batched);
    let told = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(on_terminal);
    let told: Box<dyn Layer<Registry> + Send + Sync> = match is_json {
        false => Box::new(told.with_target(false)),
        true => Box::new(told.json().flatten_event(true).with_current_span(false).with_span_list(false)),
    };
    match &traces {
        // Without traces there is one filter for all, and spans cost nothing.
        None => tracing_subscriber::registry().with(told).with(filter.add_directive(trace::off())).init(),
        Some(traces) => {
            let lines = told.with_filter(filter.add_directive(trace::off()));
            tracing_subscriber::registry().with(lines).with(trace::layer(traces)).init();
        }
    }
    Ok(Telemetry { _lines: lines, traces })
}
