//! Puts the commit into the version of a release build. A development build has none, because it would be compiled anew after each
//! commit.

use std::{env, process::Command};

/// The commit and its date, for a build outside a repository: `3e599ee 2026-11-30`.
const COMMIT: &str = "PASSBOOK_BUILD_COMMIT";

fn main() {
    println!("cargo:rerun-if-env-changed={COMMIT}");
    println!("cargo:rerun-if-changed=build.rs");
    let package = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = env::var(COMMIT).ok().filter(|commit| !commit.is_empty());
    let version = match (commit, is_release) {
        (Some(commit), _) => format!("{package} ({commit})"),
        (None, true) => last_commit().map_or_else(|| package.clone(), |commit| format!("{package} ({commit})")),
        (None, false) => format!("{package} (development)"),
    };
    println!("cargo:rustc-env=PASSBOOK_VERSION={version}");
}

/// The last commit of the repository; `None` without one.
fn last_commit() -> Option<String> {
    println!("cargo:rerun-if-changed={}", git(&["rev-parse", "--git-path", "logs/HEAD"])?);
    git(&["log", "-1", "--format=%h %cs"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
