//! A NATS server that does not let everybody in, and that nobody on the way can read.

use std::fs;

use tokio::task::spawn_blocking;

use crate::{
    nats::{Access, Nats},
    nats_operator,
    passbook::{Passbook, Running},
    testbed::{Testbed, eventually, wait_for_error, stop},
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
    let testbed = Testbed::with(Nats::with_access(&secured, access).await).await;

    let doubtful = started(testbed.relay_command()).await;
    let waits = async || doubtful.process.stderr().contains("stands still");
    eventually("its word", waits).await;
    assert!(doubtful.process.stderr().contains("certificate"), "{}", doubtful.process.stderr());
    stop(doubtful).await;
    assert_eq!(testbed.nats.last_sequence().await, None);

    let trusting = |relay: Passbook| relay.set("SSL_CERT_FILE", identity.certificate());
    let wrong = testbed.nats.url().replace("right", "wrong");
    let sentence = wait_for_error(started(trusting(testbed.relay_command()).set("PASSBOOK_RELAY_NATS_URL", wrong)).await).await;
    assert!(sentence.contains("does not let this relay in") && !sentence.contains("wrong"), "{sentence}");

    let relay = started(trusting(testbed.relay_command())).await;
    testbed.wait_for_checkpoint().await;
    testbed.assert_streams_match_log().await;
    stop(relay).await;
}

#[tokio::test]
async fn with_credentials() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (settings, credentials) = nats_operator::write(folder.path());
    let access = Access { credentials: Some(credentials.clone()), ..Access::open() };
    let testbed = Testbed::with(Nats::with_access(&["--config", settings.to_str().unwrap()], access).await).await;
    let with = |file| testbed.relay_command().set("PASSBOOK_RELAY_NATS_CREDENTIALS_FILE", file);

    let sentence = wait_for_error(testbed.start_relay().await).await;
    assert!(sentence.contains("does not let this relay in"), "{sentence}");
    let (_, of_others) = nats_operator::write(other.path());
    let sentence = wait_for_error(started(with(of_others)).await).await;
    assert!(sentence.contains("does not let this relay in"), "{sentence}");
    let nonsense = folder.path().join("nonsense");
    fs::write(&nonsense, "nonsense").unwrap();
    let sentence = wait_for_error(started(with(nonsense)).await).await;
    assert!(sentence.contains("PASSBOOK_RELAY_NATS_CREDENTIALS_FILE"), "{sentence}");

    let relay = started(with(credentials)).await;
    testbed.wait_for_checkpoint().await;
    testbed.assert_streams_match_log().await;
    stop(relay).await;
}

async fn started(relay: Passbook) -> Running {
    spawn_blocking(|| relay.start()).await.unwrap()
}
