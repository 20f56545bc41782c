//! Rebuilds projections through the API while the service runs, and measures the speed, processor time and memory.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::client::{Passbook, Projection, ProjectionState};
use crate::projection_watch::ProjectionWatch;
use crate::projections::catch_up;
use crate::resource_usage::{CpuPerCommand, cpu_time, memory, reset_high_water};
use crate::service::Service;
use crate::table::{grouped, rate};

/// The name of the rebuild of all projections at once.
pub const ALL: &str = "all";
const POLL_MS: u64 = 20;

/// The speed of a rebuild, from the request until the new generation is live.
#[derive(Clone, Debug, Serialize)]
pub struct Rebuild {
    /// The name of the projection, or `all`.
    pub projection: String,
    pub events: u64,
    pub seconds: f64,
    pub per_second: f64,
    /// The processor time for each event.
    pub cpu: Option<CpuPerCommand>,
    /// The service's greatest resident memory during the rebuild.
    pub high_water_kib: Option<u64>,
}

/// Rebuilds every projection by itself, and then all of them at once.
pub async fn measure_each_and_all(passbook: &Passbook, service: &Service) -> Result<Vec<Rebuild>> {
    let names = projection_names(passbook).await?;
    let mut rebuilds = Vec::new();
    for name in &names {
        rebuilds.push(measure(passbook, service, name, std::slice::from_ref(name)).await?);
    }
    rebuilds.push(measure(passbook, service, ALL, &names).await?);
    Ok(rebuilds)
}

/// Rebuilds all projections at once.
pub async fn measure_all(passbook: &Passbook, service: &Service) -> Result<Rebuild> {
    let names = projection_names(passbook).await?;
    measure(passbook, service, ALL, &names).await
}

async fn projection_names(passbook: &Passbook) -> Result<Vec<String>> {
    let mut names: Vec<String> = passbook.projections().await?.into_iter().map(|projection| projection.name).collect();
    names.sort();
    names.dedup();
    ensure!(!names.is_empty(), "GET /v1/projections returned no projection");
    Ok(names)
}

async fn measure(passbook: &Passbook, service: &Service, shown: &str, names: &[String]) -> Result<Rebuild> {
    catch_up(passbook).await?;
    eprintln!("rebuilding {shown}");
    let pid = service.server.pid;
    let events = passbook.head().await?;
    reset_high_water(pid);
    let (before, started) = (cpu_time(pid, pid), Instant::now());
    let mut building = Vec::new();
    for name in names {
        building.push((name.clone(), passbook.rebuild(name).await?));
    }
    wait_until(passbook, |projections| building.iter().all(|generation| is_live(projections, generation))).await?;
    let seconds = started.elapsed().as_secs_f64();
    let rebuild = Rebuild {
        projection: shown.to_owned(),
        events,
        seconds,
        per_second: events as f64 / seconds,
        cpu: CpuPerCommand::between(before, cpu_time(pid, pid), events),
        high_water_kib: memory(pid).map(|memory| memory.high_water_kib),
    };
    // The deletion of the replaced rows must not affect the next measurement.
    wait_until(passbook, |projections| {
        projections.iter().all(|projection| projection.state != ProjectionState::Retired)
    })
    .await?;
    Ok(rebuild)
}

/// Polls until the projections meet a condition. Fails if one of them stops.
async fn wait_until(passbook: &Passbook, condition: impl Fn(&[Projection]) -> bool) -> Result<()> {
    let mut watch = ProjectionWatch::default();
    loop {
        let projections = passbook.projections().await?;
        if condition(&projections) {
            return Ok(());
        }
        watch.check(&projections, Instant::now())?;
        tokio::time::sleep(Duration::from_millis(POLL_MS)).await;
    }
}

fn is_live(projections: &[Projection], (name, generation): &(String, i16)) -> bool {
    let is_this = |projection: &&Projection| projection.name == *name && projection.generation == *generation;
    projections.iter().find(is_this).is_some_and(|projection| projection.state == ProjectionState::Live)
}

impl Rebuild {
    /// `1 127 130 events in 20.7 s, 54 525 per second`
    pub fn line(&self) -> String {
        format!("{} events in {:.1} s, {} per second", grouped(self.events), self.seconds, rate(self.per_second))
    }
}

#[cfg(test)]
pub mod tests {
    use super::{ALL, Rebuild, is_live};
    use crate::client::{Projection, ProjectionState};

    pub fn rebuild(events: u64, per_second: f64) -> Rebuild {
        Rebuild {
            projection: ALL.to_owned(),
            events,
            seconds: events as f64 / per_second,
            per_second,
            cpu: None,
            high_water_kib: None,
        }
    }

    #[test]
    fn a_rebuild_is_over_when_its_own_generation_is_live() {
        let generation = |generation, state| Projection {
            name: "accounts".to_owned(),
            generation,
            state,
            failure: None,
            position: "1".to_owned(),
            lag_events: 0,
            lag_seconds: None,
        };
        let wanted = ("accounts".to_owned(), 2);
        let [old, new] = [ProjectionState::Live, ProjectionState::Building];
        assert!(!is_live(&[generation(1, old), generation(2, new)], &wanted));
        assert!(is_live(&[generation(1, ProjectionState::Retired), generation(2, ProjectionState::Live)], &wanted));
    }
}
