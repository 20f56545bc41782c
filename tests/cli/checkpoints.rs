//! Checkpoints as an auditor uses them: kept in files, and verified later against the log with a kept key.

use std::{fs, path::PathBuf, process::Command};

use base64::{Engine, prelude::BASE64_STANDARD};
use nix::sys::signal::Signal;
use passbook_testkit::{
    folder::Folder,
    postgres_server::PostgresServer,
    process::{Exited, Passbook, Running},
    service_client::Client,
};
use serde_json::Value;
use sqlx::{Connection, PgConnection, raw_sql};

/// Changes the metadata of an event, and computes its hash and all later ones as the service does.
const REWRITE: &str = r#"
CREATE FUNCTION field(bytes bytea) RETURNS bytea LANGUAGE sql AS 'SELECT int4send(octet_length(bytes)) || bytes';
ALTER TABLE event DISABLE TRIGGER event_immutable;
UPDATE event SET metadata = replace(metadata::text, '"user_id":"', '"user_id":"not-')::json WHERE position = 2;
DO $$
DECLARE
    previous bytea := decode(repeat('00', 32), 'hex');
    e        event%ROWTYPE;
BEGIN
    FOR e IN SELECT * FROM event ORDER BY position LOOP
        previous := sha256(
            previous || field(int2send(e.partition)) || field(int8send(e.position)) || field(uuid_send(e.id))
            || field(uuid_send(e.stream_id)) || field(int8send(e.version)) || field(convert_to(e.type, 'UTF8'))
            || field(int2send(e.schema_version)) || field(convert_to(e.data::text, 'UTF8'))
            || field(convert_to(e.metadata::text, 'UTF8'))
            || field(int8send((extract(epoch FROM e.recorded_at) * 1000000)::bigint))
        );
        UPDATE event SET hash = previous WHERE position = e.position;
    END LOOP;
    UPDATE log_head SET hash = previous;
END
$$;
"#;

/// A data folder, and the files of an auditor beside it.
struct Bank(Folder);

impl Bank {
    fn start(&self) -> Running {
        Passbook::in_folder(&self.0).start()
    }

    fn stop(&self, service: Running) {
        assert_eq!(service.stop(Signal::SIGTERM).status.code(), Some(0));
        self.0.wait_until_unused();
    }

    /// Keeps a checkpoint of now.
    async fn keep(&self, client: &Client, name: &str) -> String {
        let response = client.get("/v1/log/checkpoint").await;
        assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
        self.write(name, &response.error_for_status().unwrap().bytes().await.unwrap())
    }

    fn write(&self, name: &str, content: &[u8]) -> String {
        let path: PathBuf = self.0.join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn verify(&self, arguments: &[&str]) -> Exited {
        let passbook = Passbook::in_folder(&self.0).argument("verify");
        arguments.iter().fold(passbook, |passbook, argument| passbook.argument(argument)).wait_for_exit()
    }
}

/// The public keys of the log, the current one last.
async fn keys(client: &Client) -> Vec<String> {
    let body: Value = client.get("/v1/log/keys").await.error_for_status().unwrap().json().await.unwrap();
    let keys = body["data"].as_array().unwrap().iter();
    keys.map(|key| key["key"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn assert_verified(ended: &Exited) {
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
}

#[track_caller]
fn assert_finding(ended: &Exited, parts: &[&str]) {
    let reason = ended.reason();
    for part in parts {
        assert!(reason.contains(part), "{part:?} is missing: {reason}");
    }
}

#[tokio::test]
async fn the_log_contains_the_checkpoints_that_were_kept() {
    let bank = Bank(Folder::migrated());
    let service = bank.start();
    let empty = bank.keep(&service.client, "empty").await;
    service.client.open_account().await;
    let first = bank.keep(&service.client, "first").await;
    service.client.deposit_ok("1").await;
    let second = bank.keep(&service.client, "second").await;
    let [key] = &keys(&service.client).await[..] else { panic!("the log has several keys") };

    let files = ["--checkpoint", &empty, "--checkpoint", &second, "--checkpoint", &first];
    let beside = bank.verify(&[&files[..], &["--log-key", key]].concat());
    assert_verified(&beside);
    assert!(beside.stdout.join("\n").contains("The log contains the checkpoints"), "{beside:?}");
    service.client.deposit_ok("2").await;
    bank.stop(service);
    let alone = bank.verify(&[&files[..], &["--json"]].concat());
    assert_verified(&alone);
    assert_eq!(serde_json::from_str::<Value>(&alone.stdout[0]).unwrap()["verified"], true);
    assert!(alone.stderr.contains("name a kept key with --log-key"), "{alone:?}");
}

#[tokio::test]
async fn openssl_verifies_a_checkpoint() {
    let bank = Bank(Folder::migrated());
    let service = bank.start();
    service.client.open_account().await;
    let note = fs::read_to_string(bank.keep(&service.client, "note").await).unwrap();
    let key = keys(&service.client).await.remove(0);
    let (text, signature) = note.split_once("\n\n").unwrap();
    let heads: Value = service.client.get("/v1/log/head").await.json().await.unwrap();
    let head = &heads["data"][0];
    let expected = format!("0 {} {}", head["position"].as_str().unwrap(), head["hash"].as_str().unwrap());
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines.len(), lines[0], lines[1]), (3, key.split('+').next().unwrap(), expected.as_str()));

    // The last 32 bytes of the key and the last 64 of the signature, behind the header of RFC 8410.
    let public = BASE64_STANDARD.decode(key.splitn(3, '+').last().unwrap()).unwrap();
    let public = [&b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00"[..], &public[1..]].concat();
    let signature = BASE64_STANDARD.decode(signature.trim_end().rsplit_once(' ').unwrap().1).unwrap();
    let (text_file, key_file) = (bank.write("text", format!("{text}\n").as_bytes()), bank.write("key", &public));
    let signature_file = bank.write("signature", &signature[4..]);
    let verify = |text: &str| {
        let arguments = ["pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", &key_file, "-rawin", "-in", text];
        let output = Command::new("openssl").args(arguments).args(["-sigfile", &signature_file]).output();
        output.expect("this test needs openssl 3").status.success()
    };
    assert!(verify(&text_file));
    assert!(!verify(&bank.write("other", format!("{text} \n").as_bytes())));
}

#[tokio::test]
async fn a_log_that_was_rewritten_with_fitting_hashes_is_detected() {
    let bank = Bank(Folder::migrated());
    let service = bank.start();
    service.client.open_account().await;
    let before = bank.keep(&service.client, "before").await;
    service.client.deposit_ok("1").await;
    service.client.deposit_ok("2").await;
    let after = bank.keep(&service.client, "after").await;
    let key = keys(&service.client).await.remove(0);
    bank.stop(service);

    let service = bank.start();
    let mut superuser = PgConnection::connect(&bank.0.database_url()).await.unwrap();
    raw_sql(REWRITE).execute(&mut superuser).await.unwrap();
    superuser.close().await.unwrap();
    let rewritten = bank.verify(&[]);
    assert_verified(&rewritten);
    let expected = ["--checkpoint", &before, "--checkpoint", &after, "--log-key", &key];
    assert_finding(&bank.verify(&expected), &["position 3", "checkpoint", &after, "the log was rewritten"]);
    assert_verified(&bank.verify(&["--checkpoint", &before, "--log-key", &key]));
    bank.stop(service);
}

#[tokio::test]
async fn a_log_that_a_restore_has_cut_off_is_detected() {
    let bank = Bank(Folder::migrated());
    let service = bank.start();
    service.client.open_account().await;
    let kept = bank.keep(&service.client, "kept").await;
    bank.stop(service);
    let copy = |from: PathBuf, to: PathBuf| {
        assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
    };
    copy(bank.0.data(), bank.0.join("backup"));

    let service = bank.start();
    service.client.deposit_ok("1").await;
    let lost = bank.keep(&service.client, "lost").await;
    let key = keys(&service.client).await.remove(0);
    bank.stop(service);
    fs::remove_dir_all(bank.0.data()).unwrap();
    copy(bank.0.join("backup"), bank.0.data());
    assert_verified(&bank.verify(&["--checkpoint", &kept, "--log-key", &key]));
    let expected = ["--checkpoint", &kept, "--checkpoint", &lost, "--log-key", &key];
    assert_finding(&bank.verify(&expected), &["the log ends before the checkpoint", &lost, "position 2"]);

    // The restored log goes on. Its checkpoints and the lost one contradict each other.
    let service = bank.start();
    service.client.deposit_ok("2").await;
    let other = bank.keep(&service.client, "other").await;
    bank.stop(service);
    let expected = ["--checkpoint", &lost, "--checkpoint", &other, "--log-key", &key];
    assert_finding(&bank.verify(&expected), &["different hashes at position 2", &lost, &other]);
}

#[tokio::test]
async fn a_replaced_key_verifies_only_what_it_signed_in_its_time() {
    let bank = Bank(Folder::migrated());
    let service = bank.start();
    service.client.open_account().await;
    let before = bank.keep(&service.client, "before").await;
    let rotated = Passbook::in_folder(&bank.0).argument("rotate-log-key").wait_for_exit();
    assert_verified(&rotated);
    let after = bank.keep(&service.client, "after").await;
    let [old, new] = &keys(&service.client).await[..] else { panic!("the log does not have two keys") };
    assert_eq!(&rotated.stdout, std::slice::from_ref(new), "no instance restarts for the new key");

    let files = ["--checkpoint", &before, "--checkpoint", &after];
    assert_verified(&bank.verify(&[&files[..], &["--log-key", old, "--log-key", new]].concat()));
    assert_verified(&bank.verify(&files));
    for (file, other_key) in [(&after, old), (&before, new)] {
        let ended = bank.verify(&["--checkpoint", file, "--log-key", other_key]);
        assert_finding(&ended, &[file, "none of the accepted keys signed it"]);
    }

    let mut superuser = PgConnection::connect(&bank.0.database_url()).await.unwrap();
    let private = "SELECT count(sealed_private_key) FROM log_key";
    assert_eq!(sqlx::query_scalar::<_, i64>(private).fetch_one(&mut superuser).await.unwrap(), 1);
    // As if the former key had been replaced an hour ago, and had signed since.
    let earlier =
        "UPDATE log_key SET valid_from = valid_from - interval '2 hours', valid_until = valid_until - interval '1 hour'
                   WHERE number = 1";
    raw_sql(earlier).execute(&mut superuser).await.unwrap();
    superuser.close().await.unwrap();
    let ended = bank.verify(&["--checkpoint", &before, "--log-key", old]);
    assert_finding(&ended, &[&before, old, "another party may have the private key"]);
    bank.stop(service);
}

#[tokio::test]
async fn files_and_keys_that_do_not_fit_are_refused_with_their_name() {
    let bank = Bank(Folder::migrated());
    let service = bank.start();
    service.client.open_account().await;
    let kept = bank.keep(&service.client, "kept").await;
    let key = keys(&service.client).await.remove(0);
    let note = fs::read(&kept).unwrap();
    let mut changed = note.clone();
    changed[60] ^= 1;
    let changed = bank.write("changed", &changed);
    assert_finding(&bank.verify(&["--checkpoint", &changed, "--log-key", &key]), &[&changed, "was changed"]);
    let cut = bank.write("cut", &note[..note.len() - 10]);
    assert_finding(&bank.verify(&["--checkpoint", &cut]), &[&cut, "it is not a signed note"]);
    let missing = bank.0.join("missing");
    assert_finding(&bank.verify(&["--checkpoint", missing.to_str().unwrap()]), &["missing", "cannot be read"]);

    let mut wrong = key.clone().into_bytes();
    wrong.swap(20, 21);
    let ended = bank.verify(&["--checkpoint", &kept, "--log-key", str::from_utf8(&wrong).unwrap()]);
    assert_eq!(ended.status.code(), Some(2), "{ended:?}");
    assert!(ended.stderr.contains("--log-key"), "{ended:?}");
    let foreign = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    let ended = bank.verify(&["--checkpoint", &kept, "--log-key", foreign, "--json"]);
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let verdict: Value = serde_json::from_str(&ended.stdout[0]).unwrap();
    assert!(
        verdict["verified"] == false && verdict["finding"].as_str().unwrap().contains("accepted keys"),
        "{verdict}"
    );
    bank.stop(service);
}

#[tokio::test]
async fn a_log_that_was_copied_is_another_log() {
    let folder = Folder::empty();
    let server = PostgresServer::start(&folder).await;
    for database in ["old", "new"] {
        server.execute(&format!("CREATE DATABASE {database}"), "passbook").await;
    }
    let url = |database: &str| server.url().replace("/passbook?", &format!("/{database}?"));
    let bank = Bank(folder);
    let key_file = bank.write("keys", b"YW5vdGhlciBrZXkgb2YgdGhlc2UgdGVzdHMhISEhISE=\n");
    fs::set_permissions(&key_file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let passbook = |database: &str| Passbook::with_database(&url(database)).set("PASSBOOK_KEY_FILE", &key_file);

    let service = passbook("old").start();
    service.client.open_account().await;
    service.client.deposit_ok("1").await;
    let kept = bank.keep(&service.client, "kept").await;
    let old_key = keys(&service.client).await.remove(0);
    assert_verified(&service.stop(Signal::SIGTERM));
    let copy = ["copy", "--to", &url("new"), "--partitions", "3"];
    let copied = copy.iter().fold(passbook("old"), |passbook, argument| passbook.argument(argument)).wait_for_exit();
    assert_verified(&copied);

    let service = passbook("new").start();
    service.client.deposit_ok("2").await;
    let moved = bank.keep(&service.client, "moved").await;
    let new_key = keys(&service.client).await.remove(0);
    let verify = |database: &str, file: &str, key: &str| {
        let arguments = ["verify", "--checkpoint", file, "--log-key", key];
        arguments.iter().fold(passbook(database), |passbook, argument| passbook.argument(argument)).wait_for_exit()
    };
    assert_finding(&verify("new", &kept, &old_key), &[&kept, "passbook copy", "the database from which it was copied"]);
    assert_verified(&verify("old", &kept, &old_key));
    assert_verified(&verify("new", &moved, &new_key));
    assert_verified(&service.stop(Signal::SIGTERM));
}
