//! The server settings that Passbook recommends for a machine. The embedded server starts with them; `passbook doctor` compares the
//! settings of any server with them. `docs/decisions/0022-server-settings.md` has the figures behind them.

use std::fmt;

use super::machine::Machine;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The share of the memory for `shared_buffers`: one in this number of bytes. The rest is for the page cache and the service.
const SHARED_BUFFERS_SHARE: u64 = 4;
const SHARED_BUFFERS_MIN: u64 = 128 * MIB;
const SHARED_BUFFERS_MAX: u64 = 8 * GIB;
/// If the memory is unknown.
const SHARED_BUFFERS_DEFAULT: u64 = 256 * MIB;
/// The share of the free disk for `max_wal_size`: one in this number of bytes.
const WAL_SHARE: u64 = 8;
const WAL_MIN: u64 = 256 * MIB;
/// A crash under full load is recovered within about 10 s, most of it redo at 120 to 170 MB/s.
const WAL_MAX: u64 = GIB;
/// The seconds between two checkpoints while little is written.
const CHECKPOINT_S: u64 = 15 * 60;

/// The value of a setting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A size in bytes.
    Bytes(u64),
    /// A duration in seconds.
    Seconds(u64),
    /// A number without unit.
    Number(f64),
    /// A word, such as `on`.
    Word(&'static str),
}

impl fmt::Display for Value {
    /// As `postgresql.conf` accepts it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Bytes(bytes) if bytes % GIB == 0 && bytes > 0 => write!(f, "{}GB", bytes / GIB),
            Self::Bytes(bytes) if bytes % MIB == 0 => write!(f, "{}MB", bytes / MIB),
            Self::Bytes(bytes) => write!(f, "{}kB", bytes >> 10),
            Self::Seconds(seconds) if seconds % 60 == 0 && seconds > 0 => write!(f, "{}min", seconds / 60),
            Self::Seconds(seconds) => write!(f, "{seconds}s"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Word(word) => f.write_str(word),
        }
    }
}

/// A setting with the recommended value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recommendation {
    /// The name of the setting.
    pub name: &'static str,
    /// The recommended value.
    pub value: Value,
    /// Whether larger values are as good, because the memory or the disk is unknown.
    pub is_minimum: bool,
    /// The reason, in one sentence.
    pub why: &'static str,
}

/// The settings for a server on this machine. `has_lz4`: the server's build can compress with LZ4.
pub fn recommended(machine: &Machine, has_lz4: bool) -> Vec<Recommendation> {
    let max_wal_size = max_wal_size(machine.disk);
    let setting = |name, value, why| Recommendation { name, value, is_minimum: false, why };
    let (memory, disk) = (machine.memory, machine.disk);
    vec![
        Recommendation {
            name: "shared_buffers",
            value: Value::Bytes(shared_buffers(memory)),
            is_minimum: memory.is_none(),
            why: "A quarter of the memory holds the index pages that commands of random accounts touch.",
        },
        Recommendation {
            name: "max_wal_size",
            value: Value::Bytes(max_wal_size),
            is_minimum: disk.is_none(),
            why: "Recovery after a crash replays up to this much, at 120 to 170 MB/s. More means fewer checkpoints.",
        },
        Recommendation {
            name: "min_wal_size",
            value: Value::Bytes(max_wal_size),
            is_minimum: disk.is_none(),
            why: "Segments that are kept are renamed. New ones are written full of zeros while commits wait.",
        },
        setting(
            "checkpoint_timeout",
            Value::Seconds(CHECKPOINT_S),
            "After a checkpoint the first change of each page writes the whole page to the WAL.",
        ),
        setting(
            "checkpoint_completion_target",
            Value::Number(0.9),
            "A checkpoint writes its pages slowly, so that commits do not wait for the disk.",
        ),
        setting(
            "wal_compression",
            Value::Word(if has_lz4 { "lz4" } else { "pglz" }),
            "Whole pages in the WAL are compressed; LZ4 needs a fraction of the time of pglz.",
        ),
    ]
}

fn shared_buffers(memory: Option<u64>) -> u64 {
    let share = memory.map_or(SHARED_BUFFERS_DEFAULT, |bytes| bytes / SHARED_BUFFERS_SHARE);
    whole_mib(share.clamp(SHARED_BUFFERS_MIN, SHARED_BUFFERS_MAX))
}

fn max_wal_size(disk: Option<u64>) -> u64 {
    whole_mib(disk.map_or(WAL_MAX, |bytes| bytes / WAL_SHARE).clamp(WAL_MIN, WAL_MAX))
}

fn whole_mib(bytes: u64) -> u64 {
    bytes / MIB * MIB
}

/// The settings that the operator has changed with `ALTER SYSTEM`, by the text of `postgresql.auto.conf`. Postgres writes one
/// setting a line: `name = 'value'`.
pub fn altered(auto_conf: &str) -> Vec<&str> {
    let lines = auto_conf.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| Some(line.split_once('=')?.0.trim())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value_of(name: &str, machine: Machine, has_lz4: bool) -> String {
        let found = recommended(&machine, has_lz4).into_iter().find(|setting| setting.name == name);
        found.map(|setting| setting.value.to_string()).unwrap_or_default()
    }

    #[test]
    fn shared_buffers_are_a_quarter_of_the_memory_within_bounds() {
        let with_memory = |memory| value_of("shared_buffers", Machine { memory, disk: None }, true);
        assert_eq!(with_memory(Some(24 * GIB)), "6GB");
        assert_eq!(with_memory(Some(24_684_084 << 10)), "6026MB");
        assert_eq!(with_memory(Some(512 * MIB)), "128MB");
        assert_eq!(with_memory(Some(100 * MIB)), "128MB");
        assert_eq!(with_memory(Some(256 * GIB)), "8GB");
        assert_eq!(with_memory(None), "256MB");
    }

    #[test]
    fn the_log_takes_an_eighth_of_the_free_disk_within_bounds() {
        let with_disk = |name, disk| value_of(name, Machine { memory: None, disk }, true);
        assert_eq!(with_disk("max_wal_size", Some(1 << 40)), "1GB");
        assert_eq!(with_disk("max_wal_size", Some(4 * GIB)), "512MB");
        assert_eq!(with_disk("min_wal_size", Some(4 * GIB)), "512MB");
        assert_eq!(with_disk("max_wal_size", Some(0)), "256MB");
        assert_eq!(with_disk("max_wal_size", None), "1GB");
    }

    #[test]
    fn pages_are_compressed_with_pglz_by_a_build_without_lz4() {
        assert_eq!(value_of("wal_compression", Machine::default(), true), "lz4");
        assert_eq!(value_of("wal_compression", Machine::default(), false), "pglz");
    }

    #[test]
    fn values_are_written_as_postgres_reads_them() {
        let texts = [Value::Bytes(3 << 29), Value::Bytes(8 << 10), Value::Seconds(90), Value::Number(0.9)];
        assert_eq!(texts.map(|value| value.to_string()), ["1536MB", "8kB", "90s", "0.9"]);
    }

    #[test]
    fn altered_settings_are_read_from_the_file_of_alter_system() {
        let file = "# Do not edit this file manually!\n# It will be overwritten by the ALTER SYSTEM command.\n\
                    shared_buffers = '1GB'\nmax_wal_size = '2GB'\n";
        assert_eq!(altered(file), ["shared_buffers", "max_wal_size"]);
        assert_eq!(altered(""), [""; 0]);
    }
}
