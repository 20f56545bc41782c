//! `GET /livez` and `GET /readyz`: the process is alive, and it is ready while its database and views work.

use passbook_testkit::{ApiClient, Response, eventually, spawn_app};
use serde_json::json;

/// Reads the path until the response has this status.
async fn get_until(status: u16, client: &ApiClient, path: &str) -> Response {
    eventually(&format!("{status} of {path}"), async || {
        let response = client.get(path).await;
        (response.status == status).then_some(response)
    })
    .await
}

#[tokio::test]
async fn running_service_is_alive_and_becomes_ready() {
    let app = spawn_app().await;
    assert_eq!(app.client().get("/livez").await.expect(200).body, json!({"status": "ok"}));
    let ready = get_until(200, &app.client(), "/readyz").await;
    assert_eq!(ready.body, json!({"status": "ok"}));
}

#[tokio::test]
async fn service_is_unready_while_a_view_is_stopped() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(10).await;
    get_until(200, &client, "/readyz").await;
    app.sabotage("ALTER TABLE account_transaction RENAME TO renamed").await;
    client.deposit(account, 1).await.expect(201);
    let waiting = get_until(503, &client, "/readyz").await.expect_problem(503, "projection_behind");
    assert!(waiting.text("/detail").contains("stopped"), "{}", waiting.body);
    client.get("/livez").await.expect(200);
    app.sabotage("ALTER TABLE renamed RENAME TO account_transaction").await;
    get_until(200, &client, "/readyz").await;
}

#[tokio::test]
async fn refused_statement_is_not_reported_as_unreachable_database() {
    let app = spawn_app().await;
    let client = app.client();
    get_until(200, &client, "/readyz").await;
    // As after a package upgrade that replaced the library of the language under the running server.
    app.sabotage("ALTER FUNCTION position_at(smallint, timestamptz) RENAME TO renamed").await;
    let refused = "The database refuses a statement of this service.";
    for path in ["/readyz", "/v1/events?since=2026-01-01T00:00:00Z"] {
        let response = client.get(path).await.expect_problem(503, "storage_unavailable");
        assert!(response.text("/detail").starts_with(refused), "{path}: {}", response.body);
    }
    app.sabotage("ALTER FUNCTION renamed(smallint, timestamptz) RENAME TO position_at").await;
    client.get("/readyz").await.expect(200);
}

#[tokio::test]
async fn clock_that_differs_from_the_database_refuses_commands() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(10).await;
    // Found in place of the built-in function: the database's clock is a year behind, so this instance's is a year ahead.
    app.sabotage(
        "CREATE SCHEMA skewed;
         GRANT USAGE ON SCHEMA skewed TO passbook_service;
         CREATE FUNCTION skewed.clock_timestamp() RETURNS timestamptz LANGUAGE sql
         AS $$ SELECT pg_catalog.clock_timestamp() - interval '1 year' $$",
    )
    .await;
    app.alter_database("SET search_path = skewed, pg_catalog, public").await;
    eventually("refused commands", async || (client.deposit(account, 1).await.status == 503).then_some(())).await;
    eventually("clock_skewed", async || {
        let refused = client.deposit(account, 1).await;
        (refused.body["code"] == "clock_skewed").then_some(())
    })
    .await;
    let unready = client.get("/readyz").await.expect_problem(503, "clock_skewed");
    assert!(unready.text("/detail").contains("clock"), "{}", unready.body);
    app.alter_database("RESET search_path").await;
    get_until(200, &client, "/readyz").await;
    client.deposit(account, 1).await.expect(201);
}

#[tokio::test]
async fn service_without_database_is_alive_and_unready() {
    let app = spawn_app().await;
    get_until(200, &app.client(), "/readyz").await;
    app.refuse_connections().await;
    for _ in 0..3 {
        app.client().get("/readyz").await.expect_problem(503, "storage_unavailable");
        app.client().get("/livez").await.expect(200);
    }
}
