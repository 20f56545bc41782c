//! Instances agree with the database on the wrapping key: which one is first, how it is replaced, and what happens without it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use futures_util::future::join_all;
use passbook_keys::{Fingerprint, KeyFile, KeySource, Keys, Unavailable, WrappingKeys};
use passbook_testkit::{App, spawn_app};
use sqlx::query_scalar;
use tempfile::TempDir;

/// Different keys, as a key file has them.
const KEYS: [&str; 3] = [
    "dGhlIGZpcnN0IGtleSBvZiB0aGVzZSB0ZXN0cyEhISE=\n",
    "dGhlIHNlY29uZCBrZXkgb2YgdGhlc2UgdGVzdHMhISE=\n",
    "dGhlIHRoaXJkIGtleSBvZiB0aGVzZSB0ZXN0cyEhISE=\n",
];

/// A folder of key files, and the database of an app that has recorded no key.
struct Scene {
    app: App,
    folder: TempDir,
}

impl Scene {
    async fn new() -> Self {
        let app = spawn_app().await;
        sqlx::query("DELETE FROM wrapping_key").execute(&mut app.database().await).await.unwrap();
        Self { app, folder: tempfile::tempdir().unwrap() }
    }

    /// Writes a key file that only its owner can read.
    fn file(&self, name: &str, keys: &[&str]) -> PathBuf {
        let path = self.folder.path().join(name);
        let _ = fs::remove_file(&path);
        let file = tempfile::NamedTempFile::new_in(self.folder.path()).unwrap();
        fs::write(file.path(), keys.concat()).unwrap();
        file.persist(&path).unwrap();
        path
    }

    /// The keys of an instance that starts with this file.
    async fn start(&self, path: &Path) -> Result<Keys, String> {
        let file = KeyFile::read(&KeySource::Named(path.to_owned())).map_err(|error| error.to_string())?;
        Keys::of_service(file, &mut self.app.database().await).await.map_err(|error| error.to_string())
    }

    async fn recorded(&self) -> Vec<Fingerprint> {
        let found: Vec<Vec<u8>> = query_scalar("SELECT fingerprint FROM wrapping_key ORDER BY number")
            .fetch_all(&mut self.app.database().await)
            .await
            .unwrap();
        found.iter().map(|bytes| Fingerprint::from_slice(bytes).unwrap()).collect()
    }
}

fn fingerprint(key: &str) -> Fingerprint {
    WrappingKeys::parse(key).unwrap().fingerprint()
}

fn available(keys: Result<Keys, String>) -> WrappingKeys {
    keys.unwrap().get().unwrap().clone()
}

fn unavailable(keys: Result<Keys, String>) -> Unavailable {
    keys.unwrap().get().unwrap_err().clone()
}

#[tokio::test]
async fn one_of_several_instances_that_start_first_decides_the_key() {
    let scene = Scene::new().await;
    let paths: Vec<_> = (0..12).map(|number| scene.file(&format!("keys{number}"), &[KEYS[number % 3]])).collect();
    let started = join_all(paths.iter().map(|path| scene.start(path))).await;
    let [recorded] = scene.recorded().await[..] else { panic!("several keys are recorded") };
    let mut winners = 0;
    for (number, keys) in started.into_iter().enumerate() {
        match keys.unwrap() {
            Keys::Available(keys) => {
                assert_eq!(keys.fingerprint(), recorded);
                winners += 1;
            }
            Keys::Unavailable(reason) => {
                assert_eq!(reason, Unavailable::WrongKey { path: paths[number].clone(), recorded });
            }
        }
    }
    assert_eq!(winners, 4, "each instance with the file of the first one");
}

#[tokio::test]
async fn a_new_first_key_replaces_the_recorded_one() {
    let scene = Scene::new().await;
    let before = available(scene.start(&scene.file("before", &[KEYS[0]])).await);
    let sealed = before.seal(b"place", b"secret");
    let after = available(scene.start(&scene.file("after", &[KEYS[1], KEYS[0]])).await);
    assert_eq!(after.fingerprint(), fingerprint(KEYS[1]));
    assert_eq!(after.open(b"place", &sealed).unwrap(), b"secret");
    assert_eq!(scene.recorded().await, [KEYS[0], KEYS[1]].map(fingerprint));

    // An instance with the new key behind the former one is not behind: it opens both and seals as the others do.
    let prepared = available(scene.start(&scene.file("prepared", &[KEYS[0], KEYS[1]])).await);
    assert_eq!(prepared.fingerprint(), fingerprint(KEYS[1]));
    assert!(prepared.seal(b"place", b"secret").starts_with(&after.current_header()));
    assert_eq!(scene.recorded().await.len(), 2);

    let left_behind = unavailable(scene.start(&scene.file("left behind", &[KEYS[0]])).await);
    assert!(matches!(left_behind, Unavailable::WrongKey { recorded, .. } if recorded == fingerprint(KEYS[1])));
    let alone = available(scene.start(&scene.file("alone", &[KEYS[1]])).await);
    assert_eq!(alone.open(b"place", &after.rewrap(b"place", &sealed).unwrap().unwrap()).unwrap(), b"secret");
}

#[tokio::test]
async fn a_new_first_key_without_the_recorded_one_behind_it_is_refused() {
    let scene = Scene::new().await;
    available(scene.start(&scene.file("before", &[KEYS[0]])).await);
    let reason = unavailable(scene.start(&scene.file("after", &[KEYS[1], KEYS[2]])).await);
    let text = reason.to_string();
    assert!(text.contains(&fingerprint(KEYS[0]).to_string()) && text.contains("PASSBOOK_KEY_FILE"), "{text}");
    assert_eq!(scene.recorded().await, [fingerprint(KEYS[0])]);
}

#[tokio::test]
async fn a_missing_file_is_an_error_only_while_nothing_is_sealed() {
    let scene = Scene::new().await;
    let path = scene.folder.path().join("none");
    let error = scene.start(&path).await.unwrap_err();
    assert!(error.contains("does not exist") && error.contains("openssl rand -base64 32"), "{error}");
    available(scene.start(&scene.file("keys", &[KEYS[0]])).await);
    assert_eq!(unavailable(scene.start(&path).await), Unavailable::Lost { path });
}

#[tokio::test]
async fn a_reader_records_nothing_and_creates_no_file() {
    let scene = Scene::new().await;
    let mut connection = scene.app.database().await;
    let absent = scene.folder.path().join("absent");
    let of_reader = async |source: KeySource, connection: &mut sqlx::PgConnection| {
        Keys::of_reader(KeyFile::read(&source).unwrap(), connection).await.unwrap()
    };
    let keys = of_reader(KeySource::DataFolder(absent.clone()), &mut connection).await;
    assert_eq!(keys.get().unwrap_err(), &Unavailable::Lost { path: absent.clone() });
    let first = scene.file("first", &[KEYS[0]]);
    of_reader(KeySource::Named(first.clone()), &mut connection).await.get().unwrap();
    assert!(scene.recorded().await.is_empty() && !absent.exists());

    available(scene.start(&first).await);
    let both = scene.file("both", &[KEYS[1], KEYS[0]]);
    let keys = of_reader(KeySource::Named(both), &mut connection).await;
    assert_eq!(keys.get().unwrap().fingerprint(), fingerprint(KEYS[0]));
    assert_eq!(scene.recorded().await, [fingerprint(KEYS[0])]);
    let keys = of_reader(KeySource::None, &mut connection).await;
    assert_eq!(keys.get().unwrap_err(), &Unavailable::NotNamed { is_recorded: true });
}

#[tokio::test]
async fn a_service_without_its_key_file_moves_money() {
    let mut app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(0).await;
    app.stop().await;
    fs::remove_file(app.config().keys.key_file.as_ref().unwrap()).unwrap();
    app.start_again().await;
    app.client().deposit(account, 500).await.expect(201);
}
