//! XChaCha20-Poly1305 with a random nonce. Its 192 bits are enough to choose each nonce at random, without any counter.

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::{ZeroizeOnDrop, Zeroizing};

/// The length of every key, in bytes.
pub(crate) const KEY_BYTES: usize = 32;
/// The length of a nonce, in bytes.
const NONCE_BYTES: usize = 24;

/// Why a sealed value cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It is cut off, or an unknown version of Passbook sealed it.
    #[error("the sealed value has an unknown format")]
    UnknownFormat,
    /// No key of the file sealed it.
    #[error("the sealed value was sealed under a key that is not in the key file")]
    UnknownKey,
    /// It was changed, or sealed with other associated data: at another place or for another purpose.
    #[error("the sealed value was changed, or it belongs to another place")]
    Tampered,
}

/// A secret key. Its bytes are cleared when it is dropped, and it has no `Debug`.
#[derive(Clone, ZeroizeOnDrop)]
pub(crate) struct Key([u8; KEY_BYTES]);

impl Key {
    /// A new random key.
    pub(crate) fn generate() -> Self {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        fill(&mut *bytes);
        Self(*bytes)
    }

    /// `None` if the length is wrong.
    pub(crate) fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Seals a value: `header`, nonce, ciphertext and tag. The header stays readable and is authenticated.
    pub(crate) fn seal(&self, header: &[u8], associated_data: &[u8], plaintext: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_BYTES];
        fill(&mut nonce);
        let aad = [header, associated_data].concat();
        let payload = Payload { msg: plaintext, aad: &aad };
        let ciphertext = self.cipher().encrypt(&XNonce::from(nonce), payload).expect("the value is below 256 GiB");
        [header, &nonce, &ciphertext].concat()
    }

    /// Opens a value that [`Self::seal`] sealed with a header of `header_bytes`.
    pub(crate) fn open(
        &self,
        header_bytes: usize,
        associated_data: &[u8],
        sealed: &[u8],
    ) -> Result<Vec<u8>, OpenError> {
        let (header, rest) = sealed.split_at_checked(header_bytes).ok_or(OpenError::UnknownFormat)?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(OpenError::UnknownFormat)?;
        let aad = [header, associated_data].concat();
        let payload = Payload { msg: ciphertext, aad: &aad };
        self.cipher().decrypt(&XNonce::from(*nonce), payload).map_err(|_| OpenError::Tampered)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&self.0.into())
    }
}

/// Fills a buffer with random bytes of the operating system.
///
/// # Panics
/// The system has no source of random numbers. A process on such a system has failed before: ids of events need it as well.
fn fill(bytes: &mut [u8]) {
    SystemRandom::new().fill(bytes).expect("the system has random numbers");
}
