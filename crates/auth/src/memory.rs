//! Tokens that were verified a moment ago: a signature costs more than everything else that is done for a request.

use std::{
    num::NonZeroUsize,
    sync::{Mutex, PoisonError},
};

use lru::LruCache;
use sha2::{Digest, Sha256};

use super::caller::Caller;

/// How many tokens are remembered; then the one that was used longest ago goes.
const TOKENS_REMEMBERED_MAX: usize = 10_000;
/// How long one is remembered: for so long a withdrawn key is still good.
const REMEMBERED_S_MAX: u64 = 60;

/// A token as it is remembered: its SHA-256, so that no token can be read out of this memory.
pub type Fingerprint = [u8; 32];

/// What is remembered.
pub struct Memory(Mutex<LruCache<Fingerprint, Remembered>>);

struct Remembered {
    caller: Caller,
    until_s: u64,
}

impl Memory {
    /// Nothing yet.
    pub fn new() -> Self {
        let capacity = NonZeroUsize::new(TOKENS_REMEMBERED_MAX).unwrap_or(NonZeroUsize::MIN);
        Self(Mutex::new(LruCache::new(capacity)))
    }

    /// Whose token it is, if that was verified less than a minute ago and it has not ended since.
    pub fn recall(&self, token: &Fingerprint, now_s: u64) -> Option<Caller> {
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = remembered.get(token)?;
        if now_s < found.until_s {
            return Some(found.caller.clone());
        }
        remembered.pop(token);
        None
    }

    /// Remembers a token that ends at `exp_s`.
    pub fn keep(&self, token: Fingerprint, caller: &Caller, exp_s: u64, now_s: u64) {
        let until_s = exp_s.min(now_s + REMEMBERED_S_MAX);
        if now_s < until_s {
            let remembered = Remembered { caller: caller.clone(), until_s };
            self.0.lock().unwrap_or_else(PoisonError::into_inner).put(token, remembered);
        }
    }
}

/// What a token is remembered by.
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
    fn a_token_is_remembered_for_a_minute_at_the_most() {
        let memory = Memory::new();
        memory.keep(fingerprint("token"), &ada(), NOW_S + 3_600, NOW_S);
        assert_eq!(memory.recall(&fingerprint("token"), NOW_S + REMEMBERED_S_MAX - 1), Some(ada()));
        assert_eq!(memory.recall(&fingerprint("token"), NOW_S + REMEMBERED_S_MAX), None);
        assert_eq!(memory.recall(&fingerprint("token"), NOW_S), None, "forgotten is forgotten");
        assert_eq!(memory.recall(&fingerprint("another"), NOW_S), None);
    }

    #[test]
    fn a_token_is_not_remembered_beyond_its_end() {
        let memory = Memory::new();
        memory.keep(fingerprint("token"), &ada(), NOW_S + 5, NOW_S);
        assert!(memory.recall(&fingerprint("token"), NOW_S + 4).is_some());
        assert!(memory.recall(&fingerprint("token"), NOW_S + 5).is_none());
        memory.keep(fingerprint("ended"), &ada(), NOW_S, NOW_S);
        assert!(memory.recall(&fingerprint("ended"), NOW_S).is_none());
    }

    #[test]
    fn no_more_than_so_many_are_remembered_and_the_one_used_longest_ago_goes() {
        let memory = Memory::new();
        for n in 0..=TOKENS_REMEMBERED_MAX {
            memory.keep(fingerprint(&n.to_string()), &ada(), NOW_S + 60, NOW_S);
        }
        assert_eq!(memory.0.lock().expect("a lock").len(), TOKENS_REMEMBERED_MAX);
        assert!(memory.recall(&fingerprint("0"), NOW_S).is_none());
        assert!(memory.recall(&fingerprint("1"), NOW_S).is_some());
    }
}
