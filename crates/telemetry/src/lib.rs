//! Logs on standard error, traces to an OpenTelemetry collector, Prometheus metrics, and the supervision of background tasks.
//! Standard output belongs to the commands.

mod failure;
mod log_queue;
pub mod metrics;
pub mod supervision;
pub mod trace;

use std::io::{IsTerminal, stderr};

use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::{EnvFilter, Layer, Registry, layer::SubscriberExt, util::SubscriberInitExt};

use log_queue::LogQueue;

pub use failure::report_failure;
pub use log_queue::SECURITY_TARGET;

/// The log level and the format of log lines.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// A level, or a filter such as `info,sqlx=debug`.
    pub filter: String,
    /// JSON or text; `None`: text on a terminal, JSON elsewhere.
    pub is_json: Option<bool>,
}

/// The running log and trace exporters. Background threads write lines and spans until this value is dropped.
#[derive(Debug)]
pub struct Telemetry {
    /// Whether log lines are JSON. Then standard error has nothing else while the service runs.
    pub is_json: bool,
    _lines: WorkerGuard,
    traces: Option<SdkTracerProvider>,
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        // Best effort: the collector may be unreachable.
        self.traces.take().map(|traces| traces.shutdown());
    }
}

/// The verifier of certificates logs an error for each connection that it refuses. Whoever connects reports the error, and the server of a
/// webhook must not fill the log.
const CERTIFICATE_LINES: &str = "rustls_platform_verifier=off";

/// Starts logging, and tracing where `OTEL_EXPORTER_OTLP_ENDPOINT` is set.
///
/// # Errors
/// The filter or the collector's URL is invalid.
pub fn start(settings: &LogSettings) -> Result<Telemetry, String> {
    let filter = EnvFilter::try_new(&settings.filter)
        .map_err(|error| format!("PASSBOOK_LOG={:?} is not a log filter: {error}", settings.filter))?
        .add_directive(CERTIFICATE_LINES.parse().expect("a constant directive is valid"));
    let traces = trace::exporter()?;
    let on_terminal = stderr().is_terminal();
    let is_json = settings.is_json.unwrap_or(!on_terminal);
    let (writer, lines) = LogQueue::to_stderr();
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(on_terminal);
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match is_json {
        false => Box::new(layer.with_target(false)),
        true => Box::new(layer.json().flatten_event(true).with_current_span(false).with_span_list(false)),
    };
    match &traces {
        // Without traces one filter serves everything, and spans cost nothing.
        None => tracing_subscriber::registry().with(layer).with(filter.add_directive(trace::log_exclusion())).init(),
        Some(traces) => {
            let lines = layer.with_filter(filter.add_directive(trace::log_exclusion()));
            tracing_subscriber::registry().with(lines).with(trace::layer(traces)).init();
        }
    }
    failure::report_as_json(is_json);
    Ok(Telemetry { is_json, _lines: lines, traces })
}
