//! A data key: a random key for the data of one subject. It is stored wrapped. Deleting the wrapped key makes everything unreadable
//! that the key sealed.

use zeroize::Zeroizing;

use crate::{
    cipher::{Key, OpenError},
    wrapping::WrappingKeys,
};

/// The format of values that a data key sealed: XChaCha20-Poly1305. The nonce follows.
const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 1;

/// A random key of 32 bytes. Its bytes are cleared when it is dropped, and `Debug` does not show them.
#[derive(Clone)]
pub struct DataKey(Key);

impl DataKey {
    /// A new random key.
    ///
    /// # Panics
    /// The system has no random numbers.
    pub fn generate() -> Self {
        Self(Key::generate())
    }

    /// Seals a value: a format byte, the nonce of 24 bytes, and the ciphertext with its tag of 16 bytes. It opens only with the same
    /// `associated_data`, which should name the place of the value.
    ///
    /// # Panics
    /// The system has no random numbers.
    pub fn seal(&self, associated_data: &[u8], plaintext: &[u8]) -> Vec<u8> {
        self.0.seal(&[FORMAT], associated_data, plaintext)
    }

    /// Opens a sealed value.
    ///
    /// # Errors
    /// The value was changed, belongs to another place, or was sealed under another key. [`OpenError::UnknownKey`] is never
    /// returned: such a value does not name its key.
    pub fn open(&self, associated_data: &[u8], sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        match sealed.first() {
            Some(&FORMAT) => self.0.open(HEADER_BYTES, associated_data, sealed),
            Some(_) | None => Err(OpenError::UnknownFormat),
        }
    }
}

impl std::fmt::Debug for DataKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("DataKey")
    }
}

impl WrappingKeys {
    /// Seals a data key, so that it can be stored.
    ///
    /// # Panics
    /// The system has no random numbers.
    pub fn wrap_key(&self, associated_data: &[u8], key: &DataKey) -> Vec<u8> {
        self.seal(associated_data, key.0.as_bytes())
    }

    /// Opens a data key that [`Self::wrap_key`] sealed.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn unwrap_key(&self, associated_data: &[u8], wrapped: &[u8]) -> Result<DataKey, OpenError> {
        let bytes = Zeroizing::new(self.open(associated_data, wrapped)?);
        Key::from_slice(&bytes).map(DataKey).ok_or(OpenError::UnknownFormat)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;

    #[test]
    fn a_data_key_survives_wrapping_and_opens_what_it_sealed() {
        let (keys, key) = (WrappingKeys::generate(), DataKey::generate());
        let sealed = key.seal(b"stream 1 version 2 reference", b"rent");
        let wrapped = keys.wrap_key(b"owner:alice", &key);
        let unwrapped = keys.unwrap_key(b"owner:alice", &wrapped).unwrap();
        assert_eq!(unwrapped.open(b"stream 1 version 2 reference", &sealed).unwrap(), b"rent");
        assert_eq!(sealed.len(), 1 + 24 + 4 + 16);
        assert_eq!(keys.unwrap_key(b"owner:bob", &wrapped).err(), Some(OpenError::Tampered));
        let short = keys.seal(b"owner:alice", b"not 32 bytes");
        assert_eq!(keys.unwrap_key(b"owner:alice", &short).err(), Some(OpenError::UnknownFormat));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_sealed_value_is_detected() {
        let key = DataKey::generate();
        let sealed = key.seal(b"place", b"text");
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(key.open(b"place", &changed).is_err(), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(key.open(b"place", &sealed[..length]).is_err(), "cut to {length} bytes");
        }
        assert_eq!(key.open(b"other", &sealed), Err(OpenError::Tampered));
        assert_eq!(DataKey::generate().open(b"place", &sealed), Err(OpenError::Tampered));
    }

    #[test]
    fn the_same_value_is_sealed_differently_each_time() {
        let key = DataKey::generate();
        assert_ne!(key.seal(b"place", b"text"), key.seal(b"place", b"text"));
        assert_eq!(format!("{key:?}"), "DataKey");
    }
}
