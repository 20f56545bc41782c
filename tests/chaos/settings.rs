//! How much of it, as the environment says.

use std::{env, str::FromStr, time::Duration};

use uuid::Uuid;

/// All names begin with `PASSBOOK_CHAOS_`.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// `SEED`: which commands and which faults; none: another one each time.
    pub seed: u64,
    /// `ROUNDS`: how often everything happens.
    pub rounds: u64,
    /// `TIMES`: how often each kind of fault happens in a round.
    pub times: u64,
    /// `LANES`: how many faults happen at once.
    pub lanes: u64,
    /// `FREEZE_MS`: how long something stands still.
    pub freeze: Duration,
}

impl Settings {
    pub fn read() -> Self {
        Self {
            seed: read("SEED").unwrap_or_else(|| Uuid::now_v7().as_u64_pair().1 % 1_000_000),
            rounds: read("ROUNDS").unwrap_or(1),
            times: read("TIMES").unwrap_or(1),
            lanes: read("LANES").unwrap_or(1),
            freeze: Duration::from_millis(read("FREEZE_MS").unwrap_or(2_800)),
        }
    }
}

fn read<T: FromStr>(name: &str) -> Option<T> {
    let name = format!("PASSBOOK_CHAOS_{name}");
    let text = env::var(&name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text}, which is no number")))
}
