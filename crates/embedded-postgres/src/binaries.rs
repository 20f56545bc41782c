//! Finds the Postgres programs on this machine. Packages install them in different folders, and several major versions may be
//! installed. Only the major version that wrote the data can read them.

use std::collections::HashSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use super::data_home;
use super::error::Error;
use super::program::command;

/// The oldest major version that Passbook is tested with.
const MAJOR_MIN: u32 = 15;

/// The folder of Postgres versions that no package manager installed.
const UNPACKAGED: &str = "passbook-postgres";

/// The programs of one installed Postgres.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// Their folder.
    pub bin: PathBuf,
    /// Their major version.
    pub major: u32,
}

impl Binaries {
    pub(super) fn postgres(&self) -> PathBuf {
        self.bin.join("postgres")
    }

    pub(super) fn initdb(&self) -> PathBuf {
        self.bin.join("initdb")
    }

    fn inspect(bin: PathBuf) -> Option<Self> {
        if !bin.join("initdb").is_file() {
            return None;
        }
        let output = command(bin.join("postgres")).arg("--version").output().ok()?;
        let major = parse_major(&String::from_utf8_lossy(&output.stdout))?;
        Some(Self { bin, major })
    }
}

/// Returns the Postgres that creates the data of a new folder. See [`Settings::bin`](crate::Settings::bin).
///
/// # Errors
/// No Postgres was found, or every one is older than version 15.
pub fn installed(configured: Option<&Path>) -> Result<Binaries, Error> {
    find(configured).map(|mut found| found.swap_remove(0))
}

/// Finds every usable Postgres, the preferred one first. The result is not empty. If the operator configured a folder, only that
/// folder is searched.
///
/// # Errors
/// No Postgres was found, or every one is older than version 15.
pub(super) fn find(configured: Option<&Path>) -> Result<Vec<Binaries>, Error> {
    let folders = configured.map_or_else(usual_folders, |bin| vec![bin.to_owned()]);
    let mut seen = HashSet::new();
    let found: Vec<Binaries> = folders
        .into_iter()
        .filter_map(|bin| fs::canonicalize(bin).ok())
        .filter(|bin| seen.insert(bin.clone()))
        .filter_map(Binaries::inspect)
        .collect();

    let newest = found.iter().max_by_key(|binaries| binaries.major).cloned();
    match (newest, configured) {
        (None, None) => Err(Error::NoPostgres),
        (None, Some(bin)) => Err(Error::NoPostgresIn(bin.to_owned())),
        (Some(newest), _) if newest.major < MAJOR_MIN => Err(Error::TooOld { major: newest.major, bin: newest.bin }),
        (Some(_), _) => Ok(found.into_iter().filter(|binaries| binaries.major >= MAJOR_MIN).collect()),
    }
}

fn usual_folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = pg_config_bindir().into_iter().collect();
    folders.extend(env::var_os("PATH").iter().flat_map(env::split_paths));
    folders.extend(newest_first(Path::new("/usr/lib/postgresql"), ""));
    folders.extend(newest_first(Path::new("/opt/homebrew/opt"), "postgresql@"));
    folders.extend(newest_first(Path::new("/usr/local/opt"), "postgresql@"));
    // `scripts/install-deps` puts binaries here if the package manager has no usable Postgres: for one user, and for root.
    folders.extend(newest_first(&data_home().join(UNPACKAGED), ""));
    folders.extend(newest_first(&Path::new("/usr/local/lib").join(UNPACKAGED), ""));
    folders
}

fn pg_config_bindir() -> Option<PathBuf> {
    let output = command("pg_config").arg("--bindir").output().ok()?;
    let bindir = String::from_utf8(output.stdout).ok()?;
    Some(PathBuf::from(bindir.trim()))
}

/// Returns the folders `<parent>/<prefix><major>/bin`, the highest major version first.
fn newest_first(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut majors: Vec<u32> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok())
        .collect();
    majors.sort_unstable_by(|a, b| b.cmp(a));
    majors.into_iter().map(|major| parent.join(format!("{prefix}{major}")).join("bin")).collect()
}

/// Parses the major version from `postgres (PostgreSQL) 17.2 (Debian 17.2-1)` or `postgres (PostgreSQL) 18beta1`.
fn parse_major(version: &str) -> Option<u32> {
    let number = version.split_once("(PostgreSQL) ")?.1;
    let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_parsed_from_releases_and_betas() {
        assert_eq!(parse_major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(parse_major("postgres (PostgreSQL) 18beta1\n"), Some(18));
        assert_eq!(parse_major("postgres (PostgreSQL) 17\n"), Some(17));
        assert_eq!(parse_major("something else"), None);
    }
}
