//! Temporary folders for the data of an embedded Postgres. `initdb` takes seconds on a small machine, so a run creates one
//! migrated database and copies it.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::passbook::Passbook;

/// How long processes may take to exit by themselves.
const EXIT_S_MAX: u64 = 60;

/// A temporary folder that every user may enter. It is deleted on drop.
pub struct Folder(TempDir);

impl Folder {
    /// An empty folder.
    pub fn empty() -> Self {
        let folder = tempfile::Builder::new().prefix("passbook-cli.").tempdir_in("/tmp").unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self(folder)
    }

    /// A folder with a migrated database without accounts.
    pub fn migrated() -> Self {
        static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
        let folder = Self::empty();
        copy(TEMPLATE.get_or_init(template), &folder.data());
        folder
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

/// Creates the migrated data folder of this run, in cargo's temporary folder.
fn template() -> PathBuf {
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for entry in fs::read_dir(parent).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        let process = name.strip_prefix("bank-").filter(|process| !Path::new("/proc").join(process).exists());
        if process.is_some() {
            // Ignore errors: another run may remove the same folder.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let folder = Folder::empty();
    // `migrate` does not fix the number of partitions; the first `serve` does.
    let ended = Passbook::in_folder(&folder).argument("migrate").wait_for_exit();
    assert!(ended.status.success(), "{ended:?}");
    let template = parent.join(format!("bank-{}", process::id()));
    copy(&folder.data(), &template);
    template
}

/// Copies a folder with owners and modes, which Postgres requires.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(copied.success(), "cannot copy {}", from.display());
}
