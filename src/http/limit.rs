//! How much one caller may ask: a bucket of requests for each, which fills up again with time (the generic cell rate
//! algorithm). Tokens that are not taken are counted apart, because judging one costs more than anything else here.

use std::{
    net::{IpAddr, Ipv6Addr},
    num::{NonZeroU32, NonZeroUsize},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderName, HeaderValue, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use governor::{
    NotUntil, Quota, RateLimiter,
    clock::{Clock, DefaultClock, QuantaInstant},
    middleware::StateInformationMiddleware,
    state::keyed::DefaultKeyedStateStore,
};
use lru::LruCache;

use super::{
    App,
    address::Client,
    problem::{Code, Problem},
};
use passbook_auth::{Access, Caller};

/// How many tokens that are not taken an address may send at once and in a minute.
const FAILURES_PER_MINUTE: NonZeroU32 = NonZeroU32::new(60).expect("not zero");
/// How many addresses are remembered for having sent too many.
const BARRED_ADDRESSES_MAX: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");
/// Beyond so many buckets those that are full again are thrown away.
const BUCKETS_BEFORE_SWEEP: usize = 10_000;
/// How often it is looked.
const SWEEP_MS: u64 = 1_000;
/// Whoever holds one IPv6 address holds the whole network of it that a customer is given.
const IPV6_NETWORK_BITS: u32 = 64;

/// The limit, as <https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/> names it.
pub const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// What is left of it.
pub const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");

type Buckets<K> = RateLimiter<K, DefaultKeyedStateStore<K>, DefaultClock, StateInformationMiddleware>;

/// The buckets of all callers.
pub struct Limits {
    requests: Buckets<Whose>,
    policy: HeaderValue,
    failures: Buckets<IpAddr>,
    barred: Mutex<LruCache<IpAddr, Instant>>,
    swept_at: Mutex<Instant>,
}

/// Whose bucket it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Whose {
    Caller(Arc<str>),
    Address(IpAddr),
}

/// The token was not taken, and need not be judged again for the same request.
#[derive(Clone, Debug)]
pub struct NotTaken(pub Problem);

impl Limits {
    /// Lets each caller ask `per_second` times a second in the long run, and `burst` times at once.
    pub fn new(per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        let window_s = burst.get().div_ceil(per_second.get());
        let policy = format!("\"default\";q={burst};w={window_s}");
        Self {
            requests: buckets(Quota::per_second(per_second).allow_burst(burst)),
            policy: HeaderValue::from_str(&policy).expect("digits and ASCII"),
            failures: buckets(Quota::per_minute(FAILURES_PER_MINUTE)),
            barred: Mutex::new(LruCache::new(BARRED_ADDRESSES_MAX)),
            swept_at: Mutex::new(Instant::now()),
        }
    }

    /// Whether a token from this address may be judged.
    pub fn judges(&self, address: IpAddr) -> Result<(), Problem> {
        let mut barred = self.barred.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(until) = barred.get(&network(address)) else { return Ok(()) };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            barred.pop(&network(address));
            return Ok(());
        }
        Err(too_many("too many tokens from this address were not taken", left))
    }

    /// Counts a token that was not taken.
    pub fn not_taken(&self, address: IpAddr) {
        let address = network(address);
        if let Err(until) = self.failures.check_key(&address) {
            let until = Instant::now() + wait(&until);
            self.barred.lock().unwrap_or_else(PoisonError::into_inner).put(address, until);
        }
    }

    /// Takes one request from a bucket, and says how many are left.
    fn take(&self, whose: &Whose) -> Result<u32, Duration> {
        self.sweep();
        self.requests.check_key(whose).map(|state| state.remaining_burst_capacity()).map_err(|until| wait(&until))
    }

    /// A full bucket is as good as none.
    fn sweep(&self) {
        let Ok(mut swept_at) = self.swept_at.try_lock() else { return };
        if swept_at.elapsed() < Duration::from_millis(SWEEP_MS) {
            return;
        }
        *swept_at = Instant::now();
        // To count them, all of them are locked.
        if self.requests.len() + self.failures.len() >= BUCKETS_BEFORE_SWEEP {
            self.requests.retain_recent();
            self.failures.retain_recent();
        }
    }
}

/// Takes every request from its caller's bucket, or turns it away. Probes are always answered.
pub async fn enforce(State(app): State<App>, request: Request, next: Next) -> Response {
    let Some(limits) = app.limits.as_ref().filter(|_| !matches!(request.uri().path(), "/livez" | "/readyz")) else {
        return next.run(request).await;
    };
    let (mut parts, body) = request.into_parts();
    let Some(whose) = whose(&mut parts, &app).await else { return Problem::of(Code::InternalError).into_response() };
    let (left, mut response) = match limits.take(&whose) {
        Ok(left) => (format!("\"default\";r={left}"), next.run(Request::from_parts(parts, body)).await),
        Err(wait) => {
            let told = format!("\"default\";r=0;t={}", whole_seconds(wait));
            (told, too_many("this caller asks more often than is allowed", wait).into_response())
        }
    };
    response.headers_mut().insert(RATELIMIT_POLICY, limits.policy.clone());
    if let Ok(left) = HeaderValue::from_str(&left) {
        response.headers_mut().insert(RATELIMIT, left);
    }
    response
}

/// The caller where one is named, the address where none is.
async fn whose(parts: &mut Parts, app: &App) -> Option<Whose> {
    if matches!(app.access, Access::Tokens(_)) && parts.headers.contains_key(header::AUTHORIZATION) {
        match Caller::from_request_parts(parts, app).await {
            Ok(caller) => return Some(Whose::Caller(Arc::clone(caller.subject()))),
            Err(problem) => drop(parts.extensions.insert(NotTaken(problem))),
        }
    }
    parts.extensions.get().map(|Client(address)| Whose::Address(network(*address)))
}

/// The network that counts as one.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << (u128::BITS - IPV6_NETWORK_BITS))).into()
        }
    }
}

fn too_many(detail: &str, wait: Duration) -> Problem {
    Problem::rate_limited(detail, whole_seconds(wait))
}

fn buckets<K: Clone + Eq + std::hash::Hash>(quota: Quota) -> Buckets<K> {
    RateLimiter::keyed(quota).with_middleware()
}

fn wait(until: &NotUntil<QuantaInstant>) -> Duration {
    until.wait_time_from(DefaultClock::default().now())
}

/// At least one: who comes back at once is turned away again.
fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_millis().div_ceil(1_000) as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nonzero(n: u32) -> NonZeroU32 {
        NonZeroU32::new(n).expect("not zero")
    }

    #[test]
    fn each_bucket_is_emptied_alone() {
        let limits = Limits::new(nonzero(1), nonzero(3));
        let [ada, ben] = ["ada", "ben"].map(|subject| Whose::Caller(Arc::from(subject)));
        assert_eq!([(); 3].map(|()| limits.take(&ada)), [Ok(2), Ok(1), Ok(0)]);
        let wait = limits.take(&ada).expect_err("an empty bucket");
        assert!(wait <= Duration::from_secs(1), "{wait:?}");
        assert_eq!(limits.take(&ben), Ok(2));
    }

    #[test]
    fn an_address_is_barred_from_trying_tokens_after_a_minute_s_worth_of_bad_ones_and_others_are_not() {
        let limits = Limits::new(nonzero(1), nonzero(1));
        let [bad, neighbour, other] = ["2001:db8:0:1::1", "2001:db8:0:1::2", "2001:db8:0:2::1"]
            .map(|address| address.parse().expect("an address"));
        for _ in 0..FAILURES_PER_MINUTE.get() {
            limits.not_taken(bad);
            assert!(limits.judges(bad).is_ok());
        }
        limits.not_taken(bad);
        assert!(limits.judges(bad).is_err());
        assert!(limits.judges(neighbour).is_err(), "one customer's network is one address");
        assert!(limits.judges(other).is_ok());
    }

    #[test]
    fn buckets_that_are_full_again_are_thrown_away() {
        let limits = Limits::new(nonzero(u32::MAX), nonzero(1));
        for n in 0..BUCKETS_BEFORE_SWEEP {
            let _ = limits.take(&Whose::Caller(n.to_string().into()));
        }
        *limits.swept_at.lock().expect("a lock") = Instant::now() - Duration::from_millis(SWEEP_MS);
        limits.sweep();
        assert!(limits.requests.len() < BUCKETS_BEFORE_SWEEP / 2, "{}", limits.requests.len());
    }
}
