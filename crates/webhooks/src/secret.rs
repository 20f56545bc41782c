//! The secret of an endpoint, and the signatures that it makes (Standard Webhooks 1.0).

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, Utc};
use passbook_keys::{OpenError, WrappingKeys};
use ring::rand::{SecureRandom, SystemRandom};
use standardwebhooks::Webhook;
use uuid::Uuid;

/// The length of a secret. The specification asks for 24 to 64 bytes.
const SECRET_BYTES: usize = 32;
/// What begins the text of a secret.
const PREFIX: &str = "whsec_";

/// A secret that an endpoint shares with the service.
pub(crate) struct Secret(Vec<u8>);

impl Secret {
    /// A new random secret; `None` if the system has no random numbers.
    pub(crate) fn generate() -> Option<Self> {
        let mut bytes = vec![0; SECRET_BYTES];
        SystemRandom::new().fill(&mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// The text that the operator of the endpoint gets.
    pub(crate) fn text(&self) -> String {
        format!("{PREFIX}{}", BASE64_STANDARD.encode(&self.0))
    }

    /// The sealed form, for the database.
    pub(crate) fn seal(&self, keys: &WrappingKeys, webhook_id: Uuid) -> Vec<u8> {
        keys.seal(purpose(webhook_id).as_bytes(), &self.0)
    }

    /// Opens a sealed secret.
    ///
    /// # Errors
    /// The keys did not seal it for this endpoint.
    pub(crate) fn open(keys: &WrappingKeys, webhook_id: Uuid, sealed: &[u8]) -> Result<Self, OpenError> {
        keys.open(purpose(webhook_id).as_bytes(), sealed).map(Self)
    }

    /// Seals a sealed secret anew. `None`: the current key sealed it.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) fn rewrap(keys: &WrappingKeys, webhook_id: Uuid, sealed: &[u8]) -> Result<Option<Vec<u8>>, OpenError> {
        keys.rewrap(purpose(webhook_id).as_bytes(), sealed)
    }

    fn sign(&self, id: &str, at: DateTime<Utc>, body: &[u8]) -> Option<String> {
        Webhook::from_bytes(self.0.clone()).ok()?.sign(id, at.timestamp(), body).ok()
    }
}

fn purpose(webhook_id: Uuid) -> String {
    format!("webhook:{webhook_id}")
}

/// The value of `webhook-signature`: one signature for each secret, separated by spaces. `None` if a secret cannot sign.
pub(crate) fn signatures(secrets: &[Secret], id: &str, at: DateTime<Utc>, body: &[u8]) -> Option<String> {
    let signed: Option<Vec<String>> = secrets.iter().map(|secret| secret.sign(id, at, body)).collect();
    Some(signed?.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_only_for_its_own_endpoint() {
        let keys = WrappingKeys::generate();
        let (webhook_id, secret) = (Uuid::from_u128(1), Secret::generate().expect("random numbers"));
        let sealed = secret.seal(&keys, webhook_id);
        assert_eq!(Secret::open(&keys, webhook_id, &sealed).expect("the secret").text(), secret.text());
        assert!(Secret::open(&keys, Uuid::from_u128(2), &sealed).is_err());
        assert!(!sealed.windows(8).any(|window| secret.0.starts_with(window)));
    }

    /// The example of the specification.
    #[test]
    fn the_signature_is_that_of_the_specification() {
        let key = BASE64_STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("base64");
        let at = DateTime::from_timestamp(1_614_265_330, 0).expect("a time");
        let signature = signatures(&[Secret(key)], "msg_p5jXN8AQM9LWM0D4loKWxJek", at, br#"{"test": 2432232314}"#);
        assert_eq!(signature.as_deref(), Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="));
    }
}
