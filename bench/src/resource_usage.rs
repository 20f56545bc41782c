//! Processor time and memory of a service and its Postgres, read from `/proc`; `None` on systems other than Linux.
//!
//! Every descendant of the service counts as Postgres. The time of a backend that has exited is included, because the
//! kernel adds it to the postmaster, which waited for it.

use std::collections::HashMap;
use std::fs;

use serde::Serialize;

/// One tick of processor time in `/proc`: 1/100 s on every Linux.
const TICK_US: u64 = 10_000;

/// The processor time used so far, user and system.
#[derive(Clone, Copy)]
pub struct CpuTime {
    service_us: u64,
    postgres_us: u64,
}

/// The processor time per command, user and system, including the projections' work.
#[derive(Clone, Debug, Serialize)]
pub struct CpuPerCommand {
    pub service_us: f64,
    pub postgres_us: f64,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Memory {
    pub rss_kib: u64,
    pub high_water_kib: u64,
}

#[derive(Debug, PartialEq)]
struct Stat {
    parent: u32,
    own_ticks: u64,
    reaped_ticks: u64,
}

/// The processor time of the process `service`, and of the Postgres that the process `passbook` runs.
pub fn cpu_time(service: u32, passbook: u32) -> Option<CpuTime> {
    let all: HashMap<u32, Stat> = fs::read_dir("/proc")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?)))
        .collect();
    let ticks = |stat: &Stat| stat.own_ticks + stat.reaped_ticks;
    let below: u64 = all.iter().filter(|(pid, _)| is_below(**pid, passbook, &all)).map(|(_, s)| ticks(s)).sum();
    Some(CpuTime { service_us: all.get(&service)?.own_ticks * TICK_US, postgres_us: below * TICK_US })
}

/// The current and the greatest resident memory of a process.
pub fn memory(service: u32) -> Option<Memory> {
    let status = fs::read_to_string(format!("/proc/{service}/status")).ok()?;
    Some(Memory { rss_kib: kib(&status, "VmRSS:")?, high_water_kib: kib(&status, "VmHWM:")? })
}

/// Sets the greatest resident memory of a process to the current one. Best effort: without it the maximum since the start counts.
pub fn reset_high_water(service: u32) {
    let _ = fs::write(format!("/proc/{service}/clear_refs"), "5");
}

impl CpuPerCommand {
    /// The difference between two readings, per command.
    pub fn between(before: Option<CpuTime>, after: Option<CpuTime>, commands: u64) -> Option<Self> {
        let (before, after) = (before?, after?);
        let each = |from: u64, to: u64| to.saturating_sub(from) as f64 / commands.max(1) as f64;
        Some(Self {
            service_us: each(before.service_us, after.service_us),
            postgres_us: each(before.postgres_us, after.postgres_us),
        })
    }

    pub fn cell(&self) -> String {
        format!("{:.0} / {:.0}", self.service_us, self.postgres_us)
    }
}

fn is_below(pid: u32, ancestor: u32, all: &HashMap<u32, Stat>) -> bool {
    let parents = std::iter::successors(all.get(&pid), |stat| all.get(&stat.parent));
    parents.take(all.len()).any(|stat| stat.parent == ancestor)
}

/// Parses `/proc/<pid>/stat` (proc(5)). The process name is in parentheses and may contain any character.
fn stat(line: &str) -> Option<Stat> {
    let fields: Vec<&str> = line.get(line.rfind(')')? + 1..)?.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        own_ticks: number(11)? + number(12)?,
        reaped_ticks: number(13)? + number(14)?,
    })
}

fn kib(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{Stat, kib, stat};

    #[test]
    fn a_stat_line_is_parsed_after_a_name_with_parentheses_and_blanks() {
        let line = "42 (a b) c) S 7 42 42 0 -1 4194560 1 2 3 4 100 20 30 5 20 0 1 0 99 1 2";
        let expected = Stat { parent: 7, own_ticks: 120, reaped_ticks: 35 };
        assert_eq!(stat(line), Some(expected));
        assert_eq!(stat("42 (short) S 7"), None);
    }

    #[test]
    fn memory_is_parsed_by_its_label() {
        let status = "Name:\tpassbook\nVmHWM:\t   2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(kib(status, "VmRSS:"), Some(1024));
        assert_eq!(kib(status, "VmHWM:"), Some(2048));
        assert_eq!(kib(status, "VmSwap:"), None);
    }
}
