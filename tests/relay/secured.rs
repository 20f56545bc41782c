//! A NATS server that does not let everybody in, and that nobody on the way can read.

use std::fs;

use tokio::task::spawn_blocking;

use crate::{
    nats::{Access, Nats},
    operator,
    passbook::{Passbook, Running},
    site::{Site, eventually, refusal, stop},
    tls::Identity,
};

#[tokio::test]
async fn over_tls_with_a_user_and_a_password() {
    // For the test's own client: the process has two to choose from.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    let identity = Identity::new();
    let [certificate, key] = [identity.certificate(), identity.key()].map(|file| file.display().to_string());
    let secured = ["--tls", "--tlscert", &certificate, "--tlskey", &key, "--user", "bank", "--pass", "right"];
    let certificate = Some(identity.certificate());
    let access = Access { scheme: "tls", user: Some(("bank", "right")), certificate, ..Access::open() };
    let site = Site::with(Nats::guarded(&secured, access).await).await;

    let doubtful = started(site.relay()).await;
    let waits = async || doubtful.process.stderr().contains("stands still");
    eventually("its word", waits).await;
    assert!(doubtful.process.stderr().contains("certificate"), "{}", doubtful.process.stderr());
    stop(doubtful).await;
    assert_eq!(site.nats.last().await, None);

    let trusting = |relay: Passbook| relay.set("SSL_CERT_FILE", identity.certificate());
    let wrong = site.nats.url().replace("right", "wrong");
    let sentence = refusal(started(trusting(site.relay()).set("PASSBOOK_RELAY_NATS_URL", wrong)).await).await;
    assert!(sentence.contains("does not let this relay in") && !sentence.contains("wrong"), "{sentence}");

    let relay = started(trusting(site.relay())).await;
    site.is_noted().await;
    site.stream_is_the_log().await;
    stop(relay).await;
}

#[tokio::test]
async fn with_credentials() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (settings, credentials) = operator::write(folder.path());
    let access = Access { credentials: Some(credentials.clone()), ..Access::open() };
    let site = Site::with(Nats::guarded(&["--config", settings.to_str().unwrap()], access).await).await;
    let with = |file| site.relay().set("PASSBOOK_RELAY_NATS_CREDENTIALS_FILE", file);

    let sentence = refusal(site.start_relay().await).await;
    assert!(sentence.contains("does not let this relay in"), "{sentence}");
    let (_, of_others) = operator::write(other.path());
    let sentence = refusal(started(with(of_others)).await).await;
    assert!(sentence.contains("does not let this relay in"), "{sentence}");
    let nonsense = folder.path().join("nonsense");
    fs::write(&nonsense, "nonsense").unwrap();
    let sentence = refusal(started(with(nonsense)).await).await;
    assert!(sentence.contains("PASSBOOK_RELAY_NATS_CREDENTIALS_FILE"), "{sentence}");

    let relay = started(with(credentials)).await;
    site.is_noted().await;
    site.stream_is_the_log().await;
    stop(relay).await;
}

async fn started(relay: Passbook) -> Running {
    spawn_blocking(|| relay.start()).await.unwrap()
}
