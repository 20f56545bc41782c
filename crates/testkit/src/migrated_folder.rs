//! Folders with a migrated database. `initdb` takes seconds on a small machine, so a run creates one database and copies
//! it.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::OnceLock,
};

use crate::{
    folder::Folder,
    process::{Passbook, binary},
};

const SHARED_BUFFERS: &str = "64MB";

impl Folder {
    /// A folder with a migrated database without accounts.
    pub fn migrated() -> Self {
        static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
        let folder = Self::empty();
        copy(TEMPLATE.get_or_init(template), &folder.data());
        folder
    }
}

/// Creates the migrated data folder of this run, in Cargo's temporary folder for tests.
fn template() -> PathBuf {
    let parent = binary().ancestors().nth(2).unwrap().join("tmp");
    fs::create_dir_all(&parent).unwrap();
    for entry in fs::read_dir(&parent).unwrap().flatten() {
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
    limit_memory(&folder);
    let template = parent.join(format!("bank-{}", process::id()));
    copy(&folder.data(), &template);
    template
}

/// Limits the memory of the servers of tests, because many run at a time. As `ALTER SYSTEM` does.
fn limit_memory(folder: &Folder) {
    let path = folder.data().join("postgres/postgresql.auto.conf");
    let mut file = File::options().append(true).open(path).unwrap();
    writeln!(file, "shared_buffers = '{SHARED_BUFFERS}'").unwrap();
}

/// Copies a folder with owners and modes, which Postgres requires.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(copied.success(), "cannot copy {}", from.display());
}
