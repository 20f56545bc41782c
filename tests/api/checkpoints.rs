//! Checkpoints of a running service: one key for all instances, its life over restarts, and heads that belong to the log.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::future::join_all;
use passbook_audit::verification::{PinnedHead, verify};
use passbook_checkpoint::{LogIdentity, SavedCheckpoint, VerifierKey, check_order, log_id, prepare, public_keys};
use passbook_keys::WrappingKeys;
use passbook_testkit::{App, spawn_app, spawn_app_with};
use sqlx::{query, query_scalar};

async fn note(app: &App) -> Vec<u8> {
    app.client().get("/v1/log/checkpoint").await.expect(200).bytes
}

async fn keys(app: &App) -> Vec<VerifierKey> {
    let listed = app.client().get("/v1/log/keys").await.expect(200);
    listed.data().iter().map(|key| key["key"].as_str().unwrap().parse().unwrap()).collect()
}

/// A note as an auditor opens it, with the keys of the service.
async fn open(app: &App, note: &[u8]) -> SavedCheckpoint {
    SavedCheckpoint::open("note", note, &keys(app).await).unwrap()
}

/// Writes the key file of an app.
fn write_keys(app: &App, keys: &[&str]) {
    fs::write(app.config().keys.key_file.as_deref().unwrap(), keys.concat()).unwrap();
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

/// Another key than that of the tests.
const NEW_KEY: &str = "YW5vdGhlciBrZXkgb2YgdGhlc2UgdGVzdHMhISEhISE=\n";

#[tokio::test]
async fn checkpoints_under_load_belong_to_the_log_and_to_each_other() {
    let app = spawn_app_with(&["--partitions=3"]).await;
    let client = app.client();
    let accounts = join_all((0..8).map(|_| client.open_with_balance(1_000))).await;
    let is_done = Arc::new(AtomicBool::new(false));
    let transfers = (0..4).map(|number| {
        let (client, accounts, is_done) = (client.clone(), accounts.clone(), Arc::clone(&is_done));
        tokio::spawn(async move {
            for turn in 0.. {
                let [from, to] = [number + turn, number + turn + 1].map(|index| accounts[index % accounts.len()]);
                client.transfer(from, to, 1).await;
                if is_done.load(Ordering::Relaxed) {
                    return;
                }
            }
        })
    });
    let transfers: Vec<_> = transfers.collect();
    let mut saved = vec![];
    for _ in 0..30 {
        saved.push(open(&app, &note(&app).await).await);
    }
    is_done.store(true, Ordering::Relaxed);
    for ended in join_all(transfers).await {
        ended.unwrap();
    }
    app.wait_until_projected().await;

    check_order(&saved).unwrap();
    let mut connection = app.database().await;
    let log = LogIdentity {
        id: log_id(&mut connection).await.unwrap(),
        partitions: app.partitions(),
        keys: public_keys(&mut connection).await.unwrap(),
    };
    let mut pinned = vec![];
    for saved in &saved {
        saved.check_log(&log).unwrap();
        let heads = (0..).zip(&saved.checkpoint.heads).filter(|(_, head)| head.position > 0);
        pinned.extend(
            heads.map(|(partition, head)| PinnedHead::new(partition, head.position, &head.hash, "a note".into())),
        );
    }
    let positions: Vec<i64> =
        saved.iter().map(|saved| saved.checkpoint.heads.iter().map(|head| head.position).sum()).collect();
    assert!(positions.is_sorted() && positions.first() < positions.last(), "nothing was recorded: {positions:?}");
    verify(&app.auditor().await, app.partitions(), &pinned, |_, _| ()).await.unwrap();
    // Each of them counts, not only the first or the last one.
    let middle = pinned.len() / 2;
    let PinnedHead { partition, position, .. } = pinned[middle];
    pinned[middle] = PinnedHead::new(partition, position, &[7; 32], "another note".into());
    let error = verify(&app.auditor().await, app.partitions(), &pinned, |_, _| ()).await.unwrap_err().to_string();
    assert!(error.contains(&format!("position {position}: ")) && error.contains("another note"), "{error}");
}

#[tokio::test]
async fn all_instances_sign_with_one_key() {
    let app = spawn_app().await;
    let mut peer = app.spawn_peer().await;
    let (one, other) = (open(&app, &note(&app).await).await, open(&app, &note(&peer).await).await);
    assert_eq!(one.key, other.key);
    assert_eq!(keys(&app).await, [one.key]);
    peer.stop().await;
}

#[tokio::test]
async fn instances_that_start_first_at_once_agree_on_the_key() {
    let app = spawn_app().await;
    for table in ["log_key", "log_identity"] {
        query(sqlx::AssertSqlSafe(format!("DELETE FROM {table}"))).execute(&mut app.database().await).await.unwrap();
    }
    let wrapping = WrappingKeys::parse(&read(app.config().keys.key_file.as_deref().unwrap())).unwrap();
    let prepared = (0..8).map(|_| async { prepare(&wrapping, &mut app.database().await).await });
    for prepared in join_all(prepared).await {
        prepared.unwrap();
    }
    assert_eq!(keys(&app).await.len(), 1);
    open(&app, &note(&app).await).await;
}

#[tokio::test]
async fn the_key_survives_a_replacement_of_the_wrapping_key() {
    let mut app = spawn_app().await;
    let before = open(&app, &note(&app).await).await;
    let old_key = read(app.config().keys.key_file.as_deref().unwrap());
    for file in [&[NEW_KEY, &old_key][..], &[NEW_KEY]] {
        app.stop().await;
        write_keys(&app, file);
        app.start_again().await;
        let after = open(&app, &note(&app).await).await;
        assert_eq!((after.key, after.checkpoint.log_id), (before.key.clone(), before.checkpoint.log_id));
    }
}

#[tokio::test]
async fn without_the_key_file_checkpoints_are_503_and_public_keys_are_listed() {
    let mut app = spawn_app().await;
    let kept = note(&app).await;
    app.stop().await;
    fs::remove_file(app.config().keys.key_file.as_deref().unwrap()).unwrap();
    app.start_again().await;
    let refused = app.client().get("/v1/log/checkpoint").await.expect_problem(503, "storage_unavailable");
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    assert!(refused.text("/detail").contains("no key to sign with"), "{refused:?}");
    open(&app, &kept).await;
}

#[tokio::test]
async fn a_signing_key_of_another_place_is_not_used() {
    let app = spawn_app().await;
    note(&app).await;
    // A superuser may replace the public key, so that auditors trust another one.
    let public: Vec<u8> =
        query_scalar("SELECT public_key FROM log_key").fetch_one(&mut app.database().await).await.unwrap();
    app.sabotage("UPDATE log_key SET public_key = sha256('another')").await;
    app.client().get("/v1/log/checkpoint").await.expect_problem(503, "storage_unavailable");
    query("UPDATE log_key SET public_key = $1").bind(public).execute(&mut app.database().await).await.unwrap();
    note(&app).await;
    app.sabotage("UPDATE log_identity SET id = gen_random_uuid()").await;
    app.client().get("/v1/log/checkpoint").await.expect_problem(503, "storage_unavailable");
}
