//! A bank without access control on a loopback address: a page in a browser of the same machine gets nothing from it.

use reqwest::Method;
use serde_json::json;

use crate::support::{App, ApiClient, spawn_app, spawn_app_with, spawn_auth_app};

const FOREIGN: [&[(&str, &str)]; 8] = [
    &[("sec-fetch-site", "cross-site")],
    &[("sec-fetch-site", "same-site")],
    &[("sec-fetch-site", "nonsense")],
    &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")],
    &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "document")],
    &[("origin", "https://evil.example")],
    &[("origin", "null")],
    &[("origin", "http://127.0.0.1:1")],
];

fn sending(app: &App, headers: &[(&str, &str)]) -> ApiClient {
    headers.iter().fold(app.client(), |client, (name, value)| client.with(name, value))
}

#[tokio::test]
async fn a_page_of_another_site_gets_nothing() {
    for app in [spawn_app().await, spawn_app_with(&["--auth=off"]).await] {
        let account = app.client().open_with_balance(0).await;
        let before = app.log().await;
        for headers in FOREIGN {
            let page = sending(&app, headers);
            page.get(&format!("/v1/accounts/{account}")).await.expect_problem(403, "forbidden");
            page.get("/livez").await.expect_problem(403, "forbidden");
            page.freeze(account).await.expect_problem(403, "forbidden");
            // What a form or a beacon sends without asking first.
            page.send(Method::POST, &format!("/v1/accounts/{account}/freeze"), "").await.expect_problem(403, "forbidden");
        }
        assert_eq!(app.log().await, before);
    }
}

#[tokio::test]
async fn a_link_to_a_page_of_ours_works_but_a_form_that_leads_there_does_not() {
    let app = spawn_app().await;
    let headers = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
    let linked = sending(&app, &headers);
    linked.get("/swagger-ui/").await.expect(200);
    linked.open(json!({"currency": "EUR"})).await.expect_problem(403, "forbidden");
}

#[tokio::test]
async fn our_own_page_and_whoever_types_the_address_are_served() {
    let app = spawn_app().await;
    let own = app.url();
    for headers in [
        &[("sec-fetch-site", "same-origin")][..],
        &[("sec-fetch-site", "none")],
        &[("origin", &own)],
        &[("sec-fetch-site", "same-origin"), ("origin", &own)],
    ] {
        sending(&app, headers).open(json!({"currency": "EUR"})).await.expect(201);
    }
}

#[tokio::test]
async fn a_name_that_somebody_else_may_have_made_lead_here_is_not_served() {
    let app = spawn_app().await;
    for host in
        ["evil.example", "evil.example:8080", "bank", "127.0.0.1.evil.example", "localhost.evil.example", "192.0.2.1"]
    {
        let rebound = app.client().with_header("host", host);
        rebound.get("/v1/accounts").await.expect_problem(403, "forbidden");
        rebound.open(json!({"currency": "EUR"})).await.expect_problem(403, "forbidden");
    }
    for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "127.9.9.9", "[::1]:80"] {
        app.client().with_header("host", host).get("/v1/accounts").await.expect(200);
    }
}

#[tokio::test]
async fn where_it_was_said_in_so_many_words_or_tokens_are_asked_for_any_name_is_served() {
    let off = spawn_app_with(&["--auth=off"]).await;
    off.client().with_header("host", "bank.example").get("/v1/accounts").await.expect(200);
    let bank = spawn_auth_app().await;
    let ada = bank.customer("ada").with_header("host", "bank.example").with_header("origin", "https://console.example");
    ada.get("/v1/accounts").await.expect(200);
}

#[tokio::test]
async fn every_answer_tells_a_browser_what_not_to_do() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(0).await;
    let bodies = [
        (format!("/v1/accounts/{account}"), Some("no-store")),
        ("/v1/accounts?limit=nothing".to_owned(), Some("no-store")),
        ("/livez".to_owned(), None),
        ("/nowhere".to_owned(), None),
        ("/problems/overloaded".to_owned(), None),
        ("/openapi.json".to_owned(), None),
        ("/swagger-ui/".to_owned(), None),
        ("/".to_owned(), Some("no-cache")),
        ("/console/main.js".to_owned(), Some("no-cache")),
    ];
    for (path, kept) in bodies {
        let response = client.get(&path).await;
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(response.header("referrer-policy"), Some("no-referrer"), "{path}");
        let policy = response.header("content-security-policy").unwrap();
        assert!(
            policy.starts_with("default-src 'none';") && !policy.contains("script-src 'unsafe"),
            "{path}: {policy}"
        );
        assert_eq!(response.header("cache-control"), kept, "{path}");
        assert_eq!(response.header("server"), None, "{path}");
    }
    // Whatever Swagger UI needs is in files of its own: the policy forbids a script within the page.
    let page = client.get("/swagger-ui/").await.expect(200);
    let page = String::from_utf8(page.bytes).unwrap();
    assert!(page.contains("<script src=") && !page.contains("<script>"), "{page}");
}
