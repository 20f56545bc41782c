//! The clock of one passbook, which can be set while it runs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::passbook::Passbook;

const LIBRARY: &str = "libfaketimeMT.so.1";

/// A clock that differs from the true one by so many seconds.
pub struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// Kept in `file`, and right at first.
    pub fn kept_in(file: PathBuf) -> Self {
        let library = library().unwrap_or_else(|| {
            panic!("a clock is set back with libfaketime, and {LIBRARY} was not found: run `scripts/setup --test` once")
        });
        let clock = Self { library, file };
        clock.set(0);
        clock
    }

    /// Sets it within a second. Time that has passed is not touched: who waits for so long waits for so long.
    pub fn set(&self, seconds: i64) {
        fs::write(&self.file, format!("{seconds:+}")).unwrap();
    }

    /// A passbook that goes by this clock.
    pub fn give_to(&self, passbook: Passbook) -> Passbook {
        passbook
            .set("LD_PRELOAD", &self.library)
            .set("FAKETIME_TIMESTAMP_FILE", &self.file)
            .set("FAKETIME_CACHE_DURATION", "1")
            .set("DONT_FAKE_MONOTONIC", "1")
    }
}

/// Where distributions keep it: Debian in a folder for its architecture, others in `lib` or `lib64`.
fn library() -> Option<PathBuf> {
    let architectures = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    let folders = architectures.chain(["/usr/lib", "/usr/lib64"].map(PathBuf::from));
    folders.map(|folder| folder.join("faketime").join(LIBRARY)).find(|library| Path::exists(library))
}
