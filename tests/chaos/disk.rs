//! A small disk of its own for a bank: memory mounted as a file system, which can be filled up and freed again.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::unistd::{getgid, getuid};

const SIZE_MIB: u64 = 256;
const CHUNK_BYTES: usize = 1 << 20;
const UNMOUNT_S_MAX: u64 = 30;

/// Unmounted in the end.
pub struct Disk {
    mounted_at: PathBuf,
}

/// A disk without room until this is dropped.
pub struct Full(PathBuf);

impl Disk {
    pub fn mount(at: PathBuf) -> Self {
        fs::create_dir(&at).unwrap();
        let (uid, gid) = (getuid(), getgid());
        let options = format!("size={SIZE_MIB}m,mode=0755,uid={uid},gid={gid}");
        let mounted = as_root(&["mount", "-t", "tmpfs", "-o", &options, "tmpfs"], &at);
        assert!(
            mounted.status.success(),
            "a full disk is tried out on a small one that is mounted for it, and that needs root: run this as root, or \
             allow sudo without a password ({})",
            String::from_utf8_lossy(&mounted.stderr).trim()
        );
        Self { mounted_at: at }
    }

    pub fn path(&self) -> &Path {
        &self.mounted_at
    }

    /// Takes all room that is left.
    pub fn fill(&self) -> Full {
        let full = Full(self.mounted_at.join("filler"));
        let mut filler = File::create(&full.0).unwrap();
        let mut chunk = vec![1; CHUNK_BYTES];
        // Down to the last page: Postgres writes in pages, too.
        while chunk.len() >= 4096 {
            match filler.write_all(&chunk) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => chunk.truncate(chunk.len() / 2),
                Err(error) => panic!("the disk could not be filled: {error}"),
            }
        }
        full
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        // If the disk is gone, so is the file.
        let _ = fs::remove_file(&self.0);
    }
}

impl Drop for Disk {
    /// Whoever works on it may take a moment to end.
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(UNMOUNT_S_MAX);
        while !as_root(&["umount"], &self.mounted_at).status.success() {
            if Instant::now() > deadline {
                // It goes with the last process on it.
                as_root(&["umount", "--lazy"], &self.mounted_at);
                return;
            }
            sleep(Duration::from_millis(200));
        }
    }
}

/// Removes what a run before did not live to remove: disks and folders below /tmp that begin with `prefix` and that
/// nobody works in.
pub fn remove_abandoned(prefix: &str) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for entry in fs::read_dir("/tmp").unwrap().flatten() {
        let folder = entry.path();
        let is_ours = entry.file_name().to_string_lossy().starts_with(prefix)
            && entry.metadata().is_ok_and(|found| found.uid() == getuid().as_raw());
        if !is_ours || is_in_use(&folder) {
            continue;
        }
        let below = folder.display().to_string();
        for mounted in mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|at| at.starts_with(&below)) {
            as_root(&["umount"], Path::new(mounted));
        }
        // Another run may be removing it as well.
        let _ = fs::remove_dir_all(&folder);
    }
}

/// A run leaves its process id in its folder.
fn is_in_use(folder: &Path) -> bool {
    let pid = fs::read_to_string(folder.join("pid")).unwrap_or_default();
    pid.is_empty() || Path::new("/proc").join(pid.trim()).exists()
}

fn as_root(command: &[&str], path: &Path) -> Output {
    let sudo: &[&str] = if getuid().is_root() { &[] } else { &["sudo", "-n"] };
    let words: Vec<&str> = sudo.iter().chain(command).copied().collect();
    Command::new(words[0]).args(&words[1..]).arg(path).output().unwrap_or_else(|error| panic!("{words:?}: {error}"))
}
