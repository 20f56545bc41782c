//! OpenTelemetry traces of requests. The spans are request, command, batch and projection.
//!
//! A batch contains many commands and a projection reads many batches, so links connect these spans, and they are not parent and
//! child. A request is sampled before its span is created, because a span that is dropped later costs as much as one that is
//! exported. A batch is traced if one of its commands is; a projection is traced if it reads a traced batch.

use std::{
    collections::VecDeque,
    sync::{Mutex, OnceLock, PoisonError},
    thread,
    time::Duration,
};

use opentelemetry::{
    Context,
    propagation::{Extractor, TextMapPropagator},
    trace::{SpanContext, SpanKind, TraceContextExt, TracerProvider},
};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{Config, IdGenerator, RandomIdGenerator, Sampler, SamplingDecision, SdkTracerProvider, ShouldSample},
};
use reqwest::blocking::Client;
use tracing::{Span, Subscriber, level_filters::LevelFilter};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{Layer, filter::Directive, filter::Targets, registry::LookupSpan};

/// OpenTelemetry's variable for the collector's URL. The SDK reads its other variables itself.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// OpenTelemetry's variable for the sampler.
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
/// OpenTelemetry's variable for the name of the service.
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
/// The share of requests that is traced without [`SAMPLER`], beside those whose callers trace them.
const DEFAULT_RATIO: f64 = 0.01;
/// How long the collector may take to answer.
const EXPORT_MAX: Duration = Duration::from_secs(10);
/// The target of every span that is exported.
pub const TARGET: &str = "passbook::trace";
/// How many traced batches are kept until a projection reads them.
const BATCHES_MAX: usize = 1_024;
/// How many batches one projection span links to.
const LINKS_MAX: usize = 128;

static SAMPLE: OnceLock<Box<dyn ShouldSample>> = OnceLock::new();
static BATCHES: Mutex<VecDeque<Batch>> = Mutex::new(VecDeque::new());

/// A traced batch that ended at `position`.
struct Batch {
    partition: i16,
    position: i64,
    context: SpanContext,
}

/// The span exporter; `None` where no collector is configured.
pub(super) fn exporter() -> Result<Option<SdkTracerProvider>, String> {
    let Ok(endpoint) = std::env::var(ENDPOINT) else { return Ok(None) };
    if !["http://", "https://"].iter().any(|scheme| endpoint.starts_with(scheme)) {
        return Err(format!("{ENDPOINT}={endpoint:?} is not a collector's URL such as http://127.0.0.1:4318"));
    }
    let exporter = exporter_to(&endpoint).map_err(|error| format!("{ENDPOINT}: {error}"))?;
    let resource = Resource::builder().with_service_name(service_name()).build();
    // A process starts its telemetry once, so nothing was set before.
    let _ = SAMPLE.set(sampler());
    let traces = SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOn);
    Ok(Some(traces.with_batch_exporter(exporter).with_resource(resource).build()))
}

fn exporter_to(endpoint: &str) -> Result<SpanExporter, String> {
    let client = match http_client(true) {
        // A machine without certificates can still export without TLS.
        Err(_) if endpoint.starts_with("http://") => http_client(false),
        client => client,
    }?;
    SpanExporter::builder().with_http().with_http_client(client).build().map_err(|error| error.to_string())
}

/// Creates the client on a thread of its own, because the client owns a runtime and must not be created within another one.
fn http_client(with_certificates: bool) -> Result<Client, String> {
    let create = move || {
        // Fails where another provider is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().timeout(EXPORT_MAX);
        if with_certificates { client.build() } else { client.tls_certs_only([]).build() }
    };
    let created = thread::spawn(create).join().map_err(|_| "the HTTP client cannot be created")?;
    created.map_err(|error| error.to_string())
}

fn sampler() -> Box<dyn ShouldSample> {
    match std::env::var_os(SAMPLER).filter(|sampler| !sampler.is_empty()) {
        Some(_) => Config::default().sampler,
        None => Box::new(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(DEFAULT_RATIO)))),
    }
}

/// Whether to trace a request, given its caller's trace context.
pub fn is_sampled(parent: Option<&Traceparent>) -> bool {
    let Some(sampler) = SAMPLE.get() else { return false };
    let context = parent.map(Traceparent::context);
    let trace = parent.map_or_else(|| RandomIdGenerator::default().new_trace_id(), |parent| parent.0.trace_id());
    let sampled = sampler.should_sample(context.as_ref(), trace, "request", &SpanKind::Server, &[], &[]);
    sampled.decision == SamplingDecision::RecordAndSample
}

fn service_name() -> String {
    std::env::var(SERVICE_NAME).unwrap_or_else(|_| "passbook".to_owned())
}

pub(super) fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(traces: &SdkTracerProvider) -> impl Layer<S> {
    let spans = tracing_opentelemetry::layer().with_tracer(traces.tracer("passbook")).with_location(false);
    spans.with_threads(false).with_filter(Targets::new().with_target(TARGET, LevelFilter::INFO))
}

/// The filter directive that excludes spans from the log.
pub(super) fn log_exclusion() -> Directive {
    format!("{TARGET}=off").parse().expect("a constant directive is valid")
}

/// The trace context that a client sends in the header `traceparent` (<https://www.w3.org/TR/trace-context/>).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traceparent(SpanContext);

/// One `traceparent` header, as the propagator reads it.
struct Header<'a>(&'a str);

impl Extractor for Header<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == "traceparent").then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent"]
    }
}

impl Traceparent {
    /// Parses the header. `None` for an invalid one, which the specification says to ignore.
    pub fn parse(header: &str) -> Option<Self> {
        // The propagator is less strict than the specification: it accepts short fields, signs and a fifth field of version 00.
        let mut fields = header.split('-');
        let is_hex = |c: char| matches!(c, '0'..='9' | 'a'..='f');
        let is_valid = |length| fields.next().is_some_and(|field| field.len() == length && field.chars().all(is_hex));
        if ![2, 32, 16, 2].into_iter().all(is_valid) || (header.starts_with("00") && fields.next().is_some()) {
            return None;
        }
        let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &Header(header));
        let span = context.span().span_context().clone();
        span.is_valid().then_some(Self(span))
    }

    /// The id of the trace.
    pub fn trace_id(&self) -> [u8; 16] {
        self.0.trace_id().to_bytes()
    }

    /// Makes `span` a child of the client's span.
    pub fn adopt(&self, span: &Span) {
        // Fails for a span that was entered before; this one was not.
        let _ = span.set_parent(self.context());
    }

    fn context(&self) -> Context {
        Context::new().with_remote_span_context(self.0.clone())
    }
}

/// Links a command to its batch, if both are traced.
pub fn link_command(command: &Span, batch: &Span) {
    if !command.is_disabled() && !batch.is_disabled() {
        command.add_link(context(batch));
    }
}

/// Remembers a traced batch that ended at `position`, for [`batches`].
pub fn remember_batch(partition: i16, position: i64, batch: &Span) {
    if !batch.is_disabled() {
        let mut batches = BATCHES.lock().unwrap_or_else(PoisonError::into_inner);
        batches.truncate(BATCHES_MAX - 1);
        batches.push_front(Batch { partition, position, context: context(batch) });
    }
}

/// The traced batches of this process that ended after `from` and not after `to`.
pub fn batches(partition: i16, from: i64, to: i64) -> Vec<SpanContext> {
    if SAMPLE.get().is_none() {
        return vec![];
    }
    let batches = BATCHES.lock().unwrap_or_else(PoisonError::into_inner);
    let read = batches.iter().filter(|batch| batch.partition == partition && (from + 1..=to).contains(&batch.position));
    read.take(LINKS_MAX).map(|batch| batch.context.clone()).collect()
}

/// Links a projection to the batches that it reads.
pub fn link_projection(projection: &Span, batches: Vec<SpanContext>) {
    batches.into_iter().for_each(|batch| projection.add_link(batch));
}

fn context(span: &Span) -> SpanContext {
    span.context().span().span_context().clone()
}

#[cfg(test)]
mod tests {
    use super::Traceparent;

    #[test]
    fn a_traceparent_is_parsed_as_specified() {
        let parsed =
            Traceparent::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").expect("a valid header");
        assert_eq!(hex::encode(parsed.trace_id()), "0af7651916cd43dd8448eb211c80319c");
        assert!(parsed.0.is_sampled());
        assert!(Traceparent::parse("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-more").is_some());
        for invalid in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "+0-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "AA-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "0x-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-zz",
        ] {
            assert_eq!(Traceparent::parse(invalid), None, "{invalid}");
        }
    }
}
