//! Temporary folders for the data of an embedded Postgres, and the processes that use them.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::statvfs::statvfs,
    unistd::{AccessFlags, access},
};
use tempfile::TempDir;

/// How long processes may take to exit by themselves.
const EXIT_S_MAX: u64 = 60;

/// The file system in memory that Linux mounts for every user.
const IN_MEMORY: &str = "/dev/shm";
/// What the databases of all suites need at most.
const FREE_BYTES_MIN: u128 = 6 << 30;

/// The parent of the data of tests: in memory if there is room, because creating a database takes three times as long on a disk.
/// No test ends the machine, so data in memory survives what a test does. The path is short enough for that of a socket.
pub fn temporary_root() -> &'static Path {
    static ROOT: LazyLock<&Path> = LazyLock::new(|| {
        let memory = Path::new(IN_MEMORY);
        let is_writable = access(memory, AccessFlags::W_OK | AccessFlags::X_OK).is_ok();
        let free =
            statvfs(memory).map_or(0, |found| u128::from(found.blocks_available()) * u128::from(found.fragment_size()));
        if is_writable && free >= FREE_BYTES_MIN { memory } else { Path::new("/tmp") }
    });
    *ROOT
}

/// A temporary folder that every user may enter. It is deleted on drop.
pub struct Folder(TempDir);

impl Folder {
    /// An empty folder.
    pub fn empty() -> Self {
        let folder = tempfile::Builder::new().prefix("passbook-cli.").tempdir_in(temporary_root()).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self(folder)
    }

    /// The data folder of the service.
    pub fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    /// The path of a further file or folder beside the data.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The URL of the embedded Postgres in this folder.
    pub fn database_url(&self) -> String {
        format!("postgres://passbook@localhost/passbook?host={}", self.data().join("run").display())
    }

    /// The process id in `postmaster.pid`.
    pub fn postmaster(&self) -> i32 {
        self.read_postmaster().unwrap()
    }

    /// Waits until Postgres runs as a process other than `before`. A backend of the old one may exit a moment later.
    #[track_caller]
    pub fn wait_for_new_postmaster(&self, before: i32) {
        let deadline = Instant::now() + Duration::from_secs(EXIT_S_MAX);
        while self.read_postmaster().is_none_or(|pid| pid == before) {
            assert!(Instant::now() < deadline, "Postgres did not restart within {EXIT_S_MAX} s");
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn read_postmaster(&self) -> Option<i32> {
        let file = fs::read_to_string(self.data().join("postgres/postmaster.pid")).ok()?;
        file.lines().next()?.trim().parse().ok()
    }

    /// The command lines of the processes whose working directory is in this folder.
    pub fn processes(&self) -> Vec<String> {
        let command_line = |process: PathBuf| {
            let is_inside = fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(self.0.path()));
            let command = fs::read_to_string(process.join("cmdline")).unwrap_or_default();
            is_inside.then(|| command.replace('\0', " "))
        };
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| command_line(entry.path())).collect()
    }

    /// Waits until no process uses this folder as its working directory.
    #[track_caller]
    pub fn wait_until_unused(&self) {
        let deadline = Instant::now() + Duration::from_secs(EXIT_S_MAX);
        while !self.processes().is_empty() {
            assert!(Instant::now() < deadline, "processes still run after {EXIT_S_MAX} s: {:?}", self.processes());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Folder {
    /// Waits for processes to exit: after a failed test a server may still be shutting down and need its files.
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(EXIT_S_MAX);
        while !self.processes().is_empty() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
    }
}
