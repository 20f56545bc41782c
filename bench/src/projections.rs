//! Measures how far the projections are behind the log: after a load and during a load.

use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval};

use crate::client::{Passbook, Projection, ProjectionState};
use crate::latency::Latencies;
use crate::projection_watch::ProjectionWatch;

const CATCH_UP_POLL_MS: u64 = 10;
const SAMPLE_MS: u64 = 20;

/// The greatest lag at the end of a load, and the time until it was 0.
#[derive(Clone, Debug, Serialize)]
pub struct Lag {
    pub events: u64,
    pub seconds: f64,
    pub caught_up_after_ms: f64,
}

/// The age of the oldest unprojected event, sampled during a load.
#[derive(Clone, Debug, Serialize)]
pub struct SampledLag {
    pub samples: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

/// Reads the lag, and waits until it is 0. Fails if a projection stops.
pub async fn catch_up(passbook: &Passbook) -> Result<Lag> {
    let started = Instant::now();
    let mut watch = ProjectionWatch::default();
    let mut projections = passbook.projections().await?;
    let (events, seconds) = lag(&projections)?;
    while lag(&projections)?.0 > 0 {
        watch.check(&projections, Instant::now())?;
        tokio::time::sleep(Duration::from_millis(CATCH_UP_POLL_MS)).await;
        projections = passbook.projections().await?;
    }
    let caught_up_after_ms = if events == 0 { 0.0 } else { started.elapsed().as_secs_f64() * 1000.0 };
    Ok(Lag { events, seconds, caught_up_after_ms })
}

/// Samples the lag while `load` runs. Sampling starts when `started` receives a message.
pub async fn sample_lag<T>(
    passbook: &Passbook,
    load: impl Future<Output = Result<T>>,
    mut started: oneshot::Receiver<()>,
) -> Result<(T, SampledLag)> {
    let mut load = pin!(load);
    let mut has_started = false;
    let mut samples = Latencies::new()?;
    let mut ticks = interval(Duration::from_millis(SAMPLE_MS));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            outcome = &mut load => return Ok((outcome?, SampledLag {
                samples: samples.count(),
                p50_ms: samples.percentile_ms(50.0),
                p99_ms: samples.percentile_ms(99.0),
                max_ms: samples.max_ms(),
            })),
            _ = &mut started, if !has_started => has_started = true,
            _ = ticks.tick(), if has_started => {
                samples.record_us((lag(&passbook.projections().await?)?.1 * 1e6) as u64);
            }
        }
    }
}

/// The greatest lag of any projection that is read, in events and in seconds.
fn lag(projections: &[Projection]) -> Result<(u64, f64)> {
    let is_read = |projection: &&Projection| match projection.state {
        ProjectionState::Live | ProjectionState::Stopped => true,
        ProjectionState::Building | ProjectionState::Retired | ProjectionState::Failed => false,
    };
    let read: Vec<&Projection> = projections.iter().filter(is_read).collect();
    ensure!(!read.is_empty(), "GET /v1/projections returned no projection");
    let events = read.iter().map(|projection| projection.lag_events).max();
    let seconds = read.iter().filter_map(|projection| projection.lag_seconds);
    Ok((events.unwrap_or(0), seconds.fold(0.0, f64::max)))
}
