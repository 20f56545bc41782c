//! A statement as a customer statement message of SWIFT, MT940, without the blocks of the network. Texts have the characters of SWIFT's
//! set X.

use chrono::{Datelike, NaiveDate};
use deunicode::deunicode;

use super::{
    body::{StatementFormat, Unrepresentable},
    content::Content,
};
use passbook_read_model::transactions::{Totals, TransactionView};

/// The longest amount, with its comma (`15d`).
const AMOUNT_CHARS_MAX: usize = 15;
/// The longest reference of a line (`16x`).
const REFERENCE_CHARS_MAX: usize = 16;
/// The longest line of the field 86 (`65x`), and how many lines the field has.
const TEXT_CHARS_MAX: usize = 65;
const TEXT_LINES_MAX: usize = 6;

/// Writes a statement as MT940.
pub(super) struct Mt940(pub(super) Content);

impl StatementFormat for Mt940 {
    fn write_head(&mut self, bytes: &mut Vec<u8>) -> Result<(), Unrepresentable> {
        let from = self.0.statement.period.from;
        let opening = self.balance(from, self.0.statement.opening_balance)?;
        // Checked before the first line is sent.
        self.end()?;
        line(bytes, &format!(":20:{}", from.format("ST%Y%m%d")));
        line(bytes, &format!(":25:{}", self.0.account()));
        line(bytes, &format!(":28C:{}/1", from.format("%y%j")));
        line(bytes, &format!(":60F:{opening}"));
        Ok(())
    }

    fn write_lines(&mut self, lines: &[TransactionView], bytes: &mut Vec<u8>) -> Result<(), Unrepresentable> {
        lines.iter().try_for_each(|transaction| self.transaction(transaction, bytes))
    }

    fn write_end(&mut self, _: Totals, bytes: &mut Vec<u8>) -> Result<(), Unrepresentable> {
        let [closing, available] = self.end()?;
        line(bytes, &format!(":62F:{closing}"));
        line(bytes, &format!(":64:{available}"));
        line(bytes, "-");
        Ok(())
    }
}

impl Mt940 {
    /// The balances at the end: that of the ledger, and what is available.
    fn end(&self) -> Result<[String; 2], Unrepresentable> {
        let day = self.0.last_day();
        Ok([self.balance(day, self.0.statement.closing_balance)?, self.balance(day, self.0.available_balance)?])
    }

    fn balance(&self, day: NaiveDate, minor_units: i64) -> Result<String, Unrepresentable> {
        let mark = if minor_units < 0 { "D" } else { "C" };
        Ok(format!("{mark}{}{}{}", day.format("%y%m%d"), self.0.currency.code(), self.amount(minor_units)?))
    }

    /// The magnitude of an amount. It always has a comma.
    fn amount(&self, minor_units: i64) -> Result<String, Unrepresentable> {
        let mut text = self.0.decimal(minor_units.unsigned_abs()).replace('.', ",");
        if !text.contains(',') {
            text.push(',');
        }
        match text.len() <= AMOUNT_CHARS_MAX {
            true => Ok(text),
            false => Err(Unrepresentable(format!(
                "MT940 has no amounts of more than {AMOUNT_CHARS_MAX} characters, and the statement contains {text}. Use another format."
            ))),
        }
    }

    fn transaction(&self, transaction: &TransactionView, bytes: &mut Vec<u8>) -> Result<(), Unrepresentable> {
        let day = transaction.recorded_at.date_naive();
        // A reversal is marked by what it reverses: RC is a debit, RD a credit.
        let mark = match (transaction.reverses_version.is_some(), transaction.balance_change() < 0) {
            (false, false) => "C",
            (false, true) => "D",
            (true, false) => "RD",
            (true, true) => "RC",
        };
        let code = match (transaction.transfer_id, transaction.reverses_version) {
            (_, Some(_)) => "NRTI",
            (Some(_), None) => "NTRF",
            (None, None) => "NMSC",
        };
        let amount = self.amount(transaction.amount)?;
        let text = swift_text(transaction.reference.as_deref().unwrap_or_default());
        line(
            bytes,
            &format!(
                ":61:{}{:02}{:02}{mark}{amount}{code}{}//{}",
                day.format("%y%m%d"),
                day.month(),
                day.day(),
                reference(&text),
                transaction.version
            ),
        );
        line(bytes, &transaction.kind.replace('_', " "));
        for (number, text) in information(transaction, &text).iter().enumerate() {
            line(bytes, &format!("{}{text}", if number == 0 { ":86:" } else { "" }));
        }
        Ok(())
    }
}

/// The reference of a transaction, if it is short enough. Slashes have a meaning there.
fn reference(text: &str) -> &str {
    match text.is_empty() || text.len() > REFERENCE_CHARS_MAX || text.contains('/') {
        true => "NONREF",
        false => text,
    }
}

/// The lines of the field 86: the reference, the other account and the transfer. Of a reference that is too long, the end is missing.
fn information(transaction: &TransactionView, text: &str) -> Vec<String> {
    let ids = [("CPTY", transaction.counterparty_account_id), ("TRF", transaction.transfer_id)];
    let ids: String = ids.iter().filter_map(|(name, id)| Some(format!("/{name}/{}", id.as_ref()?.simple()))).collect();
    let length = text.len().min(TEXT_LINES_MAX * TEXT_CHARS_MAX - ids.len());
    let mut text = format!("{}{ids}", &text[..length]);
    if text.is_empty() {
        text = transaction.kind.replace('_', " ");
    }
    let mut lines = Vec::new();
    while !text.is_empty() {
        let rest = text.split_off(text.len().min(TEXT_CHARS_MAX));
        // A line that starts with a colon is a field, and one with a hyphen ends the message.
        if text.starts_with([':', '-']) {
            text.replace_range(..1, ".");
        }
        lines.push(std::mem::replace(&mut text, rest));
    }
    lines
}

/// The text in SWIFT's character set X: Latin letters without marks, digits, and some punctuation.
fn swift_text(text: &str) -> String {
    let is_allowed = |character: &char| character.is_ascii_alphanumeric() || "/-?:().,'+ ".contains(*character);
    let text = deunicode(text);
    let text: String = text.chars().map(|character| if is_allowed(&character) { character } else { ' ' }).collect();
    text.trim().to_owned()
}

fn line(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend(text.as_bytes());
    bytes.extend(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::{reference, swift_text};

    #[test]
    fn texts_have_the_characters_of_swift() {
        for (text, in_swift) in
            [("Größe & Maß", "Grosse   Mass"), ("a;b\nc", "a b c"), ("]]>", ""), ("7/8 (x)", "7/8 (x)")]
        {
            assert_eq!(swift_text(text), in_swift);
        }
        assert_eq!([reference("rent 7"), reference(""), reference("a/b")], ["rent 7", "NONREF", "NONREF"]);
        assert_eq!(reference("more than sixteen"), "NONREF");
    }
}
