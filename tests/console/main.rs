//! Tests of the console and of Swagger UI in a real Chromium: tellers, operators, keyboard only, screen readers, developers.
//! Each run writes screenshots of all pages to `target/screenshots/`.
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod access;
mod accessibility;
mod browser;
#[path = "../cli/client.rs"]
#[allow(dead_code, reason = "shared with the tests of the command line")]
mod client;
mod driver;
mod exactly_once;
mod files;
#[path = "../cli/folder.rs"]
#[allow(dead_code, reason = "shared with the tests of the command line")]
mod folder;
mod large;
mod late_responses;
mod lossy_proxy;
#[path = "../cli/passbook.rs"]
#[allow(dead_code, reason = "shared with the tests of the command line")]
mod passbook;
#[path = "../api/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the tests of the API")]
mod support;
mod swagger;
mod teller_workflow;
