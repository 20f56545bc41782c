//! Public keys (RFC 7517). Each key verifies only the algorithms of its type: a key is never tried with the algorithm of another
//! type. A symmetric key is never accepted.

use std::sync::Arc;

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// How many keys of a set are read; the others are ignored.
const KEYS_MAX: usize = 64;

/// A set of public keys.
#[derive(Default)]
pub struct Jwks {
    keys: Vec<Arc<PublicKey>>,
    /// The SHA-256 of the document; zeros for the empty set. It tells whether a set has changed.
    digest: [u8; 32],
}

/// One public key.
pub struct PublicKey {
    id: Option<String>,
    algorithms: &'static [Algorithm],
    /// The key material.
    pub decoding: DecodingKey,
}

impl Jwks {
    /// The supported keys of a JWKS document; others are ignored. `None` if it is not a JWKS document.
    pub fn parse(document: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Document {
            keys: Vec<Value>,
        }
        let Document { keys } = serde_json::from_slice(document).ok()?;
        let keys = keys.into_iter().take(KEYS_MAX).filter_map(|key| PublicKey::new(&serde_json::from_value(key).ok()?));
        Some(Self { keys: keys.map(Arc::new).collect(), digest: Sha256::digest(document).into() })
    }

    /// Whether the set holds no key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether both sets were parsed from the same document.
    pub fn is_same_document(&self, other: &Self) -> bool {
        self.digest == other.digest
    }

    /// The key with this id that supports `algorithm`. Without an id, the only key that does; `None` if several do.
    pub fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<Arc<PublicKey>> {
        let has_id = |key: &&Arc<PublicKey>| id.is_none() || key.id.as_deref() == id;
        let mut matching = self.keys.iter().filter(has_id).filter(|key| key.algorithms.contains(&algorithm));
        let first = matching.next()?;
        (id.is_some() || matching.next().is_none()).then(|| Arc::clone(first))
    }
}

impl PublicKey {
    fn new(jwk: &Jwk) -> Option<Self> {
        if jwk.common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
            return None;
        }
        let algorithms = match jwk.common.key_algorithm {
            Some(algorithm) => supported_algorithms(jwk).iter().find_map(|supported| {
                (KeyAlgorithm::from(*supported) == algorithm).then_some(std::slice::from_ref(supported))
            })?,
            None => supported_algorithms(jwk),
        };
        let decoding = DecodingKey::from_jwk(jwk).ok().filter(|_| !algorithms.is_empty())?;
        Some(Self { id: jwk.common.key_id.clone(), algorithms, decoding })
    }
}

/// The algorithms that a key of this type supports.
fn supported_algorithms(jwk: &Jwk) -> &'static [Algorithm] {
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
