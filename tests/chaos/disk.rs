//! A small tmpfs for one instance's data. A test can fill it up and free it again.

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
use passbook_testkit::folder::temporary_root;

const SIZE_MIB: u64 = 256;
const CHUNK_BYTES: usize = 1 << 20;
const UNMOUNT_S_MAX: u64 = 30;

/// A mounted tmpfs. Unmounted on drop.
pub struct Disk {
    mounted_at: PathBuf,
}

/// A file that occupies all free space of a disk. Deleted on drop.
pub struct DiskFiller(PathBuf);

impl Disk {
    pub fn mount(at: PathBuf) -> Self {
        fs::create_dir(&at).unwrap();
        let (uid, gid) = (getuid(), getgid());
        let options = format!("size={SIZE_MIB}m,mode=0755,uid={uid},gid={gid}");
        let mounted = as_root(&["mount", "-t", "tmpfs", "-o", &options, "tmpfs"], &at);
        assert!(
            mounted.status.success(),
            "the test of a full disk mounts a tmpfs, which needs root: run it as root, or allow sudo without a password \
             ({})",
            String::from_utf8_lossy(&mounted.stderr).trim()
        );
        Self { mounted_at: at }
    }

    pub fn path(&self) -> &Path {
        &self.mounted_at
    }

    /// Occupies all free space until the result is dropped.
    pub fn fill(&self) -> DiskFiller {
        let filler = DiskFiller(self.mounted_at.join("filler"));
        let mut file = File::create(&filler.0).unwrap();
        let mut chunk = vec![1; CHUNK_BYTES];
        // Fill down to the last 4 KiB page, because Postgres writes whole pages.
        while chunk.len() >= 4096 {
            match file.write_all(&chunk) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => chunk.truncate(chunk.len() / 2),
                Err(error) => panic!("cannot fill the disk: {error}"),
            }
        }
        filler
    }
}

impl Drop for DiskFiller {
    fn drop(&mut self) {
        // Ignore errors: the disk may be unmounted already.
        let _ = fs::remove_file(&self.0);
    }
}

impl Drop for Disk {
    /// Retries, because a process that still uses the disk may need a moment to exit.
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(UNMOUNT_S_MAX);
        while !as_root(&["umount"], &self.mounted_at).status.success() {
            if Instant::now() > deadline {
                // A lazy unmount completes when the last process on the disk exits.
                as_root(&["umount", "--lazy"], &self.mounted_at);
                return;
            }
            sleep(Duration::from_millis(200));
        }
    }
}

/// Removes the leftovers of earlier runs that were killed: unused disks and folders of tests whose names begin with
/// `prefix`.
pub fn remove_abandoned(prefix: &str) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for entry in fs::read_dir(temporary_root()).unwrap().flatten() {
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
        // Ignore errors: another run may remove the same folder.
        let _ = fs::remove_dir_all(&folder);
    }
}

/// Whether the run that created the folder still runs. Each run writes its process id into its folder.
fn is_in_use(folder: &Path) -> bool {
    let pid = fs::read_to_string(folder.join("pid")).unwrap_or_default();
    pid.is_empty() || Path::new("/proc").join(pid.trim()).exists()
}

fn as_root(command: &[&str], path: &Path) -> Output {
    let sudo: &[&str] = if getuid().is_root() { &[] } else { &["sudo", "-n"] };
    let arguments: Vec<&str> = sudo.iter().chain(command).copied().collect();
    Command::new(arguments[0])
        .args(&arguments[1..])
        .arg(path)
        .output()
        .unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
}
