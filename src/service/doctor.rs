//! `passbook doctor`: what the database reports about itself, and how far its clock differs from that of this machine.

use crate::config::ClockArgs;
use passbook_bank::clock_skew;
use passbook_database::{
    self as database, Database,
    doctor::{Finding, Report, Verdict},
};

/// Examines the database without changing it.
///
/// # Errors
/// The database cannot be reached or read.
pub async fn examine(database: &Database, clock: ClockArgs) -> Result<Report, database::Error> {
    let mut report = database.examine().await?;
    let skew_ms = clock_skew(&database.writer()).await.ok().map(|skew| skew.num_milliseconds());
    report.push(clock_finding(skew_ms, clock.clock_skew_ms_max.get().into()));
    Ok(report)
}

fn clock_finding(skew_ms: Option<i64>, skew_ms_max: i64) -> Finding {
    let verdict = match skew_ms {
        None => Verdict::Unknown,
        Some(skew_ms) if skew_ms.abs() > skew_ms_max => Verdict::Remark,
        Some(_) => Verdict::Good,
    };
    Finding {
        name: "clock",
        value: skew_ms.map_or_else(|| "unknown".to_owned(), |skew_ms| format!("{skew_ms} ms ahead of the database")),
        recommended: format!("at most {skew_ms_max} ms off"),
        verdict,
        why: "Commands are refused beyond PASSBOOK_CLOCK_SKEW_MS_MAX. Set the clocks (NTP).".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_beyond_the_limit_in_either_direction_is_a_remark() {
        let verdict = |skew_ms| clock_finding(skew_ms, 5_000).verdict;
        assert_eq!([Some(5_000), Some(-5_000)].map(verdict), [Verdict::Good; 2]);
        assert_eq!([Some(5_001), Some(-5_001)].map(verdict), [Verdict::Remark; 2]);
        assert_eq!(verdict(None), Verdict::Unknown);
    }
}
