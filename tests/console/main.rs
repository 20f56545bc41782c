//! The console in a real Chromium, as a teller, an operator, a keyboard and a screen reader meet it, and Swagger UI as a
//! developer does. Every run leaves pictures of all pages in `target/screenshots/`.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod access;
mod browser;
#[path = "../cli/client.rs"]
#[allow(dead_code, reason = "shared with the tests of the command line")]
mod client;
mod counter;
mod driver;
mod everybody;
mod files;
#[path = "../cli/folder.rs"]
#[allow(dead_code, reason = "shared with the tests of the command line")]
mod folder;
mod large;
mod late;
mod once;
#[path = "../cli/passbook.rs"]
#[allow(dead_code, reason = "shared with the tests of the command line")]
mod passbook;
#[path = "../api/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the tests of the API")]
mod support;
mod swagger;
mod wire;
