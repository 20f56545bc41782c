//! A public key in the text form of signed notes, the *vkey*: `<name>+<key id>+<base64 of algorithm and key>`.

use std::{fmt, str::FromStr};

use base64::{Engine, prelude::BASE64_STANDARD};
use ring::signature::{ED25519, UnparsedPublicKey};
use sha2::{Digest, Sha256};

/// The number of Ed25519 among the signature types of signed notes.
const ED25519_TYPE: u8 = 1;
/// The length of a public key, in bytes.
pub(crate) const PUBLIC_KEY_BYTES: usize = 32;

/// A public Ed25519 key with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    public_key: [u8; PUBLIC_KEY_BYTES],
}

/// A text is not a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key is <name>+<8 hex digits>+<base64>, as `GET /v1/log/keys` shows it")]
pub struct InvalidVerifierKey;

impl VerifierKey {
    /// `None` if the name cannot be the name of a key.
    pub fn new(name: &str, public_key: [u8; PUBLIC_KEY_BYTES]) -> Option<Self> {
        is_name(name).then(|| Self { name: name.to_owned(), public_key })
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The beginning of a hash over name and key, which signatures carry.
    pub fn id(&self) -> [u8; 4] {
        let mut hash = Sha256::new();
        hash.update(self.name.as_bytes());
        hash.update([b'\n', ED25519_TYPE]);
        hash.update(self.public_key);
        let hash: [u8; 32] = hash.finalize().into();
        [hash[0], hash[1], hash[2], hash[3]]
    }

    /// Whether this key signed the text.
    pub(crate) fn verifies(&self, text: &str, signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.public_key).verify(text.as_bytes(), signature).is_ok()
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let typed = [&[ED25519_TYPE][..], &self.public_key].concat();
        write!(formatter, "{}+{}+{}", self.name, hex::encode(self.id()), BASE64_STANDARD.encode(typed))
    }
}

impl FromStr for VerifierKey {
    type Err = InvalidVerifierKey;

    fn from_str(text: &str) -> Result<Self, InvalidVerifierKey> {
        // The base64 form may contain further plus signs.
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(id), Some(typed)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(InvalidVerifierKey);
        };
        let typed = BASE64_STANDARD.decode(typed).map_err(|_| InvalidVerifierKey)?;
        let key = match typed.split_first() {
            Some((&ED25519_TYPE, key)) => key.try_into().ok().and_then(|key| Self::new(name, key)),
            Some(_) | None => None,
        };
        key.filter(|key| hex::encode(key.id()) == id).ok_or(InvalidVerifierKey)
    }
}

/// Whether a text can be the name of a key.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c == '+')
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;

    /// The example of the specification of signed notes.
    const EXAMPLE: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";

    #[test]
    fn the_key_of_the_specification_is_read_and_written() {
        let key: VerifierKey = EXAMPLE.parse().unwrap();
        assert_eq!((key.name(), key.id()), ("example.com/foo", [0x53, 0x0d, 0x90, 0x3a]));
        assert_eq!(key.to_string(), EXAMPLE);
    }

    #[test]
    fn changed_keys_are_rejected() {
        for invalid in [
            "",
            "example.com/foo",
            "example.com/foo+530d903a",
            "example.com/bar+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
            "example.com/foo+530d903b+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
            "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2l",
            "example.com/foo+530d903a+AukyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
            "example com+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
            "+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        ] {
            assert_eq!(invalid.parse::<VerifierKey>(), Err(InvalidVerifierKey), "{invalid}");
        }
    }
}
