//! TLS clients: the service connects only to servers whose certificate it trusts.

use std::{fs, net::TcpListener};

use axum::{Json, Router, routing::get};
use nix::sys::signal::Signal;
use passbook_testkit::{
    folder::Folder,
    postgres_server::PostgresServer,
    process::{Passbook, Running},
    tls::Identity,
};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::otlp_collector::Collector;

#[tokio::test(flavor = "multi_thread")]
async fn spans_reach_only_a_trusted_collector() {
    let (identity, collector) = (Identity::self_signed(), Collector::listen());
    let secured = format!("https://{}", identity.proxy_to(collector.address()).await);
    for is_trusted in [false, true] {
        let folder = Folder::migrated();
        let mut service = Passbook::in_folder(&folder)
            .set("OTEL_EXPORTER_OTLP_ENDPOINT", &secured)
            .set("OTEL_TRACES_SAMPLER", "always_on");
        if is_trusted {
            service = service.set("SSL_CERT_FILE", identity.certificate());
        }
        let service = service.start();
        service.client.open_account().await;
        assert_eq!(service.stop(Signal::SIGTERM).status.code(), Some(0));
        assert_eq!(collector.spans().iter().any(|span| span.name == "POST /v1/accounts"), is_trusted);
    }
}

#[tokio::test]
async fn spans_are_sent_over_http_without_any_installed_certificates() {
    let (collector, folder) = (Collector::listen(), Folder::migrated());
    let service = Passbook::in_folder(&folder)
        .set("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())
        .set("OTEL_TRACES_SAMPLER", "always_on")
        .set("SSL_CERT_FILE", folder.join("none"))
        .set("SSL_CERT_DIR", folder.join("none"))
        .start();
    service.client.open_account().await;
    assert_eq!(service.stop(Signal::SIGTERM).status.code(), Some(0));
    assert!(collector.spans().iter().any(|span| span.name == "POST /v1/accounts"));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_fetched_only_from_a_trusted_identity_provider() {
    let (identity, folder) = (Identity::self_signed(), Folder::migrated());
    let provider = TcpListener::bind("127.0.0.1:0").unwrap();
    provider.set_nonblocking(true).unwrap();
    let issuer = format!("https://{}", identity.proxy_to(provider.local_addr().unwrap()).await);
    let with_provider = |passbook: Passbook| {
        passbook.set("PASSBOOK_AUTH_ISSUER", &issuer).set("PASSBOOK_AUTH_AUDIENCE", "https://passbook.example")
    };
    let created = with_provider(Passbook::in_folder(&folder)).argument("token").argument("--sub=ada").wait_for_exit();
    let token = created.stdout[0].clone();
    let keys: Value = serde_json::from_slice(&fs::read(folder.data().join("development.jwks.json")).unwrap()).unwrap();
    let discovery = json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys")});
    let documents = Router::new()
        .route("/.well-known/openid-configuration", get(async || Json(discovery)))
        .route("/keys", get(async || Json(keys)));
    let provider = tokio::net::TcpListener::from_std(provider).unwrap();
    tokio::spawn(async move { axum::serve(provider, documents).await });

    let service = with_provider(Passbook::in_folder(&folder)).start();
    assert_eq!(accounts(&service, &token).await, 401, "the provider's certificate is not trusted");
    service.stop(Signal::SIGTERM);
    let service = with_provider(Passbook::in_folder(&folder)).set("SSL_CERT_FILE", identity.certificate()).start();
    assert_eq!(accounts(&service, &token).await, 200);
}

#[tokio::test]
async fn migrate_connects_only_to_a_trusted_database() {
    let (identity, folder) = (Identity::self_signed(), Folder::empty());
    let server = PostgresServer::with_tls(&folder, &identity).await;
    let url = server.tls_url();
    let migrate = |url: &str| Passbook::with_database(url).argument("migrate");
    let ended = migrate(&url).wait_for_exit();
    assert!(ended.error_message().contains("certificate"), "{ended:?}");
    let certificate = identity.certificate();
    for command in [
        migrate(&url).set("SSL_CERT_FILE", &certificate),
        migrate(&format!("{url}&sslrootcert={}", certificate.display())),
    ] {
        let ended = command.wait_for_exit();
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    }
}

async fn accounts(service: &Running, token: &str) -> StatusCode {
    let http = passbook_testkit::http_client().build().unwrap();
    let request = http.get(format!("{}/v1/accounts", service.client.base_url())).bearer_auth(token);
    request.send().await.unwrap().status()
}
