//! The Prometheus metrics of one process, as `GET /metrics` returns them. They are only reported: no code decides by them.
//!
//! Names and units follow <https://prometheus.io/docs/practices/naming/>. Each instance is scraped by itself.

use std::{cell::RefCell, sync::LazyLock};

#[cfg(target_os = "linux")]
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramTimer, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
    core::Collector,
    proto::{MetricFamily, MetricType},
};

/// The metrics of this process.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::register);

/// Buckets from a cached read to a request that times out.
const SECONDS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Buckets from one event to the largest batch of a projector that catches up.
const COUNTS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 2_000.0, 8_000.0, 20_000.0];

/// The problem codes that `ops/alerts.yml` queries.
const ALERT_CODES: [&str; 4] = ["internal_error", "outcome_unknown", "overloaded", "storage_unavailable"];

/// A metric as the documentation lists it.
#[derive(Clone, Debug)]
pub struct Description {
    /// The name with its prefix.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    /// The names of its labels.
    pub labels: Vec<String>,
    /// The text of its `# HELP` line.
    pub help: String,
}

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    descriptions: Vec<Description>,
    /// Time until the head of each response, by `method`, `route` and `status`.
    pub requests: HistogramVec,
    /// Open HTTP connections.
    pub connections: IntGauge,
    /// Requests that were refused or failed, by the `code` of their problem.
    pub refusals: IntCounterVec,
    /// Requests that access control refused, by `code`. Each one has a log line.
    pub authority_refusals: IntCounterVec,
    /// Responses that were replayed for an idempotency key.
    pub replays: IntCounter,
    /// Idempotency keys that were deleted because of their age.
    pub deleted_keys: IntCounter,
    /// Holds whose expiry this process recorded.
    pub expired_holds: IntCounter,
    /// Commands in the queues of the executors.
    pub queued_commands: IntGauge,
    /// Commands of each batch.
    pub batch_commands: Histogram,
    /// Time of each batch by `phase`: `load`, `lock` (waiting for the log-head lock), `write`, `commit` (part of `write` on the
    /// optimistic path), and `whole`.
    pub batch_duration: HistogramVec,
    /// Batches by their `path`: `optimistic`, or `locked` because other instances write too.
    pub batches: IntCounterVec,
    /// Appended events, by `type`.
    pub appended_events: IntCounterVec,
    /// Accounts that batches needed, by `result`: `hit` from the cache, `miss` if loaded from the database.
    pub cache_lookups: IntCounterVec,
    /// Snapshots that loads started from.
    pub snapshots_used: IntCounter,
    /// Events between the view and the log's head, by `projection`.
    pub projection_lag_events: IntGaugeVec,
    /// Age of the oldest event that the view lacks, by `projection`.
    pub projection_lag_seconds: GaugeVec,
    /// Generations of views by `state`, as in `GET /v1/projections`.
    pub projections: IntGaugeVec,
    /// When the projector of a `partition` last polled the log, with or without new events.
    pub projector_heartbeat: GaugeVec,
    /// Events of each projector batch.
    pub projected_events: Histogram,
    /// Time of each projector batch.
    pub projection_duration: Histogram,
    /// Connections of the query pool by `state`: `idle`, `used`.
    pub pool_connections: IntGaugeVec,
    /// 1 while queries use the replica. Only with a configured replica.
    replica_near: IntGaugeVec,
    /// Age of the oldest event that the replica lacks, while it is reachable.
    replica_lag: GaugeVec,
    /// Queries that used the primary in spite of a configured replica, by `reason`. `away`: the replica is unusable. `position`:
    /// the replica had not reached the position that the client asked for.
    pub replica_fallbacks: IntCounterVec,
    /// Subscribers of the event feed.
    pub feed_readers: IntGauge,
    /// Log lines that were dropped because standard error was read too slowly.
    dropped_log_lines: IntCounter,
    /// Panics of request handlers and connections.
    pub request_panics: IntCounter,
    /// How often the log did not contain an event that this process had acknowledged.
    pub lost_heads: IntCounter,
    /// Servers that accept writes although another one has a newer timeline.
    pub former_primaries: IntGauge,
    /// Restarts of the embedded Postgres.
    pub postgres_restarts: IntCounter,
    /// Messages that the relay published, by `stream`.
    pub relay_published: IntCounterVec,
    /// Events that the relay has not published yet, by `stream`.
    pub relay_lag_events: IntGaugeVec,
    /// Age of the oldest of them, by `stream`.
    pub relay_lag_seconds: GaugeVec,
}

impl Metrics {
    fn register() -> Self {
        let registry = Registry::new();
        let register = Registrar { registry: &registry, descriptions: RefCell::default() };
        #[cfg(target_os = "linux")]
        registry.register(Box::new(ProcessCollector::for_self())).expect("metric names are unique");
        let metrics = Self {
            requests: register.histograms(
                "http_request_duration_seconds",
                "Time to the head of each response, by route and status.",
                SECONDS,
                &["method", "route", "status"],
            ),
            connections: register.gauge("http_connections", "Open connections."),
            refusals: register.counters(
                "refusals_total",
                "Requests refused or failed, by the code of their problem.",
                &["code"],
            ),
            authority_refusals: register.counters(
                "authority_refusals_total",
                "Requests refused by access control, by code.",
                &["code"],
            ),
            replays: register.counter("replays_total", "Responses replayed for an idempotency key."),
            deleted_keys: register
                .counter("idempotency_keys_deleted_total", "Idempotency keys deleted because of their age."),
            expired_holds: register.counter("holds_expired_total", "Holds whose expiry this process recorded."),
            queued_commands: register.gauge("queued_commands", "Commands in the queues of the executors."),
            batch_commands: register.histogram("batch_commands", "Commands in a batch.", COUNTS),
            batch_duration: register.histograms(
                "batch_duration_seconds",
                "Time of a batch by phase: load, lock, write, commit, and whole.",
                SECONDS,
                &["phase"],
            ),
            batches: register.counters("batches_total", "Batches by path: optimistic or locked.", &["path"]),
            appended_events: register.counters("appended_events_total", "Events appended, by type.", &["type"]),
            cache_lookups: register.counters(
                "cache_lookups_total",
                "Accounts that batches needed, by result.",
                &["result"],
            ),
            snapshots_used: register.counter("snapshots_used_total", "Snapshots that loads started from."),
            projection_lag_events: register.gauges(
                "projection_lag_events",
                "Events behind the log's head.",
                &["projection"],
            ),
            projection_lag_seconds: register.seconds(
                "projection_lag_seconds",
                "Age of the oldest event that the view lacks.",
                &["projection"],
            ),
            projections: register.gauges("projections", "Generations of views, by state.", &["state"]),
            projector_heartbeat: register.seconds(
                "projector_heartbeat_timestamp_seconds",
                "When the projector of a partition last polled the log.",
                &["partition"],
            ),
            projected_events: register.histogram(
                "projection_batch_events",
                "Events in a batch of the projector.",
                COUNTS,
            ),
            projection_duration: register.histogram(
                "projection_batch_duration_seconds",
                "Time of a batch of the projector.",
                SECONDS,
            ),
            pool_connections: register.gauges(
                "pool_connections",
                "Connections of the query pool, by state.",
                &["state"],
            ),
            replica_near: register.gauges("replica_near", "1 while queries use the replica.", &[]),
            replica_lag: register.seconds(
                "replica_lag_seconds",
                "Age of the oldest event that the replica lacks.",
                &[],
            ),
            replica_fallbacks: register.counters(
                "replica_fallbacks_total",
                "Queries that used the primary instead of the replica, by reason.",
                &["reason"],
            ),
            feed_readers: register.gauge("feed_readers", "Subscribers of the event feed."),
            dropped_log_lines: register
                .counter("log_lines_dropped_total", "Log lines dropped because standard error was read too slowly."),
            request_panics: register.counter("request_panics_total", "Panics of request handlers and connections."),
            lost_heads: register.counter(
                "lost_heads_total",
                "How often the log did not contain an event that this process had acknowledged.",
            ),
            former_primaries: register
                .gauge("former_primaries", "Servers that accept writes although another one has a newer timeline."),
            postgres_restarts: register.counter("postgres_restarts_total", "Restarts of the embedded Postgres."),
            relay_published: register.counters(
                "relay_published_total",
                "Messages published to the stream.",
                &["stream"],
            ),
            relay_lag_events: register.gauges(
                "relay_lag_events",
                "Events not published to the stream yet.",
                &["stream"],
            ),
            relay_lag_seconds: register.seconds(
                "relay_lag_seconds",
                "Age of the oldest event not published to the stream yet.",
                &["stream"],
            ),
            descriptions: register.descriptions.into_inner(),
            registry: registry.clone(),
        };
        metrics.init_alert_series();
        metrics
    }

    /// Exports series with the value 0 before their first event, so that alerts see the first increase.
    fn init_alert_series(&self) {
        for code in ALERT_CODES {
            self.refusals.with_label_values(&[code]);
        }
        for path in ["optimistic", "locked"] {
            self.batches.with_label_values(&[path]);
        }
        for result in ["hit", "miss"] {
            self.cache_lookups.with_label_values(&[result]);
        }
        for code in ["unauthenticated", "forbidden", "account_not_found", "rate_limited"] {
            self.authority_refusals.with_label_values(&[code]);
        }
    }

    /// Sets whether queries use the replica, and its lag in milliseconds while it is reachable.
    pub fn set_replica(&self, is_near: bool, lag_ms: Option<i64>) {
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

    /// What each metric of Passbook is, with or without a value.
    pub fn descriptions(&self) -> &[Description] {
        &self.descriptions
    }

    /// All metrics in Prometheus's text format 0.0.4.
    pub fn text(&self) -> String {
        // Two requests at once may both add the same lines; the next one does not correct that.
        let dropped = crate::log_queue::dropped_lines();
        self.dropped_log_lines.inc_by(dropped.saturating_sub(self.dropped_log_lines.get()));
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

/// Measures a phase of a batch until the timer is dropped.
pub fn phase(phase: &'static str) -> HistogramTimer {
    METRICS.batch_duration.with_label_values(&[phase]).start_timer()
}

/// Names and buckets are constants, so a failure here is a bug.
const VALID: &str = "constant names and buckets are valid";

/// Creates metrics, registers and describes them.
struct Registrar<'a> {
    registry: &'a Registry,
    descriptions: RefCell<Vec<Description>>,
}

impl Registrar<'_> {
    fn add<C: Collector + Clone + 'static>(&self, collector: C) -> C {
        self.registry.register(Box::new(collector.clone())).expect("metric names are unique");
        let kind = collector.collect().first().map_or(MetricType::UNTYPED, MetricFamily::get_field_type);
        let described = collector.desc().into_iter().map(|described| Description {
            name: described.fq_name.clone(),
            kind: format!("{kind:?}").to_lowercase(),
            labels: described.variable_labels.clone(),
            help: described.help.clone(),
        });
        self.descriptions.borrow_mut().extend(described);
        collector
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::with_opts(opts(name, help)).expect(VALID))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add(IntCounterVec::new(opts(name, help), labels).expect(VALID))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::with_opts(opts(name, help)).expect(VALID))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add(IntGaugeVec::new(opts(name, help), labels).expect(VALID))
    }

    fn seconds(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.add(GaugeVec::new(opts(name, help), labels).expect(VALID))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.add(Histogram::with_opts(HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec())).expect(VALID))
    }

    fn histograms(&self, name: &str, help: &str, buckets: &[f64], labels: &[&str]) -> HistogramVec {
        let opts = HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec());
        self.add(HistogramVec::new(opts, labels).expect(VALID))
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("passbook")
}
