//! Properties of all responses: compression, no CORS headers, no internals in errors, times in the contract's form, and
//! the OpenAPI document.

use std::{fs, path::Path};

use passbook_testkit::{ApiClient, Response, response::is_time, spawn_app, spawn_auth_app};
use reqwest::Method;
use serde_json::{Value, json};

#[tokio::test]
async fn response_is_compressed_if_the_client_accepts_gzip() {
    let app = spawn_app().await;
    let account = app.client().open_with_balance(10).await;
    let path = format!("/v1/accounts/{account}");
    let plain = app.client().get(&format!("{path}?min_position=1")).await.expect(200);
    assert_eq!(plain.header("content-encoding"), None);
    let packed = app.client().with_header("accept-encoding", "gzip").get(&path).await.expect(200);
    assert_eq!((packed.header("content-encoding"), packed.header("vary")), (Some("gzip"), Some("accept-encoding")));
    assert_eq!(packed.bytes[..2], [0x1f, 0x8b]);
    // The default client of reqwest asks for gzip and decompresses the body.
    let unpacked =
        ApiClient::new(passbook_testkit::http_client().build().unwrap(), app.url()).get(&path).await.expect(200);
    assert_eq!(unpacked.body, plain.body);
    let unasked = app.client().with_header("accept-encoding", "identity").get(&path).await.expect(200);
    assert_eq!((unasked.header("content-encoding"), &unasked.bytes), (None, &plain.bytes));
}

#[tokio::test]
async fn responses_have_no_cors_headers() {
    let auth = spawn_auth_app().await;
    let other_origin = auth.customer("ada").with_header("origin", "https://elsewhere.example");
    let preflight = other_origin.with_header("access-control-request-method", "POST");
    for response in [
        other_origin.get("/v1/accounts").await.expect(200),
        other_origin.open(json!({"currency": "EUR"})).await.expect(201),
        other_origin.get("/nowhere").await.expect(404),
        preflight.send(Method::OPTIONS, "/v1/accounts", "").await.expect(405),
    ] {
        let cors_header = response.headers.keys().find(|name| name.as_str().starts_with("access-control-"));
        assert_eq!(cors_header, None);
    }
}

/// Asserts that a 5xx response contains no word about the service's internals.
#[track_caller]
fn assert_reveals_nothing(response: Response, status: u16, code: &str) {
    let text = String::from_utf8_lossy(&response.expect_problem(status, code).bytes).to_lowercase();
    let internals = ["sql", "select", "relation", "constraint", "table", "event", "column", "renamed", "unheard"];
    for word in internals.into_iter().chain(["postgres", "passbook", ".rs", "/tmp", "/dev/", "src/", "panic"]) {
        assert!(!text.contains(word), "{word} in {text}");
    }
}

#[tokio::test]
async fn server_errors_reveal_no_internals() {
    let mut app = spawn_app().await;
    let account = app.client().open_with_balance(10).await;
    app.client().get_account(account, "1").await.expect(200);

    app.sabotage("ALTER TABLE account_view RENAME TO renamed").await;
    assert_reveals_nothing(app.client().get("/v1/accounts").await, 503, "storage_unavailable");
    app.sabotage("ALTER TABLE projection RENAME TO renamed_too").await;
    assert_reveals_nothing(app.client().get("/readyz").await, 503, "storage_unavailable");

    app.sabotage("ALTER TABLE event ADD CONSTRAINT renamed CHECK (type <> 'MoneyDeposited')").await;
    assert_reveals_nothing(app.client().deposit(account, 1).await, 500, "internal_error");

    app.tamper("UPDATE event SET data = '[]'").await;
    app.restart().await;
    assert_reveals_nothing(app.client().withdraw(account, 1).await, 500, "internal_error");

    app.sabotage("ALTER TABLE event RENAME TO renamed_as_well").await;
    assert_reveals_nothing(app.client().open(json!({"currency": "EUR"})).await, 503, "storage_unavailable");
}

#[tokio::test]
async fn a_client_that_accepts_no_encoding_still_gets_its_receipt() {
    let app = spawn_app().await;
    let client = app.client().with_header("accept-encoding", "identity;q=0, *;q=0");
    let opened = client.open(json!({"currency": "EUR"})).await.expect(201);
    assert_eq!(opened.header("content-encoding"), None);
}

#[tokio::test]
async fn served_document_describes_the_access_control_of_the_instance() {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi/openapi.json");
    let committed: Value = serde_json::from_str(&fs::read_to_string(committed).unwrap()).unwrap();
    let (app, auth) = (spawn_app().await, spawn_auth_app().await);
    let open = app.client().get("/openapi.json").await.expect(200).body;
    let controlled = auth.app.client().get("/openapi.json").await.expect(200).body;
    let [own, any] = ["accounts:write", "accounts:write:any"].map(|scope| json!({"bearer": [scope]}));
    for (document, security) in
        [(&open, Value::Null), (&controlled, json!([own, any])), (&committed, json!([{}, own, any]))]
    {
        let operation = &document["paths"]["/v1/accounts"]["post"];
        assert_eq!(operation["security"], security);
        assert_eq!(operation["responses"]["401"].is_null(), security.is_null());
        assert_eq!(document["components"]["securitySchemes"].is_null(), security.is_null());
        let paths = |document: &Value| document["paths"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(paths(document), paths(&committed));
    }
}

#[tokio::test]
async fn swagger_ui_is_served() {
    let app = spawn_app().await;
    for path in ["/swagger-ui", "/swagger-ui/"] {
        let shown = app.client().get(path).await.expect(200);
        assert!(shown.header("content-type").unwrap().starts_with("text/html"), "{:?}", shown.headers);
        assert!(String::from_utf8(shown.bytes).unwrap().contains("swagger-ui"));
    }
}

#[tokio::test]
async fn times_always_have_six_fractional_digits() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(10).await;
    client.get_account(account, "1").await.expect(200);
    app.sabotage(
        "UPDATE account_view SET opened_at = '2026-01-31T12:00:00Z', last_activity_at = '2026-01-31T12:00:00.5Z'",
    )
    .await;
    app.sabotage("UPDATE account_transaction SET recorded_at = '2026-01-31T13:00:00+01:00'").await;
    let seen = client.get(&format!("/v1/accounts/{account}")).await.expect(200).body;
    assert_eq!(seen["opened_at"], "2026-01-31T12:00:00.000000Z");
    assert_eq!(seen["last_activity_at"], "2026-01-31T12:00:00.500000Z");
    assert!(is_time(&seen["opened_at"]) && seen["closed_at"].is_null());
    let listed = client.get(&format!("/v1/accounts/{account}/transactions")).await.expect(200);
    assert_eq!(listed.data()[0]["recorded_at"], "2026-01-31T12:00:00.000000Z");
}
