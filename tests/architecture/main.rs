//! Rules that the compiler and Cargo cannot check: which crates may be used where, and what SQL may rely on.
//!
//! Cargo checks the dependencies between the crates of the workspace. The SQL rules keep every statement valid on a log with
//! several partitions and on a Citus cluster, and every migration compatible with the previous release.
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod sources;
mod sql;

use std::fs;

use sources::{code, files, name, root, sources};

/// Dependencies that a crate must not have.
const FORBIDDEN_DEPENDENCIES: &[(&str, &[&str])] = &[
    ("domain", &["sqlx", "tokio", "axum", "futures-util", "nix", "clap", "tracing"]),
    ("event-store", &["axum", "clap", "utoipa"]),
    ("bank", &["axum", "clap"]),
    ("read-model", &["axum", "clap"]),
    ("audit", &["axum", "clap"]),
    ("repartition", &["axum", "clap"]),
    ("auth", &["sqlx", "axum", "clap"]),
    ("relay", &["axum", "clap", "utoipa"]),
    ("webhooks", &["axum", "clap"]),
    ("import", &["sqlx", "axum", "clap", "utoipa"]),
    ("database", &["axum", "clap", "utoipa"]),
    ("embedded-postgres", &["axum", "clap", "utoipa"]),
    ("telemetry", &["sqlx", "axum", "clap", "utoipa"]),
];

/// Code that the pure domain must not use: clocks, random ids, files, processes and the network.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::io",
    "std::env",
    "std::time",
    "std::thread",
    "std::process",
    "::now(",
    "now_v7",
    "new_v4",
];

/// Paths that HTTP handlers must not use: they call the write side and the read model, and never the log or its projections.
const BEHIND_HTTP: &[&str] = &[
    "sqlx::",
    "passbook_event_store::log",
    "passbook_event_store::reader",
    "passbook_event_store::import",
    "passbook_event_store::scan",
    "passbook_read_model::projector",
    "passbook_read_model::projection",
    "passbook_read_model::rebuilder",
];

#[test]
fn crates_do_not_depend_on_what_belongs_to_others() {
    for (package, forbidden) in FORBIDDEN_DEPENDENCIES {
        let manifest = fs::read_to_string(root().join("crates").join(package).join("Cargo.toml")).unwrap();
        for dependency in *forbidden {
            let listed =
                |line: &str| line.starts_with(&format!("{dependency}.")) || line.starts_with(&format!("{dependency} "));
            assert!(!manifest.lines().any(listed), "crates/{package} depends on {dependency}");
        }
    }
    let packages = fs::read_dir(root().join("crates")).unwrap().count();
    assert!(packages >= FORBIDDEN_DEPENDENCIES.len(), "only {packages} crates were found");
}

#[test]
fn the_domain_has_no_clock_no_random_ids_and_no_io() {
    for path in files("crates/domain/src", "rs") {
        for impure in IMPURE {
            assert!(!code(&path).contains(impure), "{} uses {impure}", name(&path));
        }
    }
}

#[test]
fn http_handlers_do_not_reach_behind_the_write_side_and_the_queries() {
    for path in files("src/http", "rs") {
        for behind in BEHIND_HTTP {
            assert!(!code(&path).contains(behind), "{} uses {behind}", name(&path));
        }
    }
}

#[test]
fn every_source_file_begins_with_its_responsibility() {
    for path in sources("rs") {
        let source = fs::read_to_string(&path).unwrap();
        let first = source.lines().next().unwrap_or_default();
        assert!(first.starts_with("//! ") && first.len() > 10, "{} begins with {first:?}", name(&path));
    }
}
