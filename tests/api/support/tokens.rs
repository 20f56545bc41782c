//! Whoever issues tokens: keys of every kind that is taken, and tokens of every kind that is not.

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair},
};
use chrono::Utc;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, jwk::Jwk};
use serde_json::{Value, json};

/// What stands before the key itself in a PKCS #8 document of an RSA key of 2048 bits.
const RSA_2048_PREFIX_BYTES: usize = 26;

pub const ISSUER: &str = "https://id.example";
pub const AUDIENCE: &str = "passbook";

/// A private key with an id.
#[derive(Clone)]
pub struct Signer {
    id: String,
    algorithm: Algorithm,
    key: EncodingKey,
}

impl Signer {
    pub fn new(id: &str, algorithm: Algorithm) -> Self {
        let key = match algorithm {
            Algorithm::EdDSA => {
                EncodingKey::from_ed_der(Ed25519KeyPair::generate().unwrap().to_pkcs8v1().unwrap().as_ref())
            }
            Algorithm::ES256 | Algorithm::ES384 => {
                let curve = match algorithm {
                    Algorithm::ES256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
                    _ => &ECDSA_P384_SHA384_FIXED_SIGNING,
                };
                EncodingKey::from_ec_der(EcdsaKeyPair::generate_pkcs8(curve, &SystemRandom::new()).unwrap().as_ref())
            }
            _ => {
                let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
                let document: Pkcs8V1Der<'_> = pair.as_der().unwrap();
                EncodingKey::from_rsa_der(&document.as_ref()[RSA_2048_PREFIX_BYTES..])
            }
        };
        Self { id: id.to_owned(), algorithm, key }
    }

    /// The public half.
    pub fn jwk(&self) -> Value {
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&self.key, self.algorithm).unwrap()).unwrap();
        jwk["kid"] = json!(self.id);
        jwk["use"] = json!("sig");
        jwk
    }

    /// The same key, which may be good for other algorithms of its kind.
    pub fn with(&self, algorithm: Algorithm) -> Self {
        Self { algorithm, ..self.clone() }
    }

    /// The same key under another id.
    pub fn named(&self, id: &str) -> Self {
        Self { id: id.to_owned(), ..self.clone() }
    }

    pub fn header(&self) -> Header {
        Header { kid: Some(self.id.clone()), ..Header::new(self.algorithm) }
    }

    pub fn sign(&self, claims: &Value) -> String {
        self.sign_with(&self.header(), claims)
    }

    pub fn sign_with(&self, header: &Header, claims: &Value) -> String {
        encode(header, claims, &self.key).unwrap()
    }

    /// A token whose signature is made of what everybody knows.
    pub fn sign_as_if_shared(&self, claims: &Value, secret: &[u8]) -> String {
        let header = Header { alg: Algorithm::HS256, ..self.header() };
        encode(&header, claims, &EncodingKey::from_secret(secret)).unwrap()
    }

    /// A token without a signature that says that it needs none.
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

/// What a good token says.
pub fn claims(subject: &str, scope: &str) -> Value {
    json!({"sub": subject, "scope": scope, "iss": ISSUER, "aud": AUDIENCE, "iat": in_s(0), "exp": in_s(600)})
}

/// The same but for some claims; `null` leaves one out.
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

/// So many seconds from now, as tokens tell time.
pub fn in_s(seconds: i64) -> i64 {
    Utc::now().timestamp() + seconds
}
