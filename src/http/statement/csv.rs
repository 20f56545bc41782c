//! A statement as a table (RFC 4180), safe to be opened in a spreadsheet.

use std::borrow::Cow;

use csv::{Terminator, WriterBuilder};
use uuid::Uuid;

use super::Form;
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

/// A statement that is being written as CSV.
pub(super) struct Csv(pub(super) Statement);

type Row<'a> = [Cow<'a, str>; COLUMNS.len()];

impl Form for Csv {
    fn content_type(&self) -> &'static str {
        "text/csv; charset=utf-8; header=present"
    }

    fn head(&mut self, bytes: &mut Vec<u8>) {
        let opening = summary("opening_balance", BALANCE_AFTER, self.0.opening_balance);
        write([COLUMNS.map(Cow::from), opening], bytes);
    }

    fn lines(&mut self, lines: &[TransactionView], bytes: &mut Vec<u8>) {
        write(lines.iter().map(row), bytes);
    }

    fn end(&mut self, Totals { total_in, total_out }: Totals, bytes: &mut Vec<u8>) {
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
        writer.write_record(row.iter().map(|cell| cell.as_bytes())).expect("a row is written to memory");
    }
    writer.flush().expect("a row is written to memory");
}

/// A text as a cell that no spreadsheet runs: with an apostrophe before whatever begins as a formula does, also behind
/// blanks and quotes, which some programs drop, and behind what parts cells or rows where a comma does not (OWASP, CSV
/// Injection). Take them away and the text is what it was.
fn defused(text: &str) -> Cow<'_, str> {
    let cells: Vec<&str> = text.split_inclusive([';', '\t', '\r', '\n']).collect();
    let begins_with_control = cells.first().is_some_and(|first| before(first).contains(char::is_control));
    if !begins_with_control && !cells.iter().any(|cell| is_formula(cell)) {
        return text.into();
    }
    let mut defused = String::with_capacity(text.len() + cells.len());
    for (number, cell) in cells.into_iter().enumerate() {
        if is_formula(cell) || number == 0 && begins_with_control {
            defused.push('\'');
        }
        defused.push_str(cell);
    }
    defused.into()
}

/// What some programs drop before they look.
fn before(cell: &str) -> &str {
    let rest = cell.trim_start_matches(|c: char| c.is_whitespace() || c.is_control() || is_quote(c) || is_invisible(c));
    &cell[..cell.len() - rest.len()]
}

fn is_formula(cell: &str) -> bool {
    cell[before(cell).len()..].starts_with(['=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'])
}

fn is_quote(character: char) -> bool {
    matches!(character, '"' | '\'' | '`' | '\u{2018}'..='\u{201f}')
}

/// Takes no room: a byte order mark and the like.
fn is_invisible(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_begins_as_a_formula_does_gets_an_apostrophe_and_no_other() {
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
