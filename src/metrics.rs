//! What an operator measures, all of it, under the names that `GET /metrics` gives. A room counts where a thing happens; nobody
//! decides anything by these numbers.
//!
//! Names and units follow <https://prometheus.io/docs/practices/naming/>.

use std::sync::LazyLock;

use prometheus::{IntCounterVec, Opts, Registry, TextEncoder, core::Collector};

/// The process's own.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::register);

/// Everything that is measured.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Requests that were refused or failed, by the code of their problem.
    pub refusals: IntCounterVec,
    /// Those among them that were refused for who asked, by code. Each has a log line.
    pub authority_refusals: IntCounterVec,
}

impl Metrics {
    fn register() -> Self {
        let registry = Registry::new();
        Self {
            refusals: registered(
                &registry,
                counters(
                    "passbook_refusals_total",
                    "Requests refused or failed, by the code of their problem.",
                    &["code"],
                ),
            ),
            authority_refusals: registered(
                &registry,
                counters("passbook_authority_refusals_total", "Requests refused for who asked, by code.", &["code"]),
            ),
            registry,
        }
    }

    /// All of it in Prometheus's text format 0.0.4.
    pub fn text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect("a constant name is a good one")
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> C {
    registry.register(Box::new(collector.clone())).expect("each name is there once");
    collector
}
