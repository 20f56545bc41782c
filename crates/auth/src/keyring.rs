//! The keys as they were read last, and when they are read again: for a key that is not known, but not more often than
//! once a minute, or every 2 s without any, whatever anybody sends; and once they are old. Where the source is away, those
//! at hand stay.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use jsonwebtoken::Algorithm;
use tokio::{sync::Mutex, time::Instant};

use super::{
    keys::{Key, Keys},
    source::{Error, Source},
};

/// After a look the next one comes no sooner.
const LOOK_AGAIN_S_MIN: u64 = 60;
/// The same as long as there is no key at all.
const LOOK_AGAIN_KEYLESS_S_MIN: u64 = 2;
/// Keys older than this are read again though all of them are known: one may have been withdrawn.
const KEYS_FRESH_S_MAX: u64 = 600;

/// Where keys are kept, shared with the tasks that read them anew.
pub struct Keyring {
    source: Source,
    state: RwLock<State>,
    /// Only one looks at a time; who waits for it finds what it brought.
    turn: Mutex<()>,
}

#[derive(Clone, Default)]
struct State {
    keys: Arc<Keys>,
    read_at: Option<Instant>,
    looked_at: Option<Instant>,
}

impl Keyring {
    /// Reads the keys. A provider that is away may come back; a file has to be there.
    pub async fn fill(source: Source) -> Result<Arc<Self>, Error> {
        let ring = Self { source, state: RwLock::default(), turn: Mutex::default() };
        match ring.source.read().await {
            Ok(keys) => ring.keep(keys),
            Err(error) if ring.source.may_come_back() => {
                tracing::warn!(%error, "nobody is let in before there are keys");
            }
            Err(error) => return Err(error),
        }
        Ok(Arc::new(ring))
    }

    /// Whether there was never a key.
    pub fn is_empty(&self) -> bool {
        self.state().keys.is_empty()
    }

    /// The key that a token names, if need be after a new look.
    pub async fn find(self: &Arc<Self>, id: Option<&str>, algorithm: Algorithm) -> Option<Arc<Key>> {
        let State { keys, read_at, .. } = self.state();
        let found = keys.find(id, algorithm);
        let is_old = read_at.is_some_and(|at| at.elapsed() > Duration::from_secs(KEYS_FRESH_S_MAX));
        if self.may_look() && (found.is_none() || is_old) {
            let ring = Arc::clone(self);
            // A task of its own, so that a caller who hangs up does not take the look with them.
            let look = tokio::spawn(async move { ring.look().await });
            if found.is_none() {
                let _ = look.await;
            }
        } else if found.is_none() {
            // Somebody may be looking.
            drop(self.turn.lock().await);
        }
        found.or_else(|| self.state().keys.find(id, algorithm))
    }

    async fn look(&self) {
        let _turn = self.turn.lock().await;
        if !self.may_look() {
            return;
        }
        self.change(|state| state.looked_at = Some(Instant::now()));
        match self.source.read().await {
            Ok(keys) => self.keep(keys),
            Err(error) => tracing::warn!(%error, "the keys at hand stay"),
        }
    }

    fn keep(&self, keys: Keys) {
        tracing::info!(keys = keys.len(), "keys for access tokens were read");
        self.change(|state| (state.keys, state.read_at) = (Arc::new(keys), Some(Instant::now())));
    }

    fn may_look(&self) -> bool {
        let State { keys, looked_at, .. } = self.state();
        let pause = if keys.is_empty() { LOOK_AGAIN_KEYLESS_S_MIN } else { LOOK_AGAIN_S_MIN };
        looked_at.is_none_or(|at| at.elapsed() >= Duration::from_secs(pause))
    }

    fn state(&self) -> State {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner));
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;

    const ED25519: &str =
        r#"{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": ""#;

    struct Ring {
        ring: Arc<Keyring>,
        path: PathBuf,
        _folder: tempfile::TempDir,
    }

    impl Ring {
        async fn of(ids: &[&str]) -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("jwks.json");
            fs::write(&path, document(ids)).expect("a file");
            let ring = Keyring::fill(Source::File(path.clone())).await;
            Self { ring: ring.map_err(|error| error.to_string()).expect("a ring"), path, _folder: folder }
        }

        fn now_holds(&self, ids: &[&str]) {
            fs::write(&self.path, document(ids)).expect("a file");
        }

        async fn knows(&self, id: &str) -> bool {
            self.ring.find(Some(id), Algorithm::EdDSA).await.is_some()
        }
    }

    fn document(ids: &[&str]) -> String {
        let keys: Vec<String> = ids.iter().map(|id| format!("{ED25519}{id}\"}}")).collect();
        format!(r#"{{"keys": [{}]}}"#, keys.join(","))
    }

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_key_is_looked_for_at_once_and_then_not_more_often_than_once_a_minute() {
        let ring = Ring::of(&["first"]).await;
        ring.now_holds(&["first", "second"]);
        assert!(ring.knows("second").await);
        ring.now_holds(&["second", "third"]);
        pass(LOOK_AGAIN_S_MIN - 1).await;
        assert!(!ring.knows("third").await);
        assert!(ring.knows("first").await, "nobody has looked, so it is still trusted");
        pass(1).await;
        assert!(ring.knows("third").await);
        assert!(!ring.knows("first").await, "it was withdrawn");
    }

    #[tokio::test(start_paused = true)]
    async fn keys_at_hand_stay_while_the_source_is_away_or_talks_nonsense() {
        let ring = Ring::of(&["first"]).await;
        for source in
            [None, Some("nonsense"), Some(r#"{"keys": []}"#), Some(r#"{"keys": [{"kty": "oct", "k": "AA"}]}"#)]
        {
            match source {
                Some(text) => fs::write(&ring.path, text).expect("a file"),
                None => fs::remove_file(&ring.path).expect("no file"),
            }
            pass(LOOK_AGAIN_S_MIN).await;
            assert!(!ring.knows("second").await);
            assert!(ring.knows("first").await, "{source:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_was_withdrawn_is_forgotten_though_nobody_names_an_unknown_one() {
        let ring = Ring::of(&["first", "second"]).await;
        ring.now_holds(&["second"]);
        assert!(ring.knows("first").await);
        pass(KEYS_FRESH_S_MAX + 1).await;
        assert!(ring.knows("first").await, "found, and looked for behind");
        while ring.knows("first").await {
            tokio::task::yield_now().await;
        }
        assert!(ring.knows("second").await);
    }
}
