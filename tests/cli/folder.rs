//! Folders for the data of a Postgres of our own. `initdb` takes seconds on a small machine, so one is made for the
//! whole run and copied.

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

/// How long servers may take to end by themselves.
const END_S_MAX: u64 = 60;

/// A data folder that is removed in the end, below one that every user may enter.
pub struct Folder(TempDir);

impl Folder {
    /// Nothing in it.
    pub fn empty() -> Self {
        let folder = tempfile::Builder::new().prefix("passbook-cli.").tempdir_in("/tmp").unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self(folder)
    }

    /// A bank without accounts in it.
    pub fn migrated() -> Self {
        static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
        let folder = Self::empty();
        copy(TEMPLATE.get_or_init(template), &folder.data());
        folder
    }

    pub fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    /// A further file or folder beside the data.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// How to reach the Postgres that a passbook runs in this folder.
    pub fn database_url(&self) -> String {
        format!("postgres://passbook@localhost/passbook?host={}", self.data().join("run").display())
    }

    /// The process id that Postgres wrote down.
    pub fn postmaster(&self) -> i32 {
        self.read_postmaster().unwrap()
    }

    /// Waits until Postgres runs as another process than this one. A backend of the old one may work on for a moment.
    #[track_caller]
    pub fn wait_for_new_postmaster(&self, before: i32) {
        let deadline = Instant::now() + Duration::from_secs(END_S_MAX);
        while self.read_postmaster().is_none_or(|pid| pid == before) {
            assert!(Instant::now() < deadline, "Postgres was not started again within {END_S_MAX} s");
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn read_postmaster(&self) -> Option<i32> {
        let file = fs::read_to_string(self.data().join("postgres/postmaster.pid")).ok()?;
        file.lines().next()?.trim().parse().ok()
    }

    /// The processes that work below this folder.
    pub fn processes(&self) -> Vec<String> {
        let names = |process: PathBuf| {
            let works_here = fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(self.0.path()));
            let command = fs::read_to_string(process.join("cmdline")).unwrap_or_default();
            works_here.then(|| command.replace('\0', " "))
        };
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| names(entry.path())).collect()
    }

    /// Waits until nothing works below this folder.
    #[track_caller]
    pub fn wait_until_unused(&self) {
        let deadline = Instant::now() + Duration::from_secs(END_S_MAX);
        while !self.processes().is_empty() {
            assert!(Instant::now() < deadline, "still working after {END_S_MAX} s: {:?}", self.processes());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Folder {
    /// A test that failed may leave a server behind that is ending: its files must not vanish under it.
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(END_S_MAX);
        while !self.processes().is_empty() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The first bank of this run, kept among what cargo may throw away.
fn template() -> PathBuf {
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for entry in fs::read_dir(parent).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        let process = name.strip_prefix("bank-").filter(|process| !Path::new("/proc").join(process).exists());
        if process.is_some() {
            // Another run may be removing it as well.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let folder = Folder::empty();
    // Into how many partitions a log is divided the first who serves it says.
    let ended = Passbook::in_folder(&folder).argument("migrate").wait_for_exit();
    assert!(ended.status.success(), "{ended:?}");
    let template = parent.join(format!("bank-{}", process::id()));
    copy(&folder.data(), &template);
    template
}

/// With owners and modes, which Postgres insists on.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(copied.success(), "{} could not be copied", from.display());
}
