//! Commands for the programs of Postgres. They get a short list of environment variables: the environment of Passbook contains
//! passwords, and every program of the user that runs Postgres can read `/proc/<pid>/environ`.

use std::ffi::OsStr;
use std::process::Command;

/// The variables that a program gets if they are set: where it finds libraries, time zones and temporary files.
const VARIABLES: [&str; 7] = ["PATH", "HOME", "TMPDIR", "TZ", "TZDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"];

/// Creates a command that gets no other variables than [`VARIABLES`] and the locale `C`.
pub(super) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("LC_ALL", "C");
    for name in VARIABLES {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_inherit_only_the_listed_variables() {
        // Cargo sets `CARGO_MANIFEST_DIR` for each test.
        assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
        let output = command("env").output().expect("`env` runs");
        let names: Vec<_> =
            str::from_utf8(&output.stdout).expect("UTF-8").lines().filter_map(|line| line.split('=').next()).collect();
        assert!(names.contains(&"PATH") && names.contains(&"LC_ALL"), "{names:?}");
        assert!(names.iter().all(|name| VARIABLES.contains(name) || *name == "LC_ALL"), "{names:?}");
    }
}
