//! How much of it, as the environment says.

use std::{env, path::PathBuf, str::FromStr, time::Duration};

use uuid::Uuid;

use crate::fault::Fault;

/// All names begin with `PASSBOOK_CHAOS_`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `SEED`: which commands and which faults; none: another one each time.
    pub seed: u64,
    /// `ROUNDS`: how often everything happens.
    pub rounds: u64,
    /// `FAULTS`: only these kinds, by their names with commas between; none: all.
    pub faults: Option<String>,
    /// `TIMES`: how often each kind of fault happens in a round.
    pub times: u64,
    /// `LANES`: how many faults happen at once.
    pub lanes: u64,
    /// `FREEZE_MS`: how long something stands still.
    pub freeze: Duration,
    /// `PARTITIONS`: into how many the log is divided.
    pub partitions: i16,
    /// `PREVIOUS`: the binary of the release that is upgraded from; none: this one.
    pub previous: Option<PathBuf>,
}

impl Settings {
    pub fn read() -> Self {
        Self {
            seed: read("SEED").unwrap_or_else(|| Uuid::now_v7().as_u64_pair().1 % 1_000_000),
            rounds: read("ROUNDS").unwrap_or(1),
            faults: read("FAULTS"),
            times: read("TIMES").unwrap_or(1),
            lanes: read("LANES").unwrap_or(1),
            freeze: Duration::from_millis(read("FREEZE_MS").unwrap_or(2_800)),
            partitions: read("PARTITIONS").unwrap_or(1),
            previous: read("PREVIOUS"),
        }
    }

    pub fn asks_for(&self, fault: Fault) -> bool {
        self.faults.as_ref().is_none_or(|faults| faults.split(',').any(|name| name == format!("{fault:?}")))
    }
}

fn read<T: FromStr>(name: &str) -> Option<T> {
    let name = format!("PASSBOOK_CHAOS_{name}");
    let text = env::var(&name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text}, which makes no sense")))
}
