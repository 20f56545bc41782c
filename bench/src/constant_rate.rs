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
use crate::stalls::Stall;
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
    pub stalls: Vec<Stall>,
    /// Requests that had to wait for a free connection. Their latency still counts from the scheduled time.
    pub waited: u64,
    pub refused: u64,
    pub broken: u64,
    pub lag: SampledLag,
    pub cpu: Option<CpuPerCommand>,
}

/// Measures 50 % and 80 % of the closed loop's throughput, and a fixed rate that makes machines comparable. Then it measures 50 %
/// again for `long_seconds`.
pub async fn measure_all(
    harness: &Harness,
    service: &Service,
    max_per_second: f64,
    long_seconds: u32,
) -> Result<Vec<ConstantRateRow>> {
    let mut loads = loads(max_per_second, harness.length.seconds());
    loads.push(Load {
        name: format!("50 % of the maximum, {long_seconds} s"),
        per_second: 0.5 * max_per_second,
        seconds: long_seconds,
    });
    let mut rows = Vec::new();
    for load in loads {
        eprintln!("deposits at a constant rate: {}", load.name);
        rows.push(measure(harness, service, load).await?);
    }
    Ok(rows)
}

/// A load at a constant rate.
struct Load {
    name: String,
    per_second: f64,
    seconds: u32,
}

fn loads(max_per_second: f64, seconds: u32) -> Vec<Load> {
    let load = |name: &str, per_second| Load { name: name.to_owned(), per_second, seconds };
    let mut loads =
        vec![load("50 % of the maximum", 0.5 * max_per_second), load("80 % of the maximum", 0.8 * max_per_second)];
    if 0.8 * max_per_second > COMMON_PER_SECOND {
        loads.push(load("10 000 per second", COMMON_PER_SECOND));
    }
    loads
}

async fn measure(harness: &Harness, service: &Service, load: Load) -> Result<ConstantRateRow> {
    let Load { name, per_second, seconds } = load;
    let pid = service.server.pid;
    let before = cpu_time(pid, pid);
    let (notify_started, started) = oneshot::channel();
    let load = open_loop::deposits(&service.server.url, per_second, seconds, notify_started);
    let (outcome, lag) = sample_lag(&harness.passbook, load, started).await?;
    catch_up(&harness.passbook).await?;
    let completed = outcome.latencies.count() - outcome.refused;
    Ok(ConstantRateRow {
        name,
        sent_per_second: per_second,
        completed_per_second: completed as f64 / outcome.seconds,
        requests: outcome.requests,
        p50_ms: outcome.latencies.percentile_ms(50.0),
        p99_ms: outcome.latencies.percentile_ms(99.0),
        p999_ms: outcome.latencies.percentile_ms(99.9),
        max_ms: outcome.latencies.max_ms(),
        stalls: outcome.stalls.list(),
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

/// A line for each row with stalls: when each began, and its greatest latency.
pub fn stalls(rows: &[ConstantRateRow]) -> String {
    let stall = |stall: &Stall| format!("{:.0} ms at {:.1} s", stall.longest_ms, stall.at_s);
    let line = |row: &ConstantRateRow| {
        let stalls: Vec<_> = row.stalls.iter().map(stall).collect();
        format!("- Latencies of 100 ms and more, {}: {}.\n", row.name, stalls.join(", "))
    };
    rows.iter().filter(|row| !row.stalls.is_empty()).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::loads;

    #[test]
    fn the_common_rate_is_measured_only_on_fast_machines() {
        assert_eq!(loads(12_000.0, 1).len(), 2);
        assert_eq!(loads(20_000.0, 1).last().map(|load| load.name.as_str()), Some("10 000 per second"));
    }
}
