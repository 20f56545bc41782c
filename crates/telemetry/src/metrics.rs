//! What an operator measures, all of it, under the names that `GET /metrics` gives. A room counts where a thing happens; nobody
//! decides anything by these numbers.
//!
//! Names and units follow <https://prometheus.io/docs/practices/naming/>. What belongs to one process is counted in it; a
//! scraper asks each instance.

use std::sync::LazyLock;

#[cfg(target_os = "linux")]
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramTimer, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder, core::Collector,
};

/// The process's own.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::register);

/// From a memory access to a request that is given up.
const SECONDS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// From one to a batch of a view that is far behind.
const COUNTS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 2_000.0, 8_000.0, 20_000.0];

/// The codes that `ops/alerts.yml` asks for.
const ALARMING: [&str; 4] = ["internal_error", "outcome_unknown", "overloaded", "storage_unavailable"];

/// Everything that is measured.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// How long each request took up to its answer's head, by `method`, `route` and `status`.
    pub requests: HistogramVec,
    /// Connections that are open.
    pub connections: IntGauge,
    /// Requests that were refused or failed, by the `code` of their problem.
    pub refusals: IntCounterVec,
    /// Those among them that were refused for who asked, by `code`. Each has a log line.
    pub authority_refusals: IntCounterVec,
    /// Answers that an idempotency key brought back.
    pub replays: IntCounter,
    /// Commands that wait for the executor.
    pub queued_commands: IntGauge,
    /// How many commands a batch carried.
    pub batch_commands: Histogram,
    /// How long a batch took, by `phase`: `load`, `turnstile` (waiting for other instances), `write`, `commit`
    /// (part of `write` on the fast path), and `whole`.
    pub batch_duration: HistogramVec,
    /// Batches by their `path` through the turnstile: `fast`, or `slow` because others write too.
    pub batches: IntCounterVec,
    /// Events that were appended.
    pub appended_events: IntCounter,
    /// Accounts that a batch needed, by `result`: `hit` where memory held them, `miss` where they were loaded.
    pub cache_lookups: IntCounterVec,
    /// Snapshots that a load began with.
    pub snapshots_used: IntCounter,
    /// Events that a view lags behind the log's head, by `projection`.
    pub projection_lag_events: IntGaugeVec,
    /// For how long the oldest of them has been waiting, by `projection`.
    pub projection_lag_seconds: GaugeVec,
    /// Views and their generations, by `state` as `GET /v1/projections` has it.
    pub projections: IntGaugeVec,
    /// When this process's projector of a `partition` last looked, whether or not there was anything to do.
    pub projector_heartbeat: GaugeVec,
    /// How many events a projector's batch held.
    pub projected_events: Histogram,
    /// How long a projector's batch took.
    pub projection_duration: Histogram,
    /// Connections of the pool that queries use, by `state`: `idle`, `used`.
    pub pool_connections: IntGaugeVec,
    /// Whether the replica is asked: 1 while it is there and near. Told where a replica is configured.
    replica_near: IntGaugeVec,
    /// For how long the oldest event has been waiting that it lacks. Told while it is there.
    replica_lag: GaugeVec,
    /// Queries that went to the primary though a replica is configured, by `reason`: `away`, or `position` where a reader wanted
    /// a position that it had not reached.
    pub replica_fallbacks: IntCounterVec,
    /// Readers of the event feed.
    pub feed_readers: IntGauge,
    /// How often the embedded Postgres was started again.
    pub postgres_restarts: IntCounter,
    /// Messages that a relay has put into its stream, by `stream`.
    pub relay_published: IntCounterVec,
    /// Events that a relay's stream lacks, by `stream`.
    pub relay_lag_events: IntGaugeVec,
    /// For how long the oldest of them has been waiting, by `stream`.
    pub relay_lag_seconds: GaugeVec,
}

impl Metrics {
    fn register() -> Self {
        let registry = Registry::new();
        let keep = Keep(&registry);
        #[cfg(target_os = "linux")]
        registry.register(Box::new(ProcessCollector::for_self())).expect("each name is there once");
        let metrics = Self {
            requests: keep.histograms(
                "http_request_duration_seconds",
                "Time to the head of each answer, by route and status.",
                SECONDS,
                &["method", "route", "status"],
            ),
            connections: keep.gauge("http_connections", "Connections that are open."),
            refusals: keep.counters(
                "refusals_total",
                "Requests refused or failed, by the code of their problem.",
                &["code"],
            ),
            authority_refusals: keep.counters(
                "authority_refusals_total",
                "Requests refused for who asked, by code.",
                &["code"],
            ),
            replays: keep.counter("replays_total", "Answers that an idempotency key brought back."),
            queued_commands: keep.gauge("queued_commands", "Commands that wait for the executor."),
            batch_commands: keep.histogram("batch_commands", "Commands in a batch.", COUNTS),
            batch_duration: keep.histograms(
                "batch_duration_seconds",
                "Time of a batch by phase: load, turnstile, write, commit, and whole.",
                SECONDS,
                &["phase"],
            ),
            batches: keep.counters("batches_total", "Batches by their path through the turnstile.", &["path"]),
            appended_events: keep.counter("appended_events_total", "Events appended."),
            cache_lookups: keep.counters(
                "cache_lookups_total",
                "Accounts that batches needed, by result.",
                &["result"],
            ),
            snapshots_used: keep.counter("snapshots_used_total", "Snapshots that a load began with."),
            projection_lag_events: keep.gauges(
                "projection_lag_events",
                "Events behind the log's head.",
                &["projection"],
            ),
            projection_lag_seconds: keep.seconds(
                "projection_lag_seconds",
                "Waiting time of the oldest event not read yet.",
                &["projection"],
            ),
            projections: keep.gauges("projections", "Views and their generations, by state.", &["state"]),
            projector_heartbeat: keep.seconds(
                "projector_heartbeat_timestamp_seconds",
                "When the projector of a partition last looked.",
                &["partition"],
            ),
            projected_events: keep.histogram("projection_batch_events", "Events in a batch of the projector.", COUNTS),
            projection_duration: keep.histogram(
                "projection_batch_duration_seconds",
                "Time of a batch of the projector.",
                SECONDS,
            ),
            pool_connections: keep.gauges(
                "pool_connections",
                "Connections of the queries' pool, by state.",
                &["state"],
            ),
            replica_near: keep.gauges("replica_near", "1 while the replica is there and near.", &[]),
            replica_lag: keep.seconds(
                "replica_lag_seconds",
                "Waiting time of the oldest event that the replica lacks.",
                &[],
            ),
            replica_fallbacks: keep.counters(
                "replica_fallbacks_total",
                "Queries that went to the primary in place of the replica, by reason.",
                &["reason"],
            ),
            feed_readers: keep.gauge("feed_readers", "Readers of the event feed."),
            postgres_restarts: keep.counter("postgres_restarts_total", "Restarts of the embedded Postgres."),
            relay_published: keep.counters("relay_published_total", "Messages put into the stream.", &["stream"]),
            relay_lag_events: keep.gauges("relay_lag_events", "Events that the stream lacks.", &["stream"]),
            relay_lag_seconds: keep.seconds(
                "relay_lag_seconds",
                "Waiting time of the oldest event that the stream lacks.",
                &["stream"],
            ),
            registry: registry.clone(),
        };
        metrics.begin_at_zero();
        metrics
    }

    /// What has not happened yet is told as 0, so that a first time is seen as a rise.
    fn begin_at_zero(&self) {
        for code in ALARMING {
            self.refusals.with_label_values(&[code]);
        }
        for path in ["fast", "slow"] {
            self.batches.with_label_values(&[path]);
        }
        for result in ["hit", "miss"] {
            self.cache_lookups.with_label_values(&[result]);
        }
        for code in ["unauthenticated", "forbidden", "account_not_found", "rate_limited"] {
            self.authority_refusals.with_label_values(&[code]);
        }
    }

    /// Tells whether the replica is asked, and by how many milliseconds it is behind while it is there.
    pub fn tell_replica(&self, is_near: bool, lag_ms: Option<i64>) {
        const NONE: [&str; 0] = [];
        self.replica_near.with_label_values(&NONE).set(i64::from(is_near));
        match lag_ms {
            Some(lag) => self.replica_lag.with_label_values(&NONE).set(lag as f64 / 1e3),
            None => self.replica_lag.reset(),
        }
        for reason in ["away", "position"] {
            self.replica_fallbacks.with_label_values(&[reason]);
        }
    }

    /// All of it in Prometheus's text format 0.0.4.
    pub fn text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

/// Measures a phase of a batch up to where it is dropped.
pub fn phase(phase: &'static str) -> HistogramTimer {
    METRICS.batch_duration.with_label_values(&[phase]).start_timer()
}

/// What makes a name or a set of buckets good is known when it is written down here.
const GOOD: &str = "constant names and buckets are good ones";

/// Makes what is measured, and registers it.
struct Keep<'a>(&'a Registry);

impl Keep<'_> {
    fn it<C: Collector + Clone + 'static>(&self, collector: C) -> C {
        self.0.register(Box::new(collector.clone())).expect("each name is there once");
        collector
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.it(IntCounter::with_opts(opts(name, help)).expect(GOOD))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.it(IntCounterVec::new(opts(name, help), labels).expect(GOOD))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.it(IntGauge::with_opts(opts(name, help)).expect(GOOD))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.it(IntGaugeVec::new(opts(name, help), labels).expect(GOOD))
    }

    fn seconds(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.it(GaugeVec::new(opts(name, help), labels).expect(GOOD))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.it(Histogram::with_opts(HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec())).expect(GOOD))
    }

    fn histograms(&self, name: &str, help: &str, buckets: &[f64], labels: &[&str]) -> HistogramVec {
        let opts = HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec());
        self.it(HistogramVec::new(opts, labels).expect(GOOD))
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("passbook")
}
