//! Without access control on a loopback address, requests from web pages of other sites are refused. Also the security
//! headers of every response.

use passbook_testkit::{ApiClient, App, spawn_app, spawn_app_with, spawn_auth_app};
use reqwest::Method;
use serde_json::json;

const CROSS_SITE: [&[(&str, &str)]; 8] = [
    &[("sec-fetch-site", "cross-site")],
    &[("sec-fetch-site", "same-site")],
    &[("sec-fetch-site", "nonsense")],
    &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")],
    &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "document")],
    &[("origin", "https://evil.example")],
    &[("origin", "null")],
    &[("origin", "http://127.0.0.1:1")],
];

fn client_sending(app: &App, headers: &[(&str, &str)]) -> ApiClient {
    headers.iter().fold(app.client(), |client, (name, value)| client.with_header(name, value))
}

#[tokio::test]
async fn cross_site_requests_are_refused() {
    for app in [spawn_app().await, spawn_app_with(&["--auth=off"]).await] {
        let account = app.client().open_with_balance(0).await;
        let before = app.log().await;
        for headers in CROSS_SITE {
            let page = client_sending(&app, headers);
            page.get(&format!("/v1/accounts/{account}")).await.expect_problem(403, "forbidden");
            page.get("/livez").await.expect_problem(403, "forbidden");
            page.freeze(account).await.expect_problem(403, "forbidden");
            // The kind of request that a form or beacon sends without a CORS preflight.
            page.send(Method::POST, &format!("/v1/accounts/{account}/freeze"), "")
                .await
                .expect_problem(403, "forbidden");
        }
        assert_eq!(app.log().await, before);
    }
}

#[tokio::test]
async fn cross_site_link_is_served_and_cross_site_form_is_refused() {
    let app = spawn_app().await;
    let headers = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
    let linked = client_sending(&app, &headers);
    linked.get("/swagger-ui/").await.expect(200);
    linked.open(json!({"currency": "EUR"})).await.expect_problem(403, "forbidden");
}

#[tokio::test]
async fn same_origin_requests_and_typed_addresses_are_served() {
    let app = spawn_app().await;
    let own = app.url();
    for headers in [
        &[("sec-fetch-site", "same-origin")][..],
        &[("sec-fetch-site", "none")],
        &[("origin", &own)],
        &[("sec-fetch-site", "same-origin"), ("origin", &own)],
    ] {
        client_sending(&app, headers).open(json!({"currency": "EUR"})).await.expect(201);
    }
}

#[tokio::test]
async fn host_names_other_than_loopback_are_refused() {
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
async fn requests_through_a_proxy_are_refused() {
    let app = spawn_app().await;
    let off = spawn_app_with(&["--auth=off"]).await;
    for (name, value) in [
        ("forwarded", "for=192.0.2.1"),
        ("x-forwarded-for", "192.0.2.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "bank.example"),
        ("x-real-ip", "192.0.2.1"),
        ("via", "1.1 proxy"),
    ] {
        let refused = app.client().with_header(name, value).open(json!({"currency": "EUR"})).await;
        assert!(refused.expect_problem(403, "forbidden").text("/detail").contains("a proxy forwarded"), "{name}");
        app.client().with_header(name, value).get("/livez").await.expect_problem(403, "forbidden");
        off.client().with_header(name, value).open(json!({"currency": "EUR"})).await.expect(201);
    }
    assert_eq!(app.log().await.head.position, 0);
}

#[tokio::test]
async fn any_host_is_served_with_explicit_auth_setting() {
    let off = spawn_app_with(&["--auth=off"]).await;
    off.client().with_header("host", "bank.example").get("/v1/accounts").await.expect(200);
    let auth = spawn_auth_app().await;
    let ada = auth.customer("ada").with_header("host", "bank.example").with_header("origin", "https://console.example");
    ada.get("/v1/accounts").await.expect(200);
}

#[tokio::test]
async fn every_response_has_security_headers() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(0).await;
    let paths = [
        (format!("/v1/accounts/{account}"), Some("no-store")),
        ("/v1/accounts?limit=nothing".to_owned(), Some("no-store")),
        ("/livez".to_owned(), None),
        ("/nowhere".to_owned(), None),
        ("/problems/overloaded".to_owned(), Some("no-cache")),
        ("/openapi.json".to_owned(), Some("no-cache")),
        ("/swagger-ui/".to_owned(), Some("no-cache")),
        ("/".to_owned(), Some("no-cache")),
        ("/console/main.js".to_owned(), Some("no-cache")),
    ];
    for (path, cache_control) in paths {
        let response = client.get(&path).await;
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(response.header("referrer-policy"), Some("no-referrer"), "{path}");
        let policy = response.header("content-security-policy").unwrap();
        assert!(
            policy.starts_with("default-src 'none';") && !policy.contains("script-src 'unsafe"),
            "{path}: {policy}"
        );
        assert_eq!(response.header("cache-control"), cache_control, "{path}");
        assert_eq!(response.header("server"), None, "{path}");
    }
    // The policy forbids inline scripts, so Swagger UI loads all scripts from files.
    let page = client.get("/swagger-ui/").await.expect(200);
    let page = String::from_utf8(page.bytes).unwrap();
    assert!(page.contains("<script src=") && !page.contains("<script>"), "{page}");
}
