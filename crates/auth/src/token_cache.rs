//! Caches verified tokens: checking a signature costs more than the rest of a request.

use std::{
    num::NonZeroUsize,
    ops::Range,
    sync::{Mutex, PoisonError},
};

use lru::LruCache;
use sha2::{Digest, Sha256};

use crate::caller::Caller;

/// How many tokens are cached; beyond that the least recently used one is dropped.
const CACHED_TOKENS_MAX: usize = 10_000;
/// How long a token is cached, unless the keys change.
const CACHED_S_MAX: u64 = 60;

/// The SHA-256 of a token: the cache never holds a token itself.
pub type Fingerprint = [u8; 32];

/// The callers of verified tokens.
pub struct TokenCache(Mutex<LruCache<Fingerprint, CachedToken>>);

struct CachedToken {
    caller: Caller,
    until_s: u64,
    /// The number of changes of the keys when it was verified.
    key_changes: u64,
}

impl TokenCache {
    /// An empty cache.
    pub fn new() -> Self {
        let capacity = NonZeroUsize::new(CACHED_TOKENS_MAX).unwrap_or(NonZeroUsize::MIN);
        Self(Mutex::new(LruCache::new(capacity)))
    }

    /// The caller of a token that was verified within the last minute, and since the last of `key_changes`, and has not expired.
    pub fn get(&self, token: &Fingerprint, key_changes: u64, now_s: u64) -> Option<Caller> {
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = cached.get(token)?;
        if now_s < found.until_s && found.key_changes == key_changes {
            return Some(found.caller.clone());
        }
        cached.pop(token);
        None
    }

    /// Caches a token that was verified after `key_changes` and is valid from now to its expiry (seconds since 1970).
    pub fn insert(&self, token: Fingerprint, caller: &Caller, key_changes: u64, valid_s: Range<u64>) {
        let Range { start: now_s, end: exp_s } = valid_s;
        let until_s = exp_s.min(now_s + CACHED_S_MAX);
        if now_s < until_s {
            let cached = CachedToken { caller: caller.clone(), until_s, key_changes };
            self.0.lock().unwrap_or_else(PoisonError::into_inner).put(token, cached);
        }
    }
}

/// The cache key of a token.
pub fn fingerprint(token: &str) -> Fingerprint {
    Sha256::digest(token).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scopes;

    const NOW_S: u64 = 1_700_000_000;

    fn ada() -> Caller {
        Caller::new("ada", Scopes::all(), u64::MAX)
    }

    #[test]
    fn a_token_is_cached_for_at_most_a_minute() {
        let cache = TokenCache::new();
        cache.insert(fingerprint("token"), &ada(), 0, NOW_S..NOW_S + 3_600);
        assert_eq!(cache.get(&fingerprint("token"), 0, NOW_S + CACHED_S_MAX - 1), Some(ada()));
        assert_eq!(cache.get(&fingerprint("token"), 0, NOW_S + CACHED_S_MAX), None);
        assert_eq!(cache.get(&fingerprint("token"), 0, NOW_S), None, "an expired entry is removed");
        assert_eq!(cache.get(&fingerprint("another"), 0, NOW_S), None);
    }

    #[test]
    fn a_token_is_not_cached_beyond_a_change_of_the_keys() {
        let cache = TokenCache::new();
        cache.insert(fingerprint("token"), &ada(), 7, NOW_S..NOW_S + 3_600);
        assert_eq!(cache.get(&fingerprint("token"), 7, NOW_S), Some(ada()));
        assert_eq!(cache.get(&fingerprint("token"), 8, NOW_S), None);
    }

    #[test]
    fn a_token_is_not_cached_beyond_its_expiry() {
        let cache = TokenCache::new();
        cache.insert(fingerprint("token"), &ada(), 0, NOW_S..NOW_S + 5);
        assert!(cache.get(&fingerprint("token"), 0, NOW_S + 4).is_some());
        assert!(cache.get(&fingerprint("token"), 0, NOW_S + 5).is_none());
        cache.insert(fingerprint("ended"), &ada(), 0, NOW_S..NOW_S);
        assert!(cache.get(&fingerprint("ended"), 0, NOW_S).is_none());
    }

    #[test]
    fn the_least_recently_used_token_is_dropped_from_a_full_cache() {
        let cache = TokenCache::new();
        for n in 0..=CACHED_TOKENS_MAX {
            cache.insert(fingerprint(&n.to_string()), &ada(), 0, NOW_S..NOW_S + 60);
        }
        assert_eq!(cache.0.lock().expect("a lock").len(), CACHED_TOKENS_MAX);
        assert!(cache.get(&fingerprint("0"), 0, NOW_S).is_none());
        assert!(cache.get(&fingerprint("1"), 0, NOW_S).is_some());
    }
}
