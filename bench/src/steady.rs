//! Rows of a constant rate: latency from the schedule, and the projections' lag meanwhile.

use anyhow::Result;
use serde::Serialize;
use tokio::sync::oneshot;

use crate::open_model;
use crate::process::{CpuPerCommand, cpu_time};
use crate::projections::{SampledLag, catch_up, sampled};
use crate::rig::Rig;
use crate::row::troubles;
use crate::service::Service;
use crate::table::{aligned, or_dash, rate};

/// The rate at which the lag is told, if the machine reaches it.
const LAG_PER_SECOND: f64 = 10_000.0;

const HEAD: [&str; 9] = [
    "constant rate",
    "asked/s",
    "answered/s",
    "p50 ms",
    "p99 ms",
    "p99.9 ms",
    "max ms",
    "lag ms p50 / p99 / max",
    "CPU µs/command service / Postgres",
];

#[derive(Clone, Debug, Serialize)]
pub struct Steady {
    pub name: String,
    pub asked_per_second: f64,
    pub answered_per_second: f64,
    pub requests: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
    /// Requests that found no connection free; their latency counts from the schedule all the same.
    pub waited: u64,
    pub refused: u64,
    pub broken: u64,
    pub lag: SampledLag,
    pub cpu: Option<CpuPerCommand>,
}

/// Half and four fifths of what the closed loop reached, and a rate that can be compared from machine to machine.
pub async fn measure_all(rig: &Rig, service: &Service, max_per_second: f64) -> Result<Vec<Steady>> {
    let mut steady = Vec::new();
    for (name, per_second) in rates(max_per_second) {
        eprintln!("deposits at a constant rate: {name}");
        steady.push(measure(rig, service, name, per_second).await?);
    }
    Ok(steady)
}

fn rates(max_per_second: f64) -> Vec<(&'static str, f64)> {
    let mut rates = vec![("50 % of the maximum", 0.5 * max_per_second), ("80 % of the maximum", 0.8 * max_per_second)];
    if 0.8 * max_per_second > LAG_PER_SECOND {
        rates.push(("10 000 a second", LAG_PER_SECOND));
    }
    rates
}

async fn measure(rig: &Rig, service: &Service, name: &str, per_second: f64) -> Result<Steady> {
    let pid = service.server.pid;
    let before = cpu_time(pid, pid);
    let (begin, begun) = oneshot::channel();
    let load = open_model::deposits(&service.server.url, per_second, rig.seconds, begin);
    let (outcome, lag) = sampled(&rig.passbook, load, begun).await?;
    catch_up(&rig.passbook).await?;
    let answered = outcome.latencies.count() - outcome.refused;
    Ok(Steady {
        name: name.to_owned(),
        asked_per_second: per_second,
        answered_per_second: answered as f64 / outcome.seconds,
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

impl Steady {
    pub fn failed(&self) -> bool {
        self.refused > 0 || self.broken > 0
    }

    fn cells(&self) -> [String; 9] {
        let Steady { waited, refused, broken, ref lag, .. } = *self;
        let counted = [("waited for a connection", waited), ("refused", refused), ("broken", broken)];
        [
            format!("{}{}", self.name, troubles(&counted)),
            rate(self.asked_per_second),
            rate(self.answered_per_second),
            format!("{:.2}", self.p50_ms),
            format!("{:.2}", self.p99_ms),
            format!("{:.2}", self.p999_ms),
            format!("{:.0}", self.max_ms),
            format!("{:.1} / {:.1} / {:.1}", lag.p50_ms, lag.p99_ms, lag.max_ms),
            or_dash(self.cpu.as_ref().map(CpuPerCommand::cell)),
        ]
    }
}

pub fn table(steady: &[Steady]) -> String {
    aligned(HEAD, &steady.iter().map(Steady::cells).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::rates;

    #[test]
    fn a_machine_that_does_not_reach_the_common_rate_tells_its_lag_at_80_percent() {
        assert_eq!(rates(12_000.0).len(), 2);
        assert_eq!(rates(20_000.0).last(), Some(&("10 000 a second", 10_000.0)));
    }
}
