//! What journals of hledger have in common: the directives of currencies, and texts that cannot end a line or begin a comment.

use passbook_domain::money::{self, Currency};

/// The directives at the beginning of every journal.
pub const HEAD: &str = "decimal-mark .\n";

/// The directive that declares a currency and the digits of its amounts.
pub fn commodity(currency: Currency) -> String {
    let sample = match money::digits(currency) {
        0 => "1000.".to_owned(),
        digits => format!("1000.{}", "0".repeat(digits.into())),
    };
    format!("commodity {sample} {}\n", currency.code())
}

/// An amount in major units with its currency.
pub fn amount(minor_units: impl Into<i128>, currency: Currency) -> String {
    format!("{} {}", money::decimal(minor_units.into(), currency), currency.code())
}

/// The description of a transaction. A semicolon would begin a comment.
pub fn description(text: &str) -> String {
    on_one_line(text).replace(';', ",").trim().to_owned()
}

/// The text on one line: control characters and line ends are blanks.
pub fn on_one_line(text: &str) -> String {
    let is_break = |character: char| character.is_control() || matches!(character, '\u{2028}' | '\u{2029}');
    text.replace(is_break, " ")
}
