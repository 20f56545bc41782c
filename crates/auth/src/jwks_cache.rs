//! Caches the public keys and refreshes them: once a minute, so that a withdrawn key is noticed, and when a token names an unknown
//! key.
//!
//! There is at most one refresh per minute, or one per 2 s while there is no key. Tokens with invented key ids therefore cannot
//! flood the provider. While the source is unreachable the cached keys stay valid. A document without keys withdraws all of them.

use std::{
    sync::{Arc, PoisonError, RwLock, Weak},
    time::Duration,
};

use jsonwebtoken::Algorithm;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use passbook_telemetry::supervision;

use crate::{
    jwks::{Jwks, PublicKey},
    jwks_source::{Error, JwksSource},
};

/// The pause between two refreshes, in seconds. A withdrawn key is valid for that long, and for the time of one fetch.
const REFRESH_PAUSE_S: u64 = 60;
/// The same while there is no key at all.
const REFRESH_PAUSE_WITHOUT_KEYS_S: u64 = 2;

/// The cached keys of one source.
pub struct JwksCache {
    source: JwksSource,
    state: RwLock<State>,
    /// The number of changes of the keys. A token that was verified before the last change must be verified again.
    changes: watch::Sender<u64>,
    /// Whether a refresh runs: there is one at a time, and waiting callers use its result. They hold no lock, because a caller whose
    /// future is no longer polled would keep it.
    is_refreshing: watch::Sender<bool>,
}

#[derive(Clone)]
struct State {
    keys: Arc<Jwks>,
    loaded_at: Instant,
    refreshed_at: Option<Instant>,
    /// Whether the last read failed. Only the first of several failures gets a warning.
    has_failed: bool,
}

impl State {
    /// When the source may be read again.
    fn next_refresh(&self) -> Instant {
        let pause = if self.keys.is_empty() { REFRESH_PAUSE_WITHOUT_KEYS_S } else { REFRESH_PAUSE_S };
        self.refreshed_at.unwrap_or(self.loaded_at) + Duration::from_secs(pause)
    }

    /// Whether a token with an unknown key may cause a refresh. The first one may do so at once.
    fn allows_refresh(&self) -> bool {
        self.refreshed_at.is_none() || Instant::now() >= self.next_refresh()
    }
}

impl JwksCache {
    /// Loads the keys, and refreshes them while the cache exists. An unreachable provider leaves the cache empty and is retried.
    ///
    /// # Errors
    /// A file cannot be read or holds no key.
    pub async fn load(source: JwksSource) -> Result<Arc<Self>, Error> {
        let (keys, has_failed) = match source.read().await {
            Ok(keys) => (keys, false),
            Err(error) if source.is_retryable() => {
                tracing::warn!(%error, "token keys are not available; every token is refused until they are");
                (Jwks::default(), true)
            }
            Err(error) => return Err(error),
        };
        if !has_failed {
            tracing::info!(keys = keys.len(), "token keys loaded");
        }
        let state = State { keys: Arc::new(keys), loaded_at: Instant::now(), refreshed_at: None, has_failed };
        let (state, changes) = (RwLock::new(state), watch::Sender::new(0));
        let cache = Arc::new(Self { source, state, changes, is_refreshing: watch::Sender::new(false) });
        supervision::spawn("key refresh timer", refresh_regularly(Arc::downgrade(&cache)));
        Ok(cache)
    }

    /// Whether there is no key: none has been loaded yet, or all were withdrawn.
    pub fn is_empty(&self) -> bool {
        self.state().keys.is_empty()
    }

    /// The number of changes of the keys, with a notification of each.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The key with this id that supports `algorithm`, if necessary after a refresh.
    pub async fn find(self: &Arc<Self>, id: Option<&str>, algorithm: Algorithm) -> Option<Arc<PublicKey>> {
        let state = self.state();
        if let Some(found) = state.keys.find(id, algorithm) {
            return Some(found);
        }
        if state.allows_refresh() {
            let cache = Arc::clone(self);
            // A task of its own, so that a client that disconnects does not cancel the refresh.
            let refresh = supervision::spawn("key refresh", async move { cache.refresh().await });
            // A refresh that panicked leaves the cached keys, and the process exits.
            let _ = refresh.await;
        }
        // The refresh of another caller may be running: wait for its result.
        let _ = self.is_refreshing.subscribe().wait_for(|is_refreshing| !is_refreshing).await;
        self.state().keys.find(id, algorithm)
    }

    async fn refresh(&self) {
        let begins = self.is_refreshing.send_if_modified(|is_refreshing| {
            let begins = !*is_refreshing && self.state().allows_refresh();
            *is_refreshing |= begins;
            begins
        });
        if begins {
            let _end = RefreshEnd(&self.is_refreshing);
            self.update(|state| state.refreshed_at = Some(Instant::now()));
            self.read_source().await;
        }
    }

    async fn read_source(&self) {
        match self.source.read().await {
            Ok(keys) => self.store(keys),
            Err(error @ Error::NoKeys(_)) => {
                if !self.is_empty() {
                    tracing::warn!(%error, "the source withdrew all token keys; every token is refused");
                }
                self.store(Jwks::default());
            }
            Err(error) => {
                if !self.state().has_failed {
                    tracing::warn!(%error, "token keys could not be refreshed; the cached keys stay valid");
                }
                self.update(|state| state.has_failed = true);
            }
        }
    }

    fn store(&self, keys: Jwks) {
        let State { keys: old, has_failed, .. } = self.state();
        let has_changed = !keys.is_same_document(&old);
        if has_changed || has_failed {
            tracing::info!(keys = keys.len(), "token keys loaded");
        }
        self.update(|state| (state.keys, state.has_failed) = (Arc::new(keys), false));
        if has_changed {
            self.changes.send_modify(|changes| *changes += 1);
        }
    }

    fn state(&self) -> State {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Ends a refresh when it is dropped, also after a panic.
struct RefreshEnd<'a>(&'a watch::Sender<bool>);

impl Drop for RefreshEnd<'_> {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

/// Refreshes the keys whenever that is allowed, until the cache is dropped. An idle service must notice a withdrawn key, too.
async fn refresh_regularly(cache: Weak<JwksCache>) {
    loop {
        let Some(next) = cache.upgrade().map(|cache| cache.state().next_refresh()) else { return };
        sleep_until(next).await;
        let Some(cache) = cache.upgrade() else { return };
        // A token may have caused a refresh in the meantime.
        if Instant::now() >= cache.state().next_refresh() {
            cache.refresh().await;
        }
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
        advance(REFRESH_PAUSE_S - 1).await;
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
            advance(REFRESH_PAUSE_S).await;
            assert!(!file.finds("second").await);
            assert!(file.finds("first").await, "{source:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_document_without_keys_withdraws_all_keys() {
        for document in [r#"{"keys": []}"#, r#"{"keys": [{"kty": "oct", "k": "AA"}]}"#] {
            let file = CachedFile::with_keys(&["first"]).await;
            fs::write(&file.path, document).expect("a file");
            advance(REFRESH_PAUSE_S).await;
            assert!(!file.finds("second").await);
            assert!(!file.finds("first").await, "{document}");
            assert!(file.cache.is_empty());
            file.replace_keys(&["first"]);
            advance(REFRESH_PAUSE_WITHOUT_KEYS_S).await;
            assert!(file.finds("first").await, "{document}");
        }
    }

    /// Lets other tasks run, without time passing.
    async fn settle() {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_withdrawn_key_is_refused_after_a_minute_without_requests() {
        let file = CachedFile::with_keys(&["first", "second"]).await;
        let changes = file.cache.changes();
        settle().await;
        file.replace_keys(&["second"]);
        assert!(file.finds("first").await);
        advance(REFRESH_PAUSE_S).await;
        settle().await;
        assert!(changes.has_changed().is_ok_and(|changed| changed));
        assert!(!file.finds("first").await);
        assert!(file.finds("second").await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_withdrawn_after_a_refresh_is_refused_a_minute_later() {
        let file = CachedFile::with_keys(&["first"]).await;
        settle().await;
        advance(REFRESH_PAUSE_S - 1).await;
        file.replace_keys(&["first", "second"]);
        assert!(file.finds("second").await, "the unknown key causes a refresh");
        file.replace_keys(&["second"]);
        advance(REFRESH_PAUSE_S).await;
        settle().await;
        assert!(!file.finds("first").await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_without_keys_is_read_again_without_requests() {
        let file = CachedFile::with_keys(&["first"]).await;
        settle().await;
        fs::write(&file.path, r#"{"keys": []}"#).expect("a file");
        advance(REFRESH_PAUSE_S).await;
        settle().await;
        assert!(file.cache.is_empty());
        file.replace_keys(&["first"]);
        advance(REFRESH_PAUSE_WITHOUT_KEYS_S).await;
        settle().await;
        assert!(!file.cache.is_empty(), "an instance without keys is unready, so it may get no request");
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_up_that_is_no_longer_polled_stops_no_refresh() {
        let file = CachedFile::with_keys(&["first"]).await;
        file.cache.update(|state| state.refreshed_at = Some(Instant::now()));
        file.cache.is_refreshing.send_replace(true);
        let mut abandoned = Box::pin(file.finds("second"));
        tokio::select! {
            biased;
            _ = &mut abandoned => panic!("it waits for the refresh"),
            () = settle() => {}
        }
        file.cache.is_refreshing.send_replace(false);
        file.replace_keys(&["second"]);
        advance(REFRESH_PAUSE_S).await;
        assert!(file.finds("second").await);
        assert!(abandoned.await);
    }

    #[tokio::test(start_paused = true)]
    async fn unchanged_keys_keep_verified_tokens() {
        let file = CachedFile::with_keys(&["first"]).await;
        let changes = file.cache.changes();
        settle().await;
        for _ in 0..3 {
            advance(REFRESH_PAUSE_S).await;
            settle().await;
        }
        assert!(changes.has_changed().is_ok_and(|changed| !changed));
        assert!(file.cache.state().refreshed_at.is_some());
    }
}
