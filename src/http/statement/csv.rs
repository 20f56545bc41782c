//! A statement as CSV (RFC 4180) that is safe to open in a spreadsheet.

use std::borrow::Cow;

use csv::{Terminator, WriterBuilder};
use uuid::Uuid;

use super::body::StatementFormat;
use passbook_event_store::timestamp;
use passbook_read_model::transactions::{Totals, TransactionView, statement::Statement};

const COLUMNS: [&str; 9] = [
    "kind",
    "version",
    "amount",
    "balance_after",
    "transfer_id",
    "counterparty_account_id",
    "reference",
    "recorded_at",
    "event_id",
];
const KIND: usize = 0;
const AMOUNT: usize = 2;
const BALANCE_AFTER: usize = 3;

/// Writes a statement as CSV.
pub(super) struct Csv(pub(super) Statement);

type Row<'a> = [Cow<'a, str>; COLUMNS.len()];

impl StatementFormat for Csv {
    fn content_type(&self) -> &'static str {
        "text/csv; charset=utf-8; header=present"
    }

    fn write_head(&mut self, bytes: &mut Vec<u8>) {
        let opening = summary("opening_balance", BALANCE_AFTER, self.0.opening_balance);
        write([COLUMNS.map(Cow::from), opening], bytes);
    }

    fn write_lines(&mut self, lines: &[TransactionView], bytes: &mut Vec<u8>) {
        write(lines.iter().map(row), bytes);
    }

    fn write_end(&mut self, Totals { total_in, total_out }: Totals, bytes: &mut Vec<u8>) {
        let rows = [
            summary("total_in", AMOUNT, total_in),
            summary("total_out", AMOUNT, total_out),
            summary("closing_balance", BALANCE_AFTER, self.0.closing_balance),
        ];
        write(rows, bytes);
    }
}

fn summary(kind: &str, column: usize, minor_units: impl ToString) -> Row<'_> {
    let mut row = Row::default();
    row[KIND] = kind.into();
    row[column] = minor_units.to_string().into();
    row
}

fn row(line: &TransactionView) -> Row<'_> {
    let id = |id: Option<Uuid>| id.map(|id| id.to_string()).unwrap_or_default().into();
    [
        Cow::from(&line.kind),
        line.version.to_string().into(),
        line.amount.to_string().into(),
        line.balance_after.to_string().into(),
        id(line.transfer_id),
        id(line.counterparty_account_id),
        line.reference.as_deref().map(defused).unwrap_or_default(),
        timestamp::format(&line.recorded_at).into(),
        line.event_id.to_string().into(),
    ]
}

fn write<'a>(rows: impl IntoIterator<Item = Row<'a>>, bytes: &mut Vec<u8>) {
    let mut writer = WriterBuilder::new().terminator(Terminator::CRLF).from_writer(bytes);
    for row in rows {
        writer.write_record(row.iter().map(|cell| cell.as_bytes())).expect("writing a row to memory cannot fail");
    }
    writer.flush().expect("writing a row to memory cannot fail");
}

/// A text that no spreadsheet executes (OWASP, CSV Injection). An apostrophe precedes each part that starts like a formula.
/// Blanks and quotes before the formula count as its start, because some programs drop them. The text is split at all characters
/// that some program takes for the end of a cell or row. Without the apostrophes, it is the original text.
fn defused(text: &str) -> Cow<'_, str> {
    let cells: Vec<&str> = text.split_inclusive([';', '\t', '\r', '\n']).collect();
    let starts_with_control = cells.first().is_some_and(|first| ignored_prefix(first).contains(char::is_control));
    if !starts_with_control && !cells.iter().any(|cell| is_formula(cell)) {
        return text.into();
    }
    let mut defused = String::with_capacity(text.len() + cells.len());
    for (number, cell) in cells.into_iter().enumerate() {
        if is_formula(cell) || number == 0 && starts_with_control {
            defused.push('\'');
        }
        defused.push_str(cell);
    }
    defused.into()
}

/// The prefix of a cell that some programs drop before they look for a formula.
fn ignored_prefix(cell: &str) -> &str {
    let rest = cell.trim_start_matches(|c: char| c.is_whitespace() || c.is_control() || is_quote(c) || is_invisible(c));
    &cell[..cell.len() - rest.len()]
}

fn is_formula(cell: &str) -> bool {
    cell[ignored_prefix(cell).len()..].starts_with(['=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'])
}

fn is_quote(character: char) -> bool {
    matches!(character, '"' | '\'' | '`' | '\u{2018}'..='\u{201f}')
}

/// Whether the character has no width, such as a byte order mark.
fn is_invisible(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_texts_that_start_like_a_formula_get_an_apostrophe() {
        let formulas = [
            "=1+1",
            "+1",
            "-1",
            "@SUM(A1)",
            "\tx",
            "\rx",
            "\nx",
            " =1",
            "\"=1",
            "'=1",
            "\u{feff}=1",
            "\u{ff1d}1",
            "\u{a0}@x",
        ];
        for formula in formulas {
            assert_eq!(defused(formula), format!("'{formula}"));
        }
        for (text, cells) in [
            ("x\n=1", "x\n'=1"),
            ("x;=1;y; +2", "x;'=1;y;' +2"),
            ("=1\t\"@x", "'=1\t'\"@x"),
            (" \" '\t=1", "' \" '\t'=1"),
        ] {
            assert_eq!(defused(text), cells);
        }
        for text in ["", "rent", "a=1", "1-2", " rent", "\"rent\"", "'tis", "x\ny; z", "€5", "ß"] {
            assert_eq!(defused(text), text);
        }
    }
}
