//! Signed notes: a text, an empty line, and a line for each signature (<https://c2sp.org/signed-note>).

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::verifier_key::{VerifierKey, is_name};

/// The most bytes of a note. That of a log with 64 partitions has less than a tenth.
pub const NOTE_BYTES_MAX: usize = 64 * 1024;
/// The most signatures of a note.
const SIGNATURES_MAX: usize = 16;
/// Begins the line of a signature: an em dash and a space.
const SIGNATURE_START: &str = "\u{2014} ";
const KEY_ID_BYTES: usize = 4;

/// A note. Its signatures are not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedNote {
    text: String,
    signatures: Vec<Signature>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Signature {
    name: String,
    key_id: [u8; KEY_ID_BYTES],
    bytes: Vec<u8>,
}

/// Why a note is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNote {
    /// It has another form.
    #[error("it is not a signed note: {0}")]
    Malformed(&'static str),
    /// None of the accepted keys signed it.
    #[error("none of the accepted keys signed it; it is signed by {0}")]
    UnknownKey(String),
    /// A key is named, and the signature is not that of the text.
    #[error("its text or its signature was changed: the signature of {0} does not belong to the text")]
    WrongSignature(String),
}

impl SignedNote {
    /// Parses a note.
    ///
    /// # Errors
    /// [`InvalidNote::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidNote> {
        let malformed = |reason| Err(InvalidNote::Malformed(reason));
        if bytes.len() > NOTE_BYTES_MAX {
            return malformed("it is too large");
        }
        let Ok(note) = str::from_utf8(bytes) else { return malformed("it is not UTF-8") };
        if note.contains(|c: char| c < ' ' && c != '\n') {
            return malformed("it contains a control character");
        }
        let Some(end) = note.rfind("\n\n") else { return malformed("it has no signature") };
        let (text, signatures) = (&note[..=end], &note[end + 2..]);
        let Some(lines) = signatures.strip_suffix('\n') else { return malformed("its last line does not end") };
        let signatures: Option<Vec<Signature>> = lines.split('\n').map(Signature::parse).collect();
        match signatures {
            None => malformed("a line of a signature has another form"),
            Some(signatures) if signatures.len() > SIGNATURES_MAX => malformed("it has too many signatures"),
            Some(signatures) => Ok(Self { text: text.to_owned(), signatures }),
        }
    }

    /// Returns the text and the first key that signed it. Signatures of other keys do not count.
    ///
    /// # Errors
    /// None of `keys` signed the note, or a signature of one of them is wrong.
    pub fn verify<'a>(&self, keys: &'a [VerifierKey]) -> Result<(&str, &'a VerifierKey), InvalidNote> {
        let mut signed_by = None;
        for signature in &self.signatures {
            let is_key = |key: &&VerifierKey| key.name() == signature.name && key.id() == signature.key_id;
            let Some(key) = keys.iter().find(is_key) else { continue };
            if !key.verifies(&self.text, &signature.bytes) {
                return Err(InvalidNote::WrongSignature(signature.signer()));
            }
            signed_by.get_or_insert(key);
        }
        let signers = || self.signatures.iter().map(Signature::signer).collect::<Vec<_>>().join(", ");
        signed_by.map(|key| (&*self.text, key)).ok_or_else(|| InvalidNote::UnknownKey(signers()))
    }
}

/// The note of a text, which ends with a line feed, and a signature over it.
pub(crate) fn render(text: &str, key: &VerifierKey, signature: &[u8]) -> String {
    let signature = BASE64_STANDARD.encode([&key.id()[..], signature].concat());
    format!("{text}\n{SIGNATURE_START}{} {signature}\n", key.name())
}

impl Signature {
    fn parse(line: &str) -> Option<Self> {
        let (name, encoded) = line.strip_prefix(SIGNATURE_START)?.split_once(' ')?;
        let decoded = BASE64_STANDARD.decode(encoded).ok()?;
        let (key_id, bytes) = decoded.split_first_chunk::<KEY_ID_BYTES>()?;
        let is_signature = is_name(name) && !bytes.is_empty();
        is_signature.then(|| Self { name: name.to_owned(), key_id: *key_id, bytes: bytes.to_owned() })
    }

    /// The key, as its text form begins.
    fn signer(&self) -> String {
        format!("{}+{}", self.name, hex::encode(self.key_id))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;

    /// The example of the specification.
    const EXAMPLE: &str = "This is an example message.\n\n\u{2014} example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
    const KEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";

    fn verify(note: &[u8]) -> Result<String, InvalidNote> {
        let keys = [KEY.parse().unwrap()];
        SignedNote::parse(note)?.verify(&keys).map(|(text, _)| text.to_owned())
    }

    #[test]
    fn the_note_of_the_specification_is_verified() {
        assert_eq!(verify(EXAMPLE.as_bytes()).unwrap(), "This is an example message.\n");
        let note = SignedNote::parse(EXAMPLE.as_bytes()).unwrap();
        assert_eq!(render(&note.text, &KEY.parse().unwrap(), &note.signatures[0].bytes), EXAMPLE);
    }

    #[test]
    fn every_flipped_bit_of_a_note_is_detected() {
        for bit in 0..EXAMPLE.len() * 8 {
            let mut changed = EXAMPLE.as_bytes().to_owned();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(verify(&changed).is_err(), "bit {bit}");
        }
        for length in 0..EXAMPLE.len() {
            assert!(verify(&EXAMPLE.as_bytes()[..length]).is_err(), "cut to {length} bytes");
        }
    }

    #[test]
    fn signatures_of_other_keys_do_not_count() {
        let other = "\u{2014} example.org/witness Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
        let cosigned = EXAMPLE.replace("\n\n", &format!("\n\n{other}"));
        assert!(verify(cosigned.as_bytes()).is_ok());
        let alone = format!("This is an example message.\n\n{other}");
        assert_eq!(verify(alone.as_bytes()), Err(InvalidNote::UnknownKey("example.org/witness+530d903a".to_owned())));
        let many = format!("This is an example message.\n\n{}", other.repeat(SIGNATURES_MAX + 1));
        assert_eq!(verify(many.as_bytes()), Err(InvalidNote::Malformed("it has too many signatures")));
    }

    #[test]
    fn other_files_are_rejected() {
        for (file, reason) in [
            (&b""[..], "it has no signature"),
            (b"text\n", "it has no signature"),
            (b"text\r\n\r\n", "it contains a control character"),
            (b"\xff\n\n", "it is not UTF-8"),
            (b"text\n\n", "its last line does not end"),
            (b"text\n\nno signature\n", "a line of a signature has another form"),
        ] {
            assert_eq!(verify(file), Err(InvalidNote::Malformed(reason)), "{file:?}");
        }
        assert_eq!(verify(&vec![b'x'; NOTE_BYTES_MAX + 1]), Err(InvalidNote::Malformed("it is too large")));
    }
}
