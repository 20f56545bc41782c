//! Token buckets that limit the requests of each caller (the generic cell rate algorithm).
//!
//! Invalid access tokens have buckets of their own, because verifying one costs more than any other rejected request.

use std::{
    net::IpAddr,
    num::{NonZeroU32, NonZeroUsize},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::http::HeaderValue;
use governor::{
    InsufficientCapacity, NotUntil, Quota,
    clock::{Clock, DefaultClock, QuantaInstant},
    middleware::StateInformationMiddleware,
    state::keyed::DefaultKeyedStateStore,
};
use lru::LruCache;

use super::extract::client_ip::{ClientKey, network};

/// The invalid tokens that an address may send at once, and per minute.
const BAD_TOKENS_PER_MINUTE: NonZeroU32 = NonZeroU32::new(60).expect("not zero");
/// The largest number of banned addresses in memory.
const BANNED_ADDRESSES_MAX: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");
/// The number of buckets from which on full buckets are removed.
const BUCKETS_BEFORE_SWEEP: usize = 10_000;
/// The shortest pause between two such removals, in milliseconds.
const SWEEP_MS: u64 = 1_000;

type Buckets<K> = governor::RateLimiter<K, DefaultKeyedStateStore<K>, DefaultClock, StateInformationMiddleware>;

/// The buckets of all callers.
pub struct RateLimiter {
    requests: Buckets<ClientKey>,
    policy: HeaderValue,
    burst: u32,
    /// How long an empty bucket takes to be full.
    full_after: Duration,
    bad_tokens: Buckets<IpAddr>,
    banned: Mutex<LruCache<IpAddr, Instant>>,
    swept_at: Mutex<Instant>,
}

impl RateLimiter {
    /// Allows each caller `per_second` requests per second in the long run, and `burst` requests at once.
    pub fn new(per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        let window_s = burst.get().div_ceil(per_second.get());
        let policy = format!("\"default\";q={burst};w={window_s}");
        Self {
            requests: buckets(Quota::per_second(per_second).allow_burst(burst)),
            policy: HeaderValue::from_str(&policy).expect("digits and ASCII"),
            burst: burst.get(),
            full_after: Duration::from_secs(window_s.into()),
            bad_tokens: buckets(Quota::per_minute(BAD_TOKENS_PER_MINUTE)),
            banned: Mutex::new(LruCache::new(BANNED_ADDRESSES_MAX)),
            swept_at: Mutex::new(Instant::now()),
        }
    }

    /// The value of the header `RateLimit-Policy`.
    pub fn policy(&self) -> &HeaderValue {
        &self.policy
    }

    /// Checks that a token from this address may be verified.
    ///
    /// # Errors
    /// How long the address is still banned.
    pub fn check_token_attempts(&self, address: IpAddr) -> Result<(), Duration> {
        let mut banned = self.banned.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(until) = banned.get(&network(address)) else { return Ok(()) };
        let remaining = until.saturating_duration_since(Instant::now());
        if remaining.is_zero() {
            banned.pop(&network(address));
            return Ok(());
        }
        Err(remaining)
    }

    /// Counts an invalid token from this address, and bans the address if it sent too many.
    pub fn record_bad_token(&self, address: IpAddr) {
        let address = network(address);
        if let Err(not_until) = self.bad_tokens.check_key(&address) {
            let until = Instant::now() + wait(&not_until);
            self.banned.lock().unwrap_or_else(PoisonError::into_inner).put(address, until);
        }
    }

    /// Takes one request from a bucket and returns how many remain.
    ///
    /// # Errors
    /// How long the caller must wait for the next request.
    pub fn take(&self, key: &ClientKey) -> Result<u32, Duration> {
        self.sweep();
        let taken = self.requests.check_key(key);
        taken.map(|state| state.remaining_burst_capacity()).map_err(|not_until| wait(&not_until))
    }

    /// Takes `requests` from a bucket at once, or none of them, and returns how many remain.
    ///
    /// # Errors
    /// How long the caller must wait for them. More than a full bucket has are never available; the wait is then that for a full bucket.
    pub fn take_many(&self, key: &ClientKey, requests: NonZeroU32) -> Result<u32, Duration> {
        match self.requests.check_key_n(key, requests) {
            Ok(taken) => taken.map(|state| state.remaining_burst_capacity()).map_err(|not_until| wait(&not_until)),
            Err(InsufficientCapacity(_)) => Err(self.full_after),
        }
    }

    /// How many requests a caller may send at once.
    pub fn burst(&self) -> u32 {
        self.burst
    }

    /// Removes full buckets. A missing bucket counts as full.
    fn sweep(&self) {
        let Ok(mut swept_at) = self.swept_at.try_lock() else { return };
        if swept_at.elapsed() < Duration::from_millis(SWEEP_MS) {
            return;
        }
        *swept_at = Instant::now();
        // Counting locks all shards, hence at most once per SWEEP_MS.
        if self.requests.len() + self.bad_tokens.len() >= BUCKETS_BEFORE_SWEEP {
            self.requests.retain_recent();
            self.bad_tokens.retain_recent();
        }
    }
}

fn buckets<K: Clone + Eq + std::hash::Hash>(quota: Quota) -> Buckets<K> {
    governor::RateLimiter::keyed(quota).with_middleware()
}

fn wait(not_until: &NotUntil<QuantaInstant>) -> Duration {
    not_until.wait_time_from(DefaultClock::default().now())
}

/// The value of the header `RateLimit` if so many requests remain.
pub fn remaining_header(remaining: u32) -> HeaderValue {
    HeaderValue::try_from(format!("\"default\";r={remaining}")).expect("digits and ASCII")
}

/// The value of the header `RateLimit` if the next request must wait for so many seconds.
pub fn exhausted_header(seconds: u64) -> HeaderValue {
    HeaderValue::try_from(format!("\"default\";r=0;t={seconds}")).expect("digits and ASCII")
}

/// A wait in seconds, rounded up to at least 1, because a retry after 0 s would be rejected again.
pub fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_millis().div_ceil(1_000) as u64).max(1)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn nonzero(n: u32) -> NonZeroU32 {
        NonZeroU32::new(n).expect("not zero")
    }

    #[test]
    fn each_caller_has_a_bucket_of_its_own() {
        let limiter = RateLimiter::new(nonzero(1), nonzero(3));
        let [ada, ben] = ["ada", "ben"].map(|subject| ClientKey::Caller(Arc::from(subject)));
        assert_eq!([(); 3].map(|()| limiter.take(&ada)), [Ok(2), Ok(1), Ok(0)]);
        let wait = limiter.take(&ada).expect_err("an empty bucket");
        assert!(wait <= Duration::from_secs(1), "{wait:?}");
        assert_eq!(limiter.take(&ben), Ok(2));
    }

    #[test]
    fn many_requests_are_taken_at_once_or_not_at_all() {
        let limiter = RateLimiter::new(nonzero(1), nonzero(10));
        let ada = ClientKey::Caller(Arc::from("ada"));
        assert_eq!(limiter.take_many(&ada, nonzero(4)), Ok(6));
        let wait = limiter.take_many(&ada, nonzero(8)).expect_err("6 remain");
        assert!(wait <= Duration::from_secs(2), "{wait:?}");
        assert_eq!(limiter.take_many(&ada, nonzero(6)), Ok(0), "the refused ones were not taken");
        assert_eq!(limiter.take_many(&ada, nonzero(11)), Err(Duration::from_secs(10)));
    }

    #[test]
    fn an_address_is_banned_after_too_many_invalid_tokens() {
        let limiter = RateLimiter::new(nonzero(1), nonzero(1));
        let [bad, neighbour, other] = ["2001:db8:0:1::1", "2001:db8:0:1::2", "2001:db8:0:2::1"]
            .map(|address| address.parse().expect("an address"));
        for _ in 0..BAD_TOKENS_PER_MINUTE.get() {
            limiter.record_bad_token(bad);
            assert!(limiter.check_token_attempts(bad).is_ok());
        }
        limiter.record_bad_token(bad);
        assert!(limiter.check_token_attempts(bad).is_err());
        assert!(limiter.check_token_attempts(neighbour).is_err(), "one customer's network counts as one address");
        assert!(limiter.check_token_attempts(other).is_ok());
    }

    #[test]
    fn a_sweep_removes_full_buckets() {
        let limiter = RateLimiter::new(nonzero(u32::MAX), nonzero(1));
        for n in 0..BUCKETS_BEFORE_SWEEP {
            let _ = limiter.take(&ClientKey::Caller(n.to_string().into()));
        }
        *limiter.swept_at.lock().expect("a lock") = Instant::now() - Duration::from_millis(SWEEP_MS);
        limiter.sweep();
        assert!(limiter.requests.len() < BUCKETS_BEFORE_SWEEP / 2, "{}", limiter.requests.len());
    }
}
