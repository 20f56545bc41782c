//! The way of a request through the bank, as OpenTelemetry spans: request → command ⇢ batch ⇠ projection. A batch carries many
//! commands and a projection many batches, so these are tied by links and not by parenthood.
//!
//! Which requests are traced is decided before anything of a trace is made, because a span that is thrown away costs as much as
//! one that is kept. A batch is traced for the sake of a command that it began with, and a projection for that of a batch.

use std::{
    collections::VecDeque,
    sync::{Mutex, OnceLock, PoisonError},
    thread,
    time::Duration,
};

use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, SpanKind, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider},
};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{Config, IdGenerator, RandomIdGenerator, Sampler, SamplingDecision, SdkTracerProvider, ShouldSample},
};
use reqwest::blocking::Client;
use tracing::{Span, Subscriber, level_filters::LevelFilter};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{Layer, filter::Directive, filter::Targets, registry::LookupSpan};

/// Where spans go, as OpenTelemetry names it; the SDK reads its other variables (`OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER`, …).
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// Which requests are traced, as OpenTelemetry names it.
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
/// Without a word about it: those that their callers trace, and of the others so many.
const RATIO_BY_DEFAULT: f64 = 0.01;
/// How long the collector may take to answer, where no certificates are at hand.
const EXPORT_MAX: Duration = Duration::from_secs(10);
/// What spans are recognized by.
pub const TARGET: &str = "passbook::trace";
/// How many batches are remembered until they are projected.
const BATCHES_REMEMBERED_MAX: usize = 1_024;
/// How many batches a projection links to.
const LINKS_MAX: usize = 128;

static CHOOSES: OnceLock<Box<dyn ShouldSample>> = OnceLock::new();
static BATCHES: Mutex<VecDeque<Batch>> = Mutex::new(VecDeque::new());

/// A batch that was appended up to `position`.
struct Batch {
    partition: i16,
    position: i64,
    context: SpanContext,
}

/// What exports spans, if they are to be exported.
pub(super) fn exporter() -> Result<Option<SdkTracerProvider>, String> {
    let Ok(endpoint) = std::env::var(ENDPOINT) else { return Ok(None) };
    if !["http://", "https://"].iter().any(|scheme| endpoint.starts_with(scheme)) {
        return Err(format!("{ENDPOINT}={endpoint:?} is no address of a collector such as http://127.0.0.1:4318"));
    }
    let exporter = exporter_to(&endpoint).map_err(|error| format!("{ENDPOINT}: {error}"))?;
    let resource = Resource::builder().with_service_name(service_name()).build();
    // Told once: a process has one telemetry.
    let _ = CHOOSES.set(sampler());
    let traces = SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOn);
    Ok(Some(traces.with_batch_exporter(exporter).with_resource(resource).build()))
}

fn exporter_to(endpoint: &str) -> Result<SpanExporter, String> {
    let exporter = match SpanExporter::builder().with_http().build() {
        // A machine without any certificates can send in the clear all the same.
        Err(_) if endpoint.starts_with("http://") => {
            SpanExporter::builder().with_http().with_http_client(in_the_clear()?).build()
        }
        exporter => exporter,
    };
    exporter.map_err(|error| error.to_string())
}

/// A client that trusts nobody. It has a runtime of its own, which may not be made within another one.
fn in_the_clear() -> Result<Client, String> {
    let made = thread::spawn(|| Client::builder().tls_certs_only([]).timeout(EXPORT_MAX).build()).join();
    made.map_err(|_| "no client can be made")?.map_err(|error| error.to_string())
}

fn sampler() -> Box<dyn ShouldSample> {
    match std::env::var_os(SAMPLER).filter(|sampler| !sampler.is_empty()) {
        Some(_) => Config::default().sampler,
        None => Box::new(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(RATIO_BY_DEFAULT)))),
    }
}

/// Whether a request is traced, of which its caller says so much.
pub fn is_chosen(parent: Option<&Traceparent>) -> bool {
    let Some(chooses) = CHOOSES.get() else { return false };
    let context = parent.map(Traceparent::context);
    let trace =
        parent.map_or_else(|| RandomIdGenerator::default().new_trace_id(), |parent| TraceId::from_bytes(parent.trace));
    let chosen = chooses.should_sample(context.as_ref(), trace, "request", &SpanKind::Server, &[], &[]);
    chosen.decision == SamplingDecision::RecordAndSample
}

fn service_name() -> String {
    std::env::var("OTEL_SERVICE_NAME").unwrap_or_else(|_| "passbook".to_owned())
}

pub(super) fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(traces: &SdkTracerProvider) -> impl Layer<S> {
    let spans = tracing_opentelemetry::layer().with_tracer(traces.tracer("passbook")).with_location(false);
    spans.with_threads(false).with_filter(Targets::new().with_target(TARGET, LevelFilter::INFO))
}

/// Keeps spans out of the log.
pub(super) fn off() -> Directive {
    format!("{TARGET}=off").parse().expect("a constant directive is a good one")
}

/// The caller's own place in a trace, as the header `traceparent` tells it (<https://www.w3.org/TR/trace-context/>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traceparent {
    trace: [u8; 16],
    span: [u8; 8],
    is_sampled: bool,
}

impl Traceparent {
    /// Reads the header; what is not as the specification has it is ignored, as it demands.
    pub fn parse(header: &str) -> Option<Self> {
        let mut parts = header.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_lower = !header.contains(|c: char| c.is_ascii_uppercase());
        // Version 00 has four parts; a later one may have more.
        let fits = version.len() == 2 && version != "ff" && (version != "00" || parts.next().is_none()) && is_lower;
        let (mut parent, mut bytes) = (Self { trace: [0; 16], span: [0; 8], is_sampled: false }, [0; 2]);
        hex::decode_to_slice(trace, &mut parent.trace).ok()?;
        hex::decode_to_slice(span, &mut parent.span).ok()?;
        hex::decode_to_slice(version, &mut bytes[..1]).ok()?;
        hex::decode_to_slice(flags, &mut bytes[1..]).ok()?;
        parent.is_sampled = bytes[1] & 1 == 1;
        (fits && parent.trace != [0; 16] && parent.span != [0; 8]).then_some(parent)
    }

    /// The trace's id.
    pub fn trace_id(&self) -> [u8; 16] {
        self.trace
    }

    /// Makes `span` a part of the caller's trace.
    pub fn adopt(&self, span: &Span) {
        // A span that has begun already keeps its parent; ours has not.
        let _ = span.set_parent(self.context());
    }

    fn context(&self) -> Context {
        let flags = if self.is_sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
        let (trace, parent) = (TraceId::from_bytes(self.trace), SpanId::from_bytes(self.span));
        let parent = SpanContext::new(trace, parent, flags, true, TraceState::default());
        Context::new().with_remote_span_context(parent)
    }
}

/// Ties a command to the batch that carried it, if both are traced.
pub fn carried(command: &Span, batch: &Span) {
    if !command.is_disabled() && !batch.is_disabled() {
        command.add_link(context(batch));
    }
}

/// Remembers which batch appended up to this position.
pub fn appended(partition: i16, position: i64, batch: &Span) {
    if !batch.is_disabled() {
        let mut batches = BATCHES.lock().unwrap_or_else(PoisonError::into_inner);
        batches.truncate(BATCHES_REMEMBERED_MAX - 1);
        batches.push_front(Batch { partition, position, context: context(batch) });
    }
}

/// The traced batches of this process that appended what stands behind one position, up to another.
pub fn batches(partition: i16, from: i64, to: i64) -> Vec<SpanContext> {
    if CHOOSES.get().is_none() {
        return vec![];
    }
    let batches = BATCHES.lock().unwrap_or_else(PoisonError::into_inner);
    let read = batches.iter().filter(|batch| batch.partition == partition && (from + 1..=to).contains(&batch.position));
    read.take(LINKS_MAX).map(|batch| batch.context.clone()).collect()
}

/// Ties a projection to the batches that it reads.
pub fn projected(projection: &Span, batches: Vec<SpanContext>) {
    batches.into_iter().for_each(|batch| projection.add_link(batch));
}

fn context(span: &Span) -> SpanContext {
    span.context().span().span_context().clone()
}

#[cfg(test)]
mod tests {
    use super::Traceparent;

    #[test]
    fn a_traceparent_is_read_as_the_specification_has_it() {
        let read = Traceparent::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").expect("a good one");
        assert_eq!(hex::encode(read.trace_id()), "0af7651916cd43dd8448eb211c80319c");
        assert!(read.is_sampled);
        assert!(Traceparent::parse("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-more").is_some());
        for broken in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "0x-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-zz",
        ] {
            assert_eq!(Traceparent::parse(broken), None, "{broken}");
        }
    }
}
