//! A token issuer: keys for every supported algorithm, and tokens that must be rejected.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::Utc;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, jwk::Jwk};
use passbook_auth::development::generate_key;
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair},
};
use serde_json::{Value, json};

/// A key that protects nothing: ring does not generate RSA keys (PKCS #1, made with `openssl genrsa -traditional
/// 2048`).
const RSA_2048: &[u8] = include_bytes!("../fixtures/rsa_2048.der");

/// The issuer of the tokens.
pub const ISSUER: &str = "https://id.example";
/// The audience of the tokens.
pub const AUDIENCE: &str = "passbook";

/// A private key with a key id.
#[derive(Clone)]
pub struct Signer {
    id: String,
    algorithm: Algorithm,
    key: EncodingKey,
}

impl Signer {
    /// A new key; for the RSA algorithms always the same one.
    pub fn new(id: &str, algorithm: Algorithm) -> Self {
        passbook_auth::install_crypto_provider();
        let random = SystemRandom::new();
        let key = match algorithm {
            Algorithm::EdDSA => EncodingKey::from_ed_der(&generate_key().unwrap()),
            Algorithm::ES256 | Algorithm::ES384 => {
                let curve = match algorithm {
                    Algorithm::ES256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
                    _ => &ECDSA_P384_SHA384_FIXED_SIGNING,
                };
                EncodingKey::from_ec_der(EcdsaKeyPair::generate_pkcs8(curve, &random).unwrap().as_ref())
            }
            _ => EncodingKey::from_rsa_der(RSA_2048),
        };
        Self { id: id.to_owned(), algorithm, key }
    }

    /// The public key.
    pub fn jwk(&self) -> Value {
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&self.key, self.algorithm).unwrap()).unwrap();
        jwk["kid"] = json!(self.id);
        jwk["use"] = json!("sig");
        jwk
    }

    /// The same key with another algorithm of its kind.
    pub fn with_algorithm(&self, algorithm: Algorithm) -> Self {
        Self { algorithm, ..self.clone() }
    }

    /// The same key under another key id.
    pub fn with_id(&self, id: &str) -> Self {
        Self { id: id.to_owned(), ..self.clone() }
    }

    /// The header of the tokens that this key signs.
    pub fn header(&self) -> Header {
        Header { kid: Some(self.id.clone()), ..Header::new(self.algorithm) }
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_with(&self.header(), claims)
    }

    /// A token with these claims and another header.
    pub fn sign_with(&self, header: &Header, claims: &Value) -> String {
        encode(header, claims, &self.key).unwrap()
    }

    /// A token signed by HMAC with this secret.
    pub fn sign_with_secret(&self, claims: &Value, secret: &[u8]) -> String {
        let header = Header { alg: Algorithm::HS256, ..self.header() };
        let part = |value: Vec<u8>| BASE64_URL_SAFE_NO_PAD.encode(value);
        let message =
            format!("{}.{}", part(serde_json::to_vec(&header).unwrap()), part(serde_json::to_vec(claims).unwrap()));
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
        format!("{message}.{}", part(signature.as_ref().to_vec()))
    }

    /// A token without a signature, with the algorithm `none`.
    pub fn unsigned(&self, claims: &Value) -> String {
        let signed = self.sign(claims);
        let payload = signed.split('.').nth(1).unwrap();
        // {"alg":"none","typ":"JWT"}
        format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{payload}.")
    }
}

/// A JWKS document.
pub fn jwks(keys: &[Value]) -> String {
    json!({"keys": keys}).to_string()
}

/// The claims of a valid token.
pub fn claims(subject: &str, scope: &str) -> Value {
    json!({"sub": subject, "scope": scope, "iss": ISSUER, "aud": AUDIENCE, "iat": in_seconds(0), "exp": in_seconds(600)})
}

/// The claims of a valid token with some replaced; `null` removes a claim.
pub fn claims_with(subject: &str, scope: &str, others: &Value) -> Value {
    let mut claims = claims(subject, scope);
    for (name, value) in others.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

/// The Unix time in `seconds` seconds.
pub fn in_seconds(seconds: i64) -> i64 {
    Utc::now().timestamp() + seconds
}
