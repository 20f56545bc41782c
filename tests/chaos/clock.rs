//! A fake clock (libfaketime) for one instance. A test can set it while the instance runs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use passbook_testkit::process::Passbook;

const LIBRARY: &str = "libfaketimeMT.so.1";

/// A clock with an adjustable offset from the system clock.
pub struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// Creates a clock whose offset is stored in `file`. The initial offset is 0.
    pub fn in_file(file: PathBuf) -> Self {
        let library = library().unwrap_or_else(|| {
            panic!("this test needs libfaketime, but {LIBRARY} was not found: run `scripts/install-deps --test` once")
        });
        let clock = Self { library, file };
        clock.set(0);
        clock
    }

    /// Sets the offset in seconds. It takes effect within one second. The monotonic clock, and so every timeout, is not
    /// affected.
    pub fn set(&self, seconds: i64) {
        fs::write(&self.file, format!("{seconds:+}")).unwrap();
    }

    /// Makes an instance use this clock.
    pub fn apply_to(&self, passbook: Passbook) -> Passbook {
        passbook
            .set("LD_PRELOAD", &self.library)
            .set("FAKETIME_TIMESTAMP_FILE", &self.file)
            .set("FAKETIME_CACHE_DURATION", "1")
            .set("DONT_FAKE_MONOTONIC", "1")
    }
}

/// The path of libfaketime: Debian installs it below a folder for the architecture, others in `lib` or `lib64`.
fn library() -> Option<PathBuf> {
    let architectures = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    let folders = architectures.chain(["/usr/lib", "/usr/lib64"].map(PathBuf::from));
    folders.map(|folder| folder.join("faketime").join(LIBRARY)).find(|library| Path::exists(library))
}
