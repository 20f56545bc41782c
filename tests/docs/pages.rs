//! The commands of the pages in `docs/` work. Each page has a bank and a folder of its own.

use std::{env, fs, os::unix::fs::symlink, path::PathBuf};

use crate::{
    reader::Reader,
    steps::{Step, steps},
};

/// Follows a page. Its bank runs before the first command, unless the page starts it. A service with an address of its own is a further
/// one.
fn follow(page: &str) {
    let mut text = crate::read(page);
    let is_bank = |step: &Step| matches!(step, Step::Serve(command) if !command.contains("PASSBOOK_LISTEN="));
    if !steps(&text).iter().any(is_bank) {
        text = format!("```sh\npassbook serve\n```\n\n{text}");
    }
    let mut reader = Reader::in_folder();
    symlink(tools().join("clients/node_modules"), reader.work().join("node_modules")).unwrap();
    symlink(tools().join("openapi-python-client"), reader.work().join("venv")).unwrap();
    reader.follow(&text);
}

/// The folder in which `scripts/install-deps --test` installs the generators of clients.
fn tools() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| crate::root().join("target"), PathBuf::from)
}

macro_rules! pages {
    ($($test:ident: $page:literal,)*) => {
        const PAGES: &[&str] = &[$($page),*];
        $(#[test] fn $test() { follow($page); })*
    };
}

pages! {
    the_accounting_page_works: "docs/accounting.md",
    the_backup_page_works: "docs/backup.md",
    the_books_page_works: "docs/books.md",
    the_checkpoints_page_works: "docs/checkpoints.md",
    the_clients_page_works: "docs/clients.md",
    the_event_sourcing_page_works: "docs/event-sourcing.md",
    the_exactly_once_page_works: "docs/exactly-once.md",
    the_hash_chain_page_works: "docs/hash-chain.md",
    the_identity_provider_page_works: "docs/identity-provider.md",
    the_import_page_works: "docs/import.md",
    the_operations_page_works: "docs/operations.md",
    the_partitions_page_works: "docs/partitions.md",
    the_scale_out_page_works: "docs/scale-out.md",
    the_tutorial_works: "docs/tutorial.md",
    the_upgrade_page_works: "docs/upgrade.md",
}

#[test]
fn every_page_with_commands_is_followed() {
    let root = fs::canonicalize(crate::root()).unwrap();
    for document in crate::documents().into_iter().filter(|path| path.starts_with(root.join("docs"))) {
        let name = crate::name(&document);
        assert_eq!(
            PAGES.contains(&&*name),
            !steps(&crate::read(&name)).is_empty(),
            "{name}: has it commands? is it followed?"
        );
    }
}
