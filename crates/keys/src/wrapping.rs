//! The wrapping keys of a file: the first seals, all of them open.

use std::{fmt, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::cipher::{Key, OpenError};

/// The format of values that a wrapping key sealed: XChaCha20-Poly1305. The beginning of the key's fingerprint follows.
const FORMAT: u8 = 1;
/// How much of the fingerprint a sealed value contains, in bytes.
const KEY_ID_BYTES: usize = 8;
const HEADER_BYTES: usize = 1 + KEY_ID_BYTES;
/// Separates the fingerprint from every other hash of the key.
const FINGERPRINT_LABEL: &[u8] = b"passbook wrapping key\0";
/// The number of keys in one file.
pub(crate) const KEYS_MAX: usize = 64;

/// The fingerprint of a wrapping key: a SHA-256 hash. It identifies the key and does not reveal it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    fn of(key: &Key) -> Self {
        Self(Sha256::new().chain_update(FINGERPRINT_LABEL).chain_update(key.as_bytes()).finalize().into())
    }

    /// `None` if the length is wrong.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The beginning of a value that this key sealed.
    fn header(&self) -> [u8; HEADER_BYTES] {
        let mut header = [FORMAT; HEADER_BYTES];
        header[1..].copy_from_slice(&self.0[..KEY_ID_BYTES]);
        header
    }
}

/// The first 16 hexadecimal digits, for people.
impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex::encode(&self.0[..KEY_ID_BYTES]))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Why a text holds no wrapping keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKeys {
    /// There is no key.
    #[error("contains no key")]
    Empty,
    /// A line is not a key.
    #[error("has a line {0} that is not the base64 form of 32 bytes")]
    Line(usize),
    /// A key occurs twice.
    #[error("has a key twice, again in line {0}")]
    Twice(usize),
    /// There are too many keys.
    #[error("contains more than {KEYS_MAX} keys")]
    TooMany,
}

/// One or more wrapping keys. A clone shares them. The bytes are cleared when the last clone is dropped.
#[derive(Clone)]
pub struct WrappingKeys {
    keys: Arc<[(Fingerprint, Key)]>,
    /// The index of the key that seals.
    current: usize,
}

impl WrappingKeys {
    /// A single new random key.
    ///
    /// # Panics
    /// The system has no random numbers.
    pub fn generate() -> Self {
        Self::of(vec![Key::generate()])
    }

    /// Parses one or more keys in base64, one a line. The first one is the current key.
    ///
    /// # Errors
    /// There is no key, or a line is not a key.
    pub fn parse(text: &str) -> Result<Self, InvalidKeys> {
        let mut keys: Vec<Key> = vec![];
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let bytes = BASE64_STANDARD.decode(line.trim()).map(Zeroizing::new);
            let key = bytes.ok().and_then(|bytes| Key::from_slice(&bytes)).ok_or(InvalidKeys::Line(number + 1))?;
            if keys.iter().any(|known| Fingerprint::of(known) == Fingerprint::of(&key)) {
                return Err(InvalidKeys::Twice(number + 1));
            }
            keys.push(key);
        }
        match keys.len() {
            0 => Err(InvalidKeys::Empty),
            1..=KEYS_MAX => Ok(Self::of(keys)),
            _ => Err(InvalidKeys::TooMany),
        }
    }

    fn of(keys: Vec<Key>) -> Self {
        Self { keys: keys.into_iter().map(|key| (Fingerprint::of(&key), key)).collect(), current: 0 }
    }

    /// The keys as [`Self::parse`] reads them.
    pub(crate) fn to_text(&self) -> Zeroizing<String> {
        let lines = self.keys.iter().map(|(_, key)| BASE64_STANDARD.encode(key.as_bytes()) + "\n");
        Zeroizing::new(lines.collect())
    }

    /// The fingerprint of the current key.
    pub fn fingerprint(&self) -> Fingerprint {
        self.keys[self.current].0
    }

    /// Whether one of the keys has this fingerprint.
    pub fn contains(&self, fingerprint: Fingerprint) -> bool {
        self.keys.iter().any(|(known, _)| *known == fingerprint)
    }

    /// The same keys with another current one; `None` if no key has this fingerprint.
    pub(crate) fn with_current(&self, fingerprint: Fingerprint) -> Option<Self> {
        let current = self.keys.iter().position(|(known, _)| *known == fingerprint)?;
        Some(Self { keys: Arc::clone(&self.keys), current })
    }

    /// Seals a value under the current key: a format byte, the first 8 bytes of the key's fingerprint, the nonce of 24 bytes, and the
    /// ciphertext with its tag of 16 bytes. It opens only with the same `associated_data`, which should begin with the purpose and
    /// name the place of the value: `webhook:<id>`.
    ///
    /// # Panics
    /// The system has no random numbers.
    pub fn seal(&self, associated_data: &[u8], plaintext: &[u8]) -> Vec<u8> {
        let (fingerprint, key) = &self.keys[self.current];
        key.seal(&fingerprint.header(), associated_data, plaintext)
    }

    /// Opens a sealed value, with the key that sealed it.
    ///
    /// # Errors
    /// No key of the file sealed it, it was changed, or it belongs to another place.
    pub fn open(&self, associated_data: &[u8], sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        if sealed.first() != Some(&FORMAT) || sealed.len() < HEADER_BYTES {
            return Err(OpenError::UnknownFormat);
        }
        let sealed_by = self.keys.iter().find(|(fingerprint, _)| sealed.starts_with(&fingerprint.header()));
        let (_, key) = sealed_by.ok_or(OpenError::UnknownKey)?;
        key.open(HEADER_BYTES, associated_data, sealed)
    }

    /// The beginning of every value that the current key sealed. After a replacement of the wrapping key, a table has to rewrap the
    /// rows whose values begin with something else.
    pub fn current_header(&self) -> [u8; HEADER_BYTES] {
        self.fingerprint().header()
    }

    /// Seals a value anew if a former key sealed it. `None`: the current key sealed it.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn rewrap(&self, associated_data: &[u8], sealed: &[u8]) -> Result<Option<Vec<u8>>, OpenError> {
        if sealed.starts_with(&self.current_header()) {
            return Ok(None);
        }
        let plaintext = Zeroizing::new(self.open(associated_data, sealed)?);
        Ok(Some(self.seal(associated_data, &plaintext)))
    }
}

/// Shows fingerprints only.
impl fmt::Debug for WrappingKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.keys.iter().map(|(fingerprint, _)| fingerprint)).finish()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;

    fn line() -> String {
        WrappingKeys::generate().to_text().to_string()
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_sealed_value_is_detected() {
        let keys = WrappingKeys::generate();
        let sealed = keys.seal(b"webhook:1", b"secret");
        assert_eq!(keys.open(b"webhook:1", &sealed).unwrap(), b"secret");
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let expected = match bit / 8 {
                0 => OpenError::UnknownFormat,
                1..9 => OpenError::UnknownKey,
                _ => OpenError::Tampered,
            };
            assert_eq!(keys.open(b"webhook:1", &changed), Err(expected), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(keys.open(b"webhook:1", &sealed[..length]).is_err(), "cut to {length} bytes");
        }
        assert_eq!(keys.open(b"webhook:2", &sealed), Err(OpenError::Tampered));
    }

    #[test]
    fn a_former_key_opens_and_rewrap_seals_under_the_current_one() {
        let (old, new) = (line(), line());
        let before = WrappingKeys::parse(&old).unwrap();
        let sealed = before.seal(b"place", b"secret");
        let both = WrappingKeys::parse(&(new.clone() + &old)).unwrap();
        assert_eq!(both.open(b"place", &sealed).unwrap(), b"secret");

        let rewrapped = both.rewrap(b"place", &sealed).unwrap().unwrap();
        assert_eq!(both.rewrap(b"place", &rewrapped), Ok(None));
        let after = WrappingKeys::parse(&new).unwrap();
        assert_eq!(after.open(b"place", &rewrapped).unwrap(), b"secret");
        assert_eq!(after.open(b"place", &sealed), Err(OpenError::UnknownKey));
        assert_eq!(after.rewrap(b"place", &sealed), Err(OpenError::UnknownKey));
        assert_eq!(both.rewrap(b"elsewhere", &sealed), Err(OpenError::Tampered));
    }

    #[test]
    fn keys_are_parsed_with_the_reason_of_a_refusal() {
        let (one, other) = (line(), line());
        let parsed = WrappingKeys::parse(&format!("{one}\n  {other}\r\n")).unwrap();
        assert_eq!(parsed.to_text().as_str(), one.clone() + &other);
        let reason = |text: &str| WrappingKeys::parse(text).unwrap_err();
        assert_eq!(reason(""), InvalidKeys::Empty);
        assert_eq!(reason(" \n\n"), InvalidKeys::Empty);
        assert_eq!(reason("c2hvcnQ="), InvalidKeys::Line(1));
        assert_eq!(reason(&format!("{one}not base64")), InvalidKeys::Line(2));
        assert_eq!(reason(&BASE64_STANDARD.encode([0; 33])), InvalidKeys::Line(1));
        assert_eq!(reason(&format!("{one}{other}{one}")), InvalidKeys::Twice(3));
        assert_eq!(reason(&(0..=KEYS_MAX).map(|_| line()).collect::<String>()), InvalidKeys::TooMany);
    }

    #[test]
    fn debug_and_fingerprint_do_not_show_a_key() {
        let text = line();
        let keys = WrappingKeys::parse(&text).unwrap();
        let shown = format!("{keys:?} {}", keys.fingerprint());
        assert_eq!(shown, format!("[{0}] {0}", keys.fingerprint()));
        assert!(!shown.contains(text.trim()));
    }
}
