//! The configuration of an app under test, and its number of partitions.

use std::{env, sync::LazyLock};

use clap::{Args, Command, FromArgMatches, builder::Resettable};
use passbook::config::Config;
use passbook_event_store::Partitions;

/// Parses the flags like the command line does, but ignores environment variables.
pub fn config(database_url: &str, flags: &[&str]) -> Config {
    let command = Config::augment_args(Command::new("passbook").no_binary_name(true));
    let command = command.mut_args(|argument| argument.env(Resettable::Reset));
    let fixed = ["--listen", "127.0.0.1:0", "--database-url", database_url];
    let matches = command.try_get_matches_from(fixed.iter().chain(flags)).unwrap();
    Config::from_arg_matches(&matches).unwrap()
}

/// The number of partitions of new logs in this run: `PASSBOOK_TEST_PARTITIONS`, by default one.
pub fn partitions() -> Partitions {
    let count = env::var("PASSBOOK_TEST_PARTITIONS").map_or(1, |count| count.parse().unwrap());
    Partitions::new(count).unwrap()
}

/// Adds the run's number of partitions unless the test sets one.
pub(crate) fn with_partitions<'a>(flags: &[&'a str]) -> Vec<&'a str> {
    static FLAG: LazyLock<String> = LazyLock::new(|| format!("--partitions={}", partitions().count()));
    let added = (!flags.iter().any(|flag| flag.starts_with("--partitions="))).then_some(FLAG.as_str());
    flags.iter().copied().chain(added).collect()
}

/// The number of partitions that a configuration names; by default one.
pub(crate) fn partitions_of(config: &Config) -> Partitions {
    config.partitions.get().unwrap_or(Partitions::ONE)
}
