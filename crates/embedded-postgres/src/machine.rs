//! The memory and the disk that a Postgres server can use. The memory is that of the machine or of the control group, whichever is
//! smaller, because a container sees the memory of the whole machine.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;

const CGROUPS: &str = "/sys/fs/cgroup";

/// What a server can use. A value that cannot be read is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// The memory, in bytes.
    pub memory: Option<u64>,
    /// The free space of the disk with the write-ahead log, in bytes. It includes the space that the log occupies already.
    pub disk: Option<u64>,
}

impl Machine {
    /// The memory of the process with this id, and the disk of this data directory of Postgres.
    pub fn of(pid: u32, pgdata: &Path) -> Self {
        let wal = pgdata.join("pg_wal");
        let found = if wal.is_dir() { &wal } else { pgdata };
        let disk = free_disk(found).map(|free| free.saturating_add(size_of_files(&wal)));
        Self { disk, ..Self::without_disk(pid) }
    }

    /// The memory of the process with this id, if the data directory is not known.
    pub fn without_disk(pid: u32) -> Self {
        Self { memory: memory(pid), disk: None }
    }
}

/// The free space of the disk with this folder, in bytes.
pub fn free_disk(folder: &Path) -> Option<u64> {
    let found = statvfs(folder).ok()?;
    #[allow(clippy::useless_conversion, reason = "the types differ between operating systems")]
    Some(u64::from(found.blocks_available()).saturating_mul(found.fragment_size().into()))
}

fn size_of_files(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).filter(|file| file.is_file()).map(|file| file.len()).sum()
}

fn memory(pid: u32) -> Option<u64> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let limits = limit_files(&groups).into_iter().filter_map(|file| parse_limit(&fs::read_to_string(file).ok()?));
    limits.chain(physical_memory()).min()
}

#[cfg(target_os = "linux")]
fn physical_memory() -> Option<u64> {
    use nix::unistd::{SysconfVar, sysconf};

    let value = |variable| sysconf(variable).ok().flatten()?.try_into().ok();
    u64::checked_mul(value(SysconfVar::_PHYS_PAGES)?, value(SysconfVar::PAGE_SIZE)?)
}

/// Asks `sysctl`, which macOS and the BSDs have.
#[cfg(not(target_os = "linux"))]
fn physical_memory() -> Option<u64> {
    let output = super::program::command("sysctl").args(["-n", "hw.memsize"]).output().ok()?;
    parse_limit(&String::from_utf8_lossy(&output.stdout))
}

/// The files that may hold a memory limit of a process with this `/proc/<pid>/cgroup`: those of its control group and of each parent,
/// of version 2 (`0::/…`) and version 1 (`<n>:memory:/…`). Within a container the path may not exist, but the root then is the
/// container's own group.
fn limit_files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { continue };
        let (root, file) = match controllers {
            "" => (PathBuf::from(CGROUPS), "memory.max"),
            listed if listed.split(',').any(|controller| controller == "memory") => {
                (Path::new(CGROUPS).join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let group = Path::new(group.trim_start_matches('/'));
        files.extend(group.ancestors().map(|group| root.join(group).join(file)));
    }
    files
}

/// Parses a number of bytes. `max` means no limit.
fn parse_limit(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(groups: &str) -> Vec<String> {
        limit_files(groups).into_iter().map(|file| file.display().to_string()).collect()
    }

    #[test]
    fn limits_of_a_version_2_group_and_its_parents_count() {
        assert_eq!(
            files("0::/system.slice/passbook.service\n"),
            [
                "/sys/fs/cgroup/system.slice/passbook.service/memory.max",
                "/sys/fs/cgroup/system.slice/memory.max",
                "/sys/fs/cgroup/memory.max",
            ]
        );
        assert_eq!(files("0::/\n"), ["/sys/fs/cgroup/memory.max"]);
    }

    #[test]
    fn limits_of_a_version_1_memory_group_count_and_of_others_not() {
        let groups = "9:name=systemd:/\n8:pids:/\n4:cpu,memory:/docker/ab\n3:cpuset:/\n";
        assert_eq!(
            files(groups),
            [
                "/sys/fs/cgroup/memory/docker/ab/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/docker/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            ]
        );
        assert_eq!(files("not a group\n"), [""; 0]);
    }

    #[test]
    fn a_limit_is_a_number_and_max_is_none() {
        assert_eq!(parse_limit("536870912\n"), Some(536_870_912));
        assert_eq!(parse_limit("max\n"), None);
    }

    #[test]
    fn this_machine_has_memory_and_disk() {
        let found = Machine::of(std::process::id(), Path::new("/tmp"));
        assert!(found.memory.is_some_and(|bytes| bytes > 1 << 26), "{found:?}");
        assert!(found.disk.is_some(), "{found:?}");
    }
}
