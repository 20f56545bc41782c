//! A relay with a NATS server that requires TLS and authentication.

use std::fs;

use passbook_testkit::{
    process::{Passbook, Running},
    tls::Identity,
};
use tokio::task::spawn_blocking;

use crate::{
    nats::{Access, Nats},
    nats_operator,
    testbed::{Testbed, eventually, stop, wait_for_error},
};

#[tokio::test]
async fn a_relay_publishes_over_tls_with_user_and_password() {
    // The NATS client of the test uses the default crypto provider of the process.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    let identity = Identity::self_signed();
    let [certificate, key] = [identity.certificate(), identity.key()].map(|file| file.display().to_string());
    let arguments = ["--tls", "--tlscert", &certificate, "--tlskey", &key, "--user", "bank", "--pass", "right"];
    let certificate = Some(identity.certificate());
    let access = Access { scheme: "tls", user: Some(("bank", "right")), certificate, ..Access::open() };
    let testbed = Testbed::with(Nats::with_access(&arguments, access).await).await;

    let untrusting = started(testbed.relay_command()).await;
    let waits = async || untrusting.process.stderr().contains("publishing failed; retrying");
    eventually("the log line of a failed publish", waits).await;
    assert!(untrusting.process.stderr().contains("certificate"), "{}", untrusting.process.stderr());
    stop(untrusting).await;
    assert_eq!(testbed.nats.last_sequence().await, None);

    let trusting = |relay: Passbook| relay.set("SSL_CERT_FILE", identity.certificate());
    let wrong = testbed.nats.url().replace("right", "wrong");
    let error =
        wait_for_error(started(trusting(testbed.relay_command()).set("PASSBOOK_RELAY_NATS_URL", wrong)).await).await;
    assert!(error.contains("rejected the relay's login") && !error.contains("wrong"), "{error}");

    let relay = started(trusting(testbed.relay_command())).await;
    testbed.wait_for_checkpoint().await;
    testbed.assert_streams_match_log().await;
    stop(relay).await;
}

#[tokio::test]
async fn a_relay_publishes_with_a_credentials_file() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (settings, credentials) = nats_operator::write(folder.path());
    let access = Access { credentials: Some(credentials.clone()), ..Access::open() };
    let testbed = Testbed::with(Nats::with_access(&["--config", settings.to_str().unwrap()], access).await).await;
    let with = |file| testbed.relay_command().set("PASSBOOK_RELAY_NATS_CREDENTIALS_FILE", file);

    let error = wait_for_error(testbed.start_relay().await).await;
    assert!(error.contains("rejected the relay's login"), "{error}");
    let (_, foreign_credentials) = nats_operator::write(other.path());
    let error = wait_for_error(started(with(foreign_credentials)).await).await;
    assert!(error.contains("rejected the relay's login"), "{error}");
    let invalid = folder.path().join("invalid");
    fs::write(&invalid, "not credentials").unwrap();
    let error = wait_for_error(started(with(invalid)).await).await;
    assert!(error.contains("PASSBOOK_RELAY_NATS_CREDENTIALS_FILE"), "{error}");

    let relay = started(with(credentials)).await;
    testbed.wait_for_checkpoint().await;
    testbed.assert_streams_match_log().await;
    stop(relay).await;
}

async fn started(relay: Passbook) -> Running {
    spawn_blocking(|| relay.start()).await.unwrap()
}
