//! Compares the output that a page shows with that of the command. Values that differ at each run, such as ids and times, only need
//! the same form.

use serde_json::Value;

use crate::blocks::Block;

/// Asserts that the output of `command` is as the block shows it.
pub fn assert_shown(block: &Block, command: &str, output: &str) {
    let agrees = match block.language() {
        "json" => {
            let shown = serde_json::from_str(&block.content);
            let shown = shown.unwrap_or_else(|error| panic!("{error}: {}", block.content));
            serde_json::from_str(output).is_ok_and(|actual| agrees(&shown, &actual))
        }
        _ => has_lines(&block.content, output),
    };
    assert!(agrees, "{command}\nis shown with the output\n{}\nbut its output is\n{output}", block.content);
}

/// Whether two values have the same members, and their values agree.
fn agrees(shown: &Value, actual: &Value) -> bool {
    match (shown, actual) {
        (Value::Object(shown), Value::Object(actual)) => {
            let agrees = |(name, shown)| actual.get(name).is_some_and(|actual| agrees(shown, actual));
            shown.len() == actual.len() && shown.iter().all(agrees)
        }
        (Value::Array(shown), Value::Array(actual)) => {
            shown.len() == actual.len() && shown.iter().zip(actual).all(|(shown, actual)| agrees(shown, actual))
        }
        (Value::String(shown), Value::String(actual)) => {
            shown == actual || (is_changing(shown) && form(shown) == form(actual))
        }
        _ => shown == actual,
    }
}

/// Whether the text has a part that differs at each run: an id, a time or a hash.
fn is_changing(text: &str) -> bool {
    let form = form(text);
    ["x-x-x-x-x", "x-x-xTx:x:x.xZ"].iter().any(|part| form.contains(part)) || (form == "x" && text.len() >= 8)
}

/// The text with each run of hexadecimal digits as one `x`.
fn form(text: &str) -> String {
    let mut form = String::new();
    for character in text.chars() {
        let digit = character.is_ascii_digit() || matches!(character, 'a'..='f');
        if !(digit && form.ends_with('x')) {
            form.push(if digit { 'x' } else { character });
        }
    }
    form
}

/// Whether each shown line is a line of the output. Runs of blanks are equal, and digits only need digits in their place.
fn has_lines(shown: &str, output: &str) -> bool {
    let line = |line: &str| {
        let words: Vec<String> = line.split_whitespace().map(masked_number).collect();
        words.join(" ")
    };
    let lines: Vec<String> = output.lines().map(line).collect();
    shown.lines().map(line).filter(|shown| shown != "…" && !shown.is_empty()).all(|shown| lines.contains(&shown))
}

/// A word with digits by its form. Amounts keep their digits: they do not change.
fn masked_number(word: &str) -> String {
    if is_changing(word) || word.chars().any(|character| character.is_ascii_digit()) && word.contains(['/', ':', '-']) {
        form(word)
    } else {
        word.to_owned()
    }
}

#[test]
fn values_that_differ_at_each_run_need_the_same_form() {
    let agree = |shown: &str, actual: &str| {
        agrees(&serde_json::from_str(shown).unwrap(), &serde_json::from_str(actual).unwrap())
    };
    assert!(agree(
        r#"{"id": "01900000-0000-7000-8000-000000000001", "at": "2026-01-01T00:00:00.000000Z", "n": 1}"#,
        r#"{"id": "01900000-abcd-7000-8000-00000000ffff", "at": "2026-12-01T00:00:00.000000Z", "n": 1}"#,
    ));
    assert!(!agree(r#"{"n": 1}"#, r#"{"n": 2}"#));
    assert!(!agree(r#"{"n": 1}"#, r#"{"n": 1, "m": 1}"#));
    assert!(!agree(r#"{"owner": "ada"}"#, r#"{"owner": "ben"}"#));
    assert!(!agree(r#"{"balance": "100"}"#, r#"{"balance": "200"}"#));
    assert!(!agree("[1, 2]", "[1]"));
}

#[test]
fn shown_lines_must_be_in_the_output() {
    assert!(has_lines("saved  EUR 12.50\n…\n", "a\nsaved EUR   12.50\nb\n"));
    assert!(!has_lines("saved EUR 12.50\n", "saved EUR 12.51\n"));
    assert!(has_lines("head 12-9f86d081\n", "head 7-00000000\n"));
}
