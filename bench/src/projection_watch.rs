//! Notices a projection that no longer reads the log, so that a benchmark fails instead of waiting for ever.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::client::{Projection, ProjectionState};

/// How long a projection with a failure may stay at one position. It repeats its batch meanwhile, within longer and longer limits.
const FAILURE_S_MAX: u64 = 120;
/// How long a projection without a failure may stay at one position of a longer log.
const STALL_S_MAX: u64 = 300;
/// How long the check of a rebuilt generation may take.
const CHECK_S_MAX: u64 = 3_600;

/// The position of each generation, and since when it has been there.
#[derive(Default)]
pub struct ProjectionWatch(HashMap<(String, i16), (String, Instant)>);

impl ProjectionWatch {
    /// Fails if a generation has failed, or has stayed at its position for too long.
    pub fn check(&mut self, projections: &[Projection], now: Instant) -> Result<()> {
        for projection in projections {
            match projection.state {
                ProjectionState::Retired => continue,
                ProjectionState::Failed => bail!(
                    "generation {} of the projection {} failed its check: {}",
                    projection.generation,
                    projection.name,
                    projection.failure.as_deref().unwrap_or("no reason is known")
                ),
                ProjectionState::Building | ProjectionState::Live | ProjectionState::Stopped => {}
            }
            let still = self.still_at(projection, now);
            if let Some(reason) = reason_to_stop(projection, still) {
                bail!(
                    "generation {} of the projection {} stopped at position {}, {} events behind the log: {reason}",
                    projection.generation,
                    projection.name,
                    projection.position,
                    projection.lag_events
                );
            }
        }
        Ok(())
    }

    /// How long the generation has been at its position.
    fn still_at(&mut self, projection: &Projection, now: Instant) -> Duration {
        let key = (projection.name.clone(), projection.generation);
        let (position, since) = self.0.entry(key).or_insert_with(|| (projection.position.clone(), now));
        if *position != projection.position {
            (*position, *since) = (projection.position.clone(), now);
        }
        now.duration_since(*since)
    }
}

/// Why a generation that has been at its position for this time counts as stopped; `None` if it does not.
fn reason_to_stop(projection: &Projection, still: Duration) -> Option<String> {
    let is_building = projection.state == ProjectionState::Building;
    let (limit, reason) = match &projection.failure {
        Some(failure) => (FAILURE_S_MAX, failure.clone()),
        None if projection.lag_events > 0 => (STALL_S_MAX, format!("it did not move for {STALL_S_MAX} s")),
        None if is_building => (CHECK_S_MAX, format!("its check did not end within {CHECK_S_MAX} s")),
        None => return None,
    };
    (still > Duration::from_secs(limit)).then_some(reason)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::ProjectionWatch;
    use crate::client::{Projection, ProjectionState};

    fn projection(state: ProjectionState, position: u64, failure: Option<&str>) -> Projection {
        Projection {
            name: "accounts".to_owned(),
            generation: 2,
            state,
            failure: failure.map(str::to_owned),
            position: position.to_string(),
            lag_events: 100 - position,
            lag_seconds: None,
        }
    }

    /// The message of the first failed check, if the projection is observed at these seconds.
    fn failure(observed: &[(u64, Projection)]) -> Option<String> {
        let (mut watch, start) = (ProjectionWatch::default(), Instant::now());
        let check = |(second, projection): &(u64, Projection)| {
            watch.check(std::slice::from_ref(projection), start + Duration::from_secs(*second)).err()
        };
        observed.iter().find_map(check).map(|error| error.to_string())
    }

    #[test]
    fn a_projection_that_cannot_apply_an_event_fails_with_its_reason() {
        let stopped = || projection(ProjectionState::Stopped, 7, Some("an amount is negative"));
        assert_eq!(failure(&[(0, stopped()), (120, stopped())]), None);
        let message = failure(&[(0, stopped()), (121, stopped())]).expect("a failure");
        assert_eq!(
            message,
            "generation 2 of the projection accounts stopped at position 7, 93 events behind the log: an amount is negative"
        );
    }

    #[test]
    fn a_projection_that_moves_never_counts_as_stopped() {
        let live = |position| projection(ProjectionState::Live, position, None);
        assert_eq!(failure(&[(0, live(7)), (300, live(8)), (600, live(9)), (900, live(10))]), None);
        assert!(failure(&[(0, live(7)), (301, live(7))]).is_some_and(|message| message.contains("did not move")));
        assert_eq!(failure(&[(0, live(100)), (10_000, live(100))]), None);
    }

    #[test]
    fn a_rebuilt_generation_that_fails_its_check_ends_the_wait() {
        let failed = projection(ProjectionState::Failed, 100, Some("2 rows differ"));
        assert!(failure(&[(0, failed)]).is_some_and(|message| message.ends_with("failed its check: 2 rows differ")));
        let building = || projection(ProjectionState::Building, 100, None);
        assert_eq!(failure(&[(0, building()), (3_600, building())]), None);
        assert!(failure(&[(0, building()), (3_601, building())]).is_some());
    }

    #[test]
    fn a_retired_generation_is_ignored() {
        let retired = || projection(ProjectionState::Retired, 7, None);
        assert_eq!(failure(&[(0, retired()), (10_000, retired())]), None);
    }
}
