//! Measures how far the projections are behind the log: after a load, during a load, and during a rebuild.

use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval};

use crate::client::Passbook;
use crate::latency::Latencies;
use crate::postgres::Postgres;

const CATCH_UP_SECONDS_MAX: u64 = 1_800;
const CATCH_UP_POLL_MS: u64 = 10;
const SAMPLE_MS: u64 = 20;

/// Resets every view. The statements lock tables in the projector's order, so the service keeps running; it responds to
/// queries with 503 until the views are rebuilt.
const EMPTY_VIEWS: &str = "UPDATE projection SET position = 0, state = 'building';
                           TRUNCATE account_view, account_transaction";

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

/// The speed at which the projections read the whole log.
#[derive(Clone, Debug, Serialize)]
pub struct CatchUp {
    pub events: u64,
    pub seconds: f64,
    pub per_second: f64,
}

/// Reads the lag, and waits until it is 0.
pub async fn catch_up(passbook: &Passbook) -> Result<Lag> {
    let started = Instant::now();
    let (events, seconds) = lag(passbook).await?;
    let mut behind = events;
    while behind > 0 {
        if started.elapsed() > Duration::from_secs(CATCH_UP_SECONDS_MAX) {
            bail!("a projection is {behind} events behind, {CATCH_UP_SECONDS_MAX} s after the load");
        }
        tokio::time::sleep(Duration::from_millis(CATCH_UP_POLL_MS)).await;
        (behind, _) = lag(passbook).await?;
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
            _ = ticks.tick(), if has_started => samples.record_us((lag(passbook).await?.1 * 1e6) as u64),
        }
    }
}

/// Resets every view and measures how fast the projections read the whole log.
pub async fn rebuild(passbook: &Passbook, postgres: &Postgres) -> Result<CatchUp> {
    let events = passbook.head().await?;
    postgres.execute(EMPTY_VIEWS).await?;
    let started = Instant::now();
    catch_up(passbook).await?;
    let seconds = started.elapsed().as_secs_f64();
    Ok(CatchUp { events, seconds, per_second: events as f64 / seconds })
}

/// The greatest lag of any projection, in events and in seconds.
async fn lag(passbook: &Passbook) -> Result<(u64, f64)> {
    let projections = passbook.projections().await?;
    ensure!(!projections.is_empty(), "GET /v1/projections returned no projection");
    let events = projections.iter().map(|projection| projection.lag_events).max();
    let seconds = projections.iter().filter_map(|projection| projection.lag_seconds);
    Ok((events.unwrap_or(0), seconds.fold(0.0, f64::max)))
}
