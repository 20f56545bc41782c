//! Caches the public keys and refreshes them: when a token names an unknown key, and when the keys are old.
//!
//! Refreshes are limited to one per minute, or one per 2 s while there is no key. Tokens with invented key ids therefore cannot
//! flood the provider. While the source is unreachable the cached keys stay valid. A document
//! without keys withdraws all of them.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use jsonwebtoken::Algorithm;
use tokio::{sync::Mutex, time::Instant};

use passbook_telemetry::supervision;

use crate::{
    jwks::{Jwks, PublicKey},
    jwks_source::{Error, JwksSource},
};

/// The shortest pause between two refreshes, in seconds.
const REFRESH_PAUSE_S_MIN: u64 = 60;
/// The same while there is no key at all.
const REFRESH_PAUSE_WITHOUT_KEYS_S_MIN: u64 = 2;
/// Older keys are refreshed although the key was found: it may have been withdrawn.
const KEYS_AGE_S_MAX: u64 = 600;

/// The cached keys of one source.
pub struct JwksCache {
    source: JwksSource,
    state: RwLock<State>,
    /// Held during a refresh: there is one at a time, and waiting callers use its result.
    refreshing: Mutex<()>,
}

#[derive(Clone, Default)]
struct State {
    keys: Arc<Jwks>,
    read_at: Option<Instant>,
    refreshed_at: Option<Instant>,
}

impl JwksCache {
    /// Loads the keys. An unreachable provider leaves the cache empty and is retried later.
    ///
    /// # Errors
    /// A file cannot be read or holds no key.
    pub async fn load(source: JwksSource) -> Result<Arc<Self>, Error> {
        let cache = Self { source, state: RwLock::default(), refreshing: Mutex::default() };
        match cache.source.read().await {
            Ok(keys) => cache.store(keys),
            Err(error) if cache.source.is_retryable() => {
                tracing::warn!(%error, "token keys are not available; every token is refused until they are");
            }
            Err(error) => return Err(error),
        }
        Ok(Arc::new(cache))
    }

    /// Whether there is no key: none has been loaded yet, or all were withdrawn.
    pub fn is_empty(&self) -> bool {
        self.state().keys.is_empty()
    }

    /// The key with this id that supports `algorithm`, if necessary after a refresh.
    pub async fn find(self: &Arc<Self>, id: Option<&str>, algorithm: Algorithm) -> Option<Arc<PublicKey>> {
        let State { keys, read_at, .. } = self.state();
        let found = keys.find(id, algorithm);
        let is_old = read_at.is_some_and(|at| at.elapsed() > Duration::from_secs(KEYS_AGE_S_MAX));
        if self.refresh_allowed() && (found.is_none() || is_old) {
            let cache = Arc::clone(self);
            // A task of its own, so that a client that disconnects does not cancel the refresh.
            let refresh = supervision::spawn("key refresh", async move { cache.refresh().await });
            if found.is_none() {
                // A refresh that panicked leaves the cached keys, and the process exits.
                let _ = refresh.await;
            }
        } else if found.is_none() {
            // A refresh may be running: wait for its result.
            drop(self.refreshing.lock().await);
        }
        found.or_else(|| self.state().keys.find(id, algorithm))
    }

    async fn refresh(&self) {
        let _refreshing = self.refreshing.lock().await;
        if !self.refresh_allowed() {
            return;
        }
        self.update(|state| state.refreshed_at = Some(Instant::now()));
        match self.source.read().await {
            Ok(keys) => self.store(keys),
            Err(error @ Error::NoKeys(_)) => {
                tracing::warn!(%error, "the source withdrew all token keys; every token is refused");
                self.store(Jwks::default());
            }
            Err(error) => tracing::warn!(%error, "token keys could not be refreshed; the cached keys stay valid"),
        }
    }

    fn store(&self, keys: Jwks) {
        tracing::info!(keys = keys.len(), "token keys loaded");
        self.update(|state| (state.keys, state.read_at) = (Arc::new(keys), Some(Instant::now())));
    }

    fn refresh_allowed(&self) -> bool {
        let State { keys, refreshed_at, .. } = self.state();
        let pause = if keys.is_empty() { REFRESH_PAUSE_WITHOUT_KEYS_S_MIN } else { REFRESH_PAUSE_S_MIN };
        refreshed_at.is_none_or(|at| at.elapsed() >= Duration::from_secs(pause))
    }

    fn state(&self) -> State {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner));
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;

    const ED25519: &str =
        r#"{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": ""#;

    struct CachedFile {
        cache: Arc<JwksCache>,
        path: PathBuf,
        _folder: tempfile::TempDir,
    }

    impl CachedFile {
        async fn with_keys(ids: &[&str]) -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("jwks.json");
            fs::write(&path, document(ids)).expect("a file");
            let cache = JwksCache::load(JwksSource::File(path.clone())).await;
            Self { cache: cache.map_err(|error| error.to_string()).expect("a cache"), path, _folder: folder }
        }

        fn replace_keys(&self, ids: &[&str]) {
            fs::write(&self.path, document(ids)).expect("a file");
        }

        async fn finds(&self, id: &str) -> bool {
            self.cache.find(Some(id), Algorithm::EdDSA).await.is_some()
        }
    }

    fn document(ids: &[&str]) -> String {
        let keys: Vec<String> = ids.iter().map(|id| format!("{ED25519}{id}\"}}")).collect();
        format!(r#"{{"keys": [{}]}}"#, keys.join(","))
    }

    async fn advance(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_key_causes_at_most_one_refresh_a_minute() {
        let file = CachedFile::with_keys(&["first"]).await;
        file.replace_keys(&["first", "second"]);
        assert!(file.finds("second").await);
        file.replace_keys(&["second", "third"]);
        advance(REFRESH_PAUSE_S_MIN - 1).await;
        assert!(!file.finds("third").await);
        assert!(file.finds("first").await, "without a refresh the key is still trusted");
        advance(1).await;
        assert!(file.finds("third").await);
        assert!(!file.finds("first").await, "it was withdrawn");
    }

    #[tokio::test(start_paused = true)]
    async fn cached_keys_stay_while_the_source_is_missing_or_invalid() {
        let file = CachedFile::with_keys(&["first"]).await;
        for source in [None, Some("nonsense"), Some("[]")] {
            match source {
                Some(text) => fs::write(&file.path, text).expect("a file"),
                None => fs::remove_file(&file.path).expect("no file"),
            }
            advance(REFRESH_PAUSE_S_MIN).await;
            assert!(!file.finds("second").await);
            assert!(file.finds("first").await, "{source:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_document_without_keys_withdraws_all_keys() {
        for document in [r#"{"keys": []}"#, r#"{"keys": [{"kty": "oct", "k": "AA"}]}"#] {
            let file = CachedFile::with_keys(&["first"]).await;
            fs::write(&file.path, document).expect("a file");
            advance(REFRESH_PAUSE_S_MIN).await;
            assert!(!file.finds("second").await);
            assert!(!file.finds("first").await, "{document}");
            assert!(file.cache.is_empty());
            file.replace_keys(&["first"]);
            advance(REFRESH_PAUSE_WITHOUT_KEYS_S_MIN).await;
            assert!(file.finds("first").await, "{document}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_withdrawn_key_expires_without_an_unknown_key_id() {
        let file = CachedFile::with_keys(&["first", "second"]).await;
        file.replace_keys(&["second"]);
        assert!(file.finds("first").await);
        advance(KEYS_AGE_S_MAX + 1).await;
        assert!(file.finds("first").await, "found, and refreshed in the background");
        while file.finds("first").await {
            tokio::task::yield_now().await;
        }
        assert!(file.finds("second").await);
    }
}
