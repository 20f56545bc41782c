//! What somebody outside wrote down of the log: a position, and the hash that stood there.

use std::str::FromStr;

use passbook_event_store::{Hash, partition_number};

/// The first half of a byte too few is no proof of anything.
const DIGITS_MIN: usize = 8;

/// A position and the hash, or its first digits, of the event there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// In which partition.
    pub partition: i16,
    /// Where.
    pub position: i64,
    digits: String,
}

/// The text is not what a witness writes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a witness is a position from 1, a dash and at least {DIGITS_MIN} hexadecimal digits of the hash there; over partitions \
     the partition and a colon before it, and commas between several"
)]
pub struct InvalidWitness;

impl Witness {
    /// Whether this is the hash that was written down.
    pub fn agrees_with(&self, hash: &Hash) -> bool {
        hex::encode(hash).starts_with(&self.digits)
    }
}

impl FromStr for Witness {
    type Err = InvalidWitness;

    fn from_str(text: &str) -> Result<Self, InvalidWitness> {
        let (partition, place) = text.split_once(':').unwrap_or(("0", text));
        let partition = partition_number(partition).ok_or(InvalidWitness)?;
        let (position, digits) = place.split_once('-').ok_or(InvalidWitness)?;
        let position = position.parse().ok().filter(|position| *position > 0).ok_or(InvalidWitness)?;
        let hexadecimal = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        match hexadecimal && (DIGITS_MIN..=2 * size_of::<Hash>()).contains(&digits.len()) {
            true => Ok(Self { partition, position, digits: digits.to_ascii_lowercase() }),
            false => Err(InvalidWitness),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_witness_agrees_with_the_hash_that_begins_so() {
        let witness: Witness = "7-0A0a0a0a".parse().expect("a witness");
        assert!(witness.agrees_with(&[10; 32]));
        assert!(!witness.agrees_with(&[11; 32]));
        let elsewhere: Witness = "3:7-0a0a0a0a".parse().expect("a witness");
        assert_eq!((witness.partition, elsewhere.partition, elsewhere.position), (0, 3, 7));
        for broken in [
            "",
            "7",
            "7-",
            "0-0a0a0a0a",
            "-1-0a0a0a0a",
            "7-0a0a0a0",
            "7-0g0a0a0a",
            "64:7-0a0a0a0a",
            ":7-0a0a0a0a",
            &format!("7-{}", "0".repeat(65)),
        ] {
            assert_eq!(broken.parse::<Witness>(), Err(InvalidWitness), "{broken}");
        }
    }
}
