//! Filling the log through the API, up to a position.

use anyhow::{Result, ensure};

use crate::projections::catch_up;
use crate::rig::Rig;
use crate::service::Service;
use crate::table::grouped;

const CONNECTIONS: u32 = 256;
/// As long as one load may last before the position is looked at again.
const SECONDS_MAX: u32 = 20;

/// Loads the service with a script until the log is `until` events long, or somewhat longer.
pub async fn fill(rig: &Rig, service: &mut Service, script: &str, accounts: u32, until: u64) -> Result<()> {
    let mut head = rig.passbook.head().await?;
    let mut seconds = 1;
    while head < until {
        eprintln!("filling with {script}: {} of {} events", grouped(head), grouped(until));
        service.server.check_alive()?;
        let load = rig.wrk.run(script, accounts, CONNECTIONS, seconds, &service.server.url).await?;
        ensure!(load.refused + load.broken == 0, "{} refused, {} broken", load.refused, load.broken);
        ensure!(load.requests > 0, "nothing was answered in {seconds} s");
        head = rig.passbook.head().await?;
        seconds = seconds_for(until.saturating_sub(head), load.per_second);
    }
    // Else the lag would be carried over into what is measured next.
    catch_up(&rig.passbook).await?;
    Ok(())
}

/// How long the next load lasts so that it does not go far beyond what is missing.
fn seconds_for(missing: u64, per_second: f64) -> u32 {
    ((missing as f64 / per_second) as u32).clamp(1, SECONDS_MAX)
}

#[cfg(test)]
mod tests {
    use super::seconds_for;

    #[test]
    fn a_load_lasts_no_longer_than_what_is_missing_needs() {
        assert_eq!(seconds_for(5_000, 20_000.0), 1);
        assert_eq!(seconds_for(100_000, 20_000.0), 5);
        assert_eq!(seconds_for(10_000_000, 20_000.0), 20);
    }
}
