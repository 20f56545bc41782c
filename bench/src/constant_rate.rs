//! Result rows at constant rates: latencies from the scheduled times, and the projections' lag during the load.

use anyhow::Result;
use serde::Serialize;
use tokio::sync::oneshot;

use crate::harness::Harness;
use crate::open_loop;
use crate::projections::{SampledLag, catch_up, sample_lag};
use crate::resource_usage::{CpuPerCommand, cpu_time};
use crate::result_row::error_note;
use crate::service::Service;
use crate::table::{aligned, or_dash, rate};

/// A fixed rate that makes machines comparable. It is measured only if it is below 80 % of the maximum.
const COMMON_PER_SECOND: f64 = 10_000.0;

const HEAD: [&str; 9] = [
    "constant rate",
    "sent/s",
    "completed/s",
    "p50 ms",
    "p99 ms",
    "p99.9 ms",
    "max ms",
    "lag ms p50 / p99 / max",
    "CPU µs/command service / Postgres",
];

/// The figures of one rate.
#[derive(Clone, Debug, Serialize)]
pub struct ConstantRateRow {
    pub name: String,
    #[serde(rename = "asked_per_second")]
    pub sent_per_second: f64,
    #[serde(rename = "answered_per_second")]
    pub completed_per_second: f64,
    pub requests: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
    /// Requests that had to wait for a free connection. Their latency still counts from the scheduled time.
    pub waited: u64,
    pub refused: u64,
    pub broken: u64,
    pub lag: SampledLag,
    pub cpu: Option<CpuPerCommand>,
}

/// Measures 50 % and 80 % of the closed loop's throughput, and a fixed rate that makes machines comparable.
pub async fn measure_all(harness: &Harness, service: &Service, max_per_second: f64) -> Result<Vec<ConstantRateRow>> {
    let mut rows = Vec::new();
    for (name, per_second) in rates(max_per_second) {
        eprintln!("deposits at a constant rate: {name}");
        rows.push(measure(harness, service, name, per_second).await?);
    }
    Ok(rows)
}

fn rates(max_per_second: f64) -> Vec<(&'static str, f64)> {
    let mut rates = vec![("50 % of the maximum", 0.5 * max_per_second), ("80 % of the maximum", 0.8 * max_per_second)];
    if 0.8 * max_per_second > COMMON_PER_SECOND {
        rates.push(("10 000 per second", COMMON_PER_SECOND));
    }
    rates
}

async fn measure(harness: &Harness, service: &Service, name: &str, per_second: f64) -> Result<ConstantRateRow> {
    let pid = service.server.pid;
    let before = cpu_time(pid, pid);
    let (notify_started, started) = oneshot::channel();
    let load = open_loop::deposits(&service.server.url, per_second, harness.length.seconds(), notify_started);
    let (outcome, lag) = sample_lag(&harness.passbook, load, started).await?;
    catch_up(&harness.passbook).await?;
    let completed = outcome.latencies.count() - outcome.refused;
    Ok(ConstantRateRow {
        name: name.to_owned(),
        sent_per_second: per_second,
        completed_per_second: completed as f64 / outcome.seconds,
        requests: outcome.requests,
        p50_ms: outcome.latencies.percentile_ms(50.0),
        p99_ms: outcome.latencies.percentile_ms(99.0),
        p999_ms: outcome.latencies.percentile_ms(99.9),
        max_ms: outcome.latencies.max_ms(),
        waited: outcome.waited,
        refused: outcome.refused,
        broken: outcome.broken,
        lag,
        cpu: CpuPerCommand::between(before, cpu_time(pid, pid), outcome.requests),
    })
}

impl ConstantRateRow {
    pub fn failed(&self) -> bool {
        self.refused > 0 || self.broken > 0
    }

    fn cells(&self) -> [String; 9] {
        let ConstantRateRow { waited, refused, broken, ref lag, .. } = *self;
        let counted = [("waited for a connection", waited), ("refused", refused), ("broken", broken)];
        [
            format!("{}{}", self.name, error_note(&counted)),
            rate(self.sent_per_second),
            rate(self.completed_per_second),
            format!("{:.2}", self.p50_ms),
            format!("{:.2}", self.p99_ms),
            format!("{:.2}", self.p999_ms),
            format!("{:.0}", self.max_ms),
            format!("{:.1} / {:.1} / {:.1}", lag.p50_ms, lag.p99_ms, lag.max_ms),
            or_dash(self.cpu.as_ref().map(CpuPerCommand::cell)),
        ]
    }
}

pub fn table(rows: &[ConstantRateRow]) -> String {
    aligned(HEAD, &rows.iter().map(ConstantRateRow::cells).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::rates;

    #[test]
    fn the_common_rate_is_measured_only_on_fast_machines() {
        assert_eq!(rates(12_000.0).len(), 2);
        assert_eq!(rates(20_000.0).last(), Some(&("10 000 per second", 10_000.0)));
    }
}
