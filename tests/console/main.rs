//! Tests of the console and of Swagger UI in a real Chromium: tellers, operators, keyboard only, screen readers, developers.
//! Each run writes screenshots of all pages to `target/screenshots/`.
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod access;
mod accessibility;
mod account_page;
mod batch_page;
mod browser;
mod driver;
mod exactly_once;
mod files;
mod large;
mod late_responses;
mod lossy_proxy;
#[path = "../api/oidc_provider.rs"]
#[expect(dead_code, reason = "the tests of the API use the rest")]
mod oidc_provider;
mod search;
mod sign_in;
mod sign_in_endpoints;
mod states;
mod swagger;
mod teller_workflow;
mod webhook_pages;
#[path = "../api/webhook_receiver.rs"]
#[expect(dead_code, reason = "the tests of the API use the rest")]
mod webhook_receiver;
