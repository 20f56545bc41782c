//! Public keys, each good for certain algorithms and no others (RFC 7517): a key of one kind is never tried as another,
//! and one that is shared as a secret is never taken.

use std::sync::Arc;

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;

/// How many keys of a set are looked at.
const KEYS_MAX: usize = 64;

/// A set of keys.
#[derive(Default)]
pub struct Keys(Vec<Arc<Key>>);

/// One of them.
pub struct Key {
    id: Option<String>,
    algorithms: &'static [Algorithm],
    /// The key itself.
    pub decoding: DecodingKey,
}

impl Keys {
    /// The keys of a JWKS document that can be used here; others are passed over. `None`: it is no such document.
    pub fn parse(document: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Document {
            keys: Vec<Value>,
        }
        let Document { keys } = serde_json::from_slice(document).ok()?;
        let keys = keys.into_iter().take(KEYS_MAX).filter_map(|key| Key::new(&serde_json::from_value(key).ok()?));
        Some(Self(keys.map(Arc::new).collect()))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The key of this id that is good for `algorithm`. Without an id: the only one that is.
    pub fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<Arc<Key>> {
        let named = |key: &&Arc<Key>| id.is_none() || key.id.as_deref() == id;
        let mut fitting = self.0.iter().filter(named).filter(|key| key.algorithms.contains(&algorithm));
        let first = fitting.next()?;
        (id.is_some() || fitting.next().is_none()).then(|| Arc::clone(first))
    }
}

impl Key {
    fn new(jwk: &Jwk) -> Option<Self> {
        if jwk.common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
            return None;
        }
        let algorithms = match jwk.common.key_algorithm {
            Some(algorithm) => {
                fitting(jwk).iter().find_map(|fit| (word(*fit) == algorithm).then_some(std::slice::from_ref(fit)))?
            }
            None => fitting(jwk),
        };
        let decoding = DecodingKey::from_jwk(jwk).ok().filter(|_| !algorithms.is_empty())?;
        Some(Self { id: jwk.common.key_id.clone(), algorithms, decoding })
    }
}

/// What a key of this kind can be good for at all.
fn fitting(jwk: &Jwk) -> &'static [Algorithm] {
    match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256],
        AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
            EllipticCurve::P256 => &[Algorithm::ES256],
            EllipticCurve::P384 => &[Algorithm::ES384],
            _ => &[],
        },
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => &[Algorithm::EdDSA],
        _ => &[],
    }
}

fn word(algorithm: Algorithm) -> KeyAlgorithm {
    algorithm.into()
}
