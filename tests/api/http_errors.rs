//! Requests that no handler accepts: unknown paths, unsupported methods and media types. They get problem documents
//! too, and every error code has a page.

use passbook_testkit::spawn_app;
use reqwest::Method;

use crate::http_framing::OPENING;

#[tokio::test]
async fn unknown_path_gives_404_for_every_method() {
    let app = spawn_app().await;
    let account = format!("/v1/accounts/{}", app.client().open_with_balance(0).await);
    let before = app.log().await;
    let account_paths =
        [format!("{account}/"), format!("{account}/burn"), format!("{account}/deposits/1"), format!("/{account}")];
    let fixed = ["/v1", "/v1/", "/v2/accounts", "/V1/accounts", "/v1/account", "/v1/accounts/", "/v1/accounts%2F"];
    let pages = ["/problems", "/problems/", "/problems/nonsense", "/swagger-ui/nonsense", "/livez/", "/etc/passwd"];
    for path in account_paths.iter().map(String::as_str).chain(fixed).chain(pages) {
        let missing = app.client().get(path).await.expect_problem(404, "not_found");
        assert_eq!(missing.body["instance"], path);
    }
    for path in account_paths.iter().map(String::as_str).chain(fixed) {
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
            app.client().send(method, path, OPENING).await.expect_problem(404, "not_found");
        }
    }
    assert_eq!(app.log().await, before);
}

#[tokio::test]
async fn unsupported_method_gives_405_with_allow() {
    let app = spawn_app().await;
    let account = format!("/v1/accounts/{}", app.client().open_with_balance(0).await);
    let before = app.log().await;
    let brew = Method::from_bytes(b"BREW").unwrap();
    let cases = [
        (Method::DELETE, "/v1/accounts".to_owned(), "GET,HEAD,POST"),
        (Method::OPTIONS, "/v1/accounts".to_owned(), "GET,HEAD,POST"),
        (brew, "/v1/accounts".to_owned(), "GET,HEAD,POST"),
        (Method::POST, account.clone(), "GET,HEAD"),
        (Method::PATCH, account.clone(), "GET,HEAD"),
        (Method::DELETE, account.clone(), "GET,HEAD"),
        (Method::GET, "/v1/transfers".to_owned(), "POST"),
        (Method::GET, format!("{account}/deposits"), "POST"),
        (Method::PUT, format!("{account}/close"), "POST"),
        (Method::POST, "/livez".to_owned(), "GET,HEAD"),
        (Method::POST, "/problems/not_found".to_owned(), "GET,HEAD"),
        (Method::POST, "/openapi.json".to_owned(), "GET,HEAD"),
    ];
    for (method, path, allowed) in cases {
        let refused = app.client().send(method.clone(), &path, OPENING).await.expect_problem(405, "method_not_allowed");
        let mut methods: Vec<&str> = refused.header("allow").unwrap().split(',').map(str::trim).collect();
        methods.sort_unstable();
        assert_eq!(methods.join(","), allowed, "{method} {path}");
    }
    assert_eq!(app.log().await, before);
}

#[tokio::test]
async fn head_gives_the_headers_of_get_without_a_body() {
    let app = spawn_app().await;
    let account = format!("/v1/accounts/{}", app.client().open_with_balance(0).await);
    app.client().get(&format!("{account}?min_position=1")).await.expect(200);
    for (path, status) in [
        (&*account, 200),
        ("/v1/accounts", 200),
        ("/livez", 200),
        ("/v1/accounts?limit=0", 400),
        ("/nowhere", 404),
        ("/v1/transfers", 405),
    ] {
        let get = app.client().get(path).await.expect(status);
        let head = app.client().send(Method::HEAD, path, "").await.expect(status);
        assert_eq!(head.bytes, b"", "{path}");
        for name in ["content-type", "etag", "passbook-position", "allow"] {
            assert_eq!(head.header(name), get.header(name), "{name} of {path}");
        }
        assert!(head.header("x-request-id").is_some(), "{path}");
    }
}

#[tokio::test]
async fn body_without_json_content_type_gives_415() {
    let app = spawn_app().await;
    let account = app.client().open_with_balance(0).await;
    let before = app.log().await;
    let paths = ["deposits", "freeze"].map(|verb| format!("/v1/accounts/{account}/{verb}"));
    let types = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=a", "text/json"];
    for path in paths.iter().map(String::as_str).chain(["/v1/accounts", "/v1/transfers"]) {
        for kind in types.into_iter().chain(["application/jsonp", "application/problem+json", "json", ""]) {
            let client = app.client().with_header("content-type", kind);
            client.send(Method::POST, path, OPENING).await.expect_problem(415, "unsupported_media_type");
        }
        app.client().send(Method::POST, path, OPENING).await.expect_problem(415, "unsupported_media_type");
    }
    assert_eq!(app.log().await, before);
    for kind in ["application/json; charset=utf-8", "Application/JSON"] {
        app.client().with_header("content-type", kind).send(Method::POST, "/v1/accounts", OPENING).await.expect(201);
    }
}

#[tokio::test]
async fn path_or_query_that_is_not_utf_8_is_refused() {
    let app = spawn_app().await;
    for path in ["/v1/accounts/%ff", "/v1/accounts/%zz", "/v1/accounts/%", "/v1/transfers/%c3%28"] {
        app.client().get(path).await.expect_problem(400, "invalid_parameter");
    }
    app.client().get("/problems/%ff").await.expect_problem(400, "invalid_parameter");
    app.client().get("/console/%ff").await.expect_problem(400, "invalid_parameter");
    app.client().get("/swagger-ui/%ff").await.expect_problem(400, "invalid_parameter");
    app.client().post("/v1/projections/%ff/rebuild", "").await.expect_problem(400, "invalid_parameter");
    let cut = app.client().get("/v1/accounts?status=open&owner=caf%E9").await.expect_problem(400, "invalid_parameter");
    assert_eq!(cut.text("/errors/0/field"), "owner");
    app.client().post("/v1/accounts?dry_run=%ff", OPENING).await.expect_problem(400, "invalid_parameter");
    app.client().get("/problems/%zz").await.expect_problem(404, "not_found");
    let long = "a".repeat(60_000);
    app.client().get(&format!("/{long}")).await.expect_problem(404, "not_found");
    app.client().get(&format!("/v1/accounts/{long}")).await.expect_problem(400, "invalid_parameter");
    app.client().get(&format!("/v1/accounts?owner={long}")).await.expect_problem(400, "invalid_parameter");
}

#[tokio::test]
async fn accept_encoding_affects_only_the_encoding() {
    let app = spawn_app().await;
    for accepted in ["identity;q=0", "*;q=0", "br, *;q=0", "gzip;q=0", "deflate, br;q=1, *;q=0", "nonsense", ""] {
        let opened =
            app.client().with_header("accept-encoding", accepted).open(serde_json::json!({"currency": "EUR"})).await;
        assert_eq!(opened.expect(201).header("content-encoding"), None, "{accepted}");
    }
    let encoded =
        app.client().with_header("content-encoding", "gzip").open(serde_json::json!({"currency": "EUR"})).await;
    encoded.expect_problem(415, "unsupported_media_type");
}

#[tokio::test]
async fn every_error_code_has_a_page() {
    let app = spawn_app().await;
    let codes = [
        (
            400,
            "malformed_request invalid_amount invalid_currency invalid_parameter invalid_idempotency_key same_account",
        ),
        (401, "unauthenticated"),
        (403, "forbidden"),
        (404, "account_not_found not_found"),
        (405, "method_not_allowed"),
        (406, "not_acceptable"),
        (408, "request_timeout"),
        (409, "account_exists"),
        (412, "version_mismatch"),
        (413, "payload_too_large"),
        (415, "unsupported_media_type"),
        (422, "account_closed account_frozen account_not_frozen insufficient_funds balance_not_zero"),
        (422, "currency_mismatch balance_limit_exceeded idempotency_key_reused"),
        (500, "internal_error"),
        (503, "overloaded storage_unavailable outcome_unknown projection_behind"),
    ];
    for (status, codes) in codes {
        for code in codes.split(' ') {
            let page = app.client().get(&format!("/problems/{code}")).await.expect(200);
            assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
            let page = String::from_utf8(page.bytes).unwrap();
            assert!(page.contains(code) && page.contains(&format!("status {status}")), "{page}");
        }
    }
}
