//! The documents are true: the commands of the README and of the pages in `docs/` work, the outputs that the pages show are those of
//! the commands, every link leads somewhere, and the generated pages match the code.
//!
//! Blocks of commands are of two kinds:
//!
//! - ```` ```sh ```` is executed: see `steps.rs`.
//! - ```` ```console ```` is only shown. An HTML comment before it gives the reason: `<!-- not run: … -->`.
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod blocks;
mod links;
mod output;
mod pages;
mod reader;
mod readme;
mod reference;
mod site;
mod steps;

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The text of a file, by its path in the repository.
fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The Markdown files of the project: those of the root, of `docs/` and of `migrations/`.
fn documents() -> Vec<PathBuf> {
    let folders = ["", "docs", "docs/decisions", "docs/reference", "migrations"];
    let files = folders.iter().flat_map(|folder| fs::read_dir(root().join(folder)).unwrap());
    files.map(|file| file.unwrap().path()).filter(|path| path.extension().is_some_and(|kind| kind == "md")).collect()
}

/// The path in the repository.
fn name(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}
