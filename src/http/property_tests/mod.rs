//! Property tests of every parser of outside input: no input panics, accepted input fulfils the contract, and output is parsed
//! back. `PROPTEST_CASES` sets the number of cases; `make fuzz` runs many.

mod bodies;
mod cursors;
mod headers;
mod items;
mod parameters;

use proptest::{collection::vec, prelude::*};

/// Arbitrary bytes, which are rarely valid.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..300)
}

/// A text in which one place was changed, or none.
fn mutated(text: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let change = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<char>(), 0..5);
    (text, change).prop_map(|(text, (at, other, character, mutation))| {
        let mut characters: Vec<char> = text.chars().collect();
        let (at, other) = (at.index(characters.len() + 1), other.index(characters.len() + 1));
        match mutation {
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
