//! Everything that is parsed from outside, fed with anything: nothing panics, what is taken keeps to the contract, and what
//! is made here is read back. How many cases is said by `PROPTEST_CASES`; `make fuzz` asks for many.

mod bodies;
mod headers;
mod places;
mod texts;

use proptest::{collection::vec, prelude::*};

/// Bytes that are hardly ever what they should be.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..300)
}

/// A text in which one place was changed, or nothing.
fn mutated(text: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let change = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<char>(), 0..5);
    (text, change).prop_map(|(text, (at, other, character, how))| {
        let mut characters: Vec<char> = text.chars().collect();
        let (at, other) = (at.index(characters.len() + 1), other.index(characters.len() + 1));
        match how {
            0 => characters.insert(at, character),
            1 => characters.truncate(at),
            2 if at < characters.len() => drop(characters.remove(at)),
            3 if at.max(other) < characters.len() => characters.swap(at, other),
            4 if at < characters.len() => characters[at] = character,
            _ => {}
        }
        characters.into_iter().collect()
    })
}
