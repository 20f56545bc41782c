//! A statement as CSV for spreadsheets: amounts in major units, UTF-8 with a byte order mark, and no text that is executed.

use std::borrow::Cow;

use csv::{Terminator, WriterBuilder};
use uuid::Uuid;

use super::{
    body::{StatementFormat, Unrepresentable},
    content::{Content, kind_label},
};
use passbook_read_model::transactions::{Totals, TransactionView};

/// Spreadsheets take a file that starts with it for UTF-8.
const BYTE_ORDER_MARK: &str = "\u{feff}";
const COLUMNS: [&str; 10] = [
    "Date (UTC)",
    "Transaction",
    "Amount",
    "Balance",
    "Reference",
    "Counterparty",
    "Transfer",
    "Hold",
    "Version",
    "Event",
];
const DATE: usize = 0;
const TRANSACTION: usize = 1;
const AMOUNT: usize = 2;
const BALANCE: usize = 3;

/// Writes a statement as CSV.
pub(super) struct Csv(pub(super) Content);

type Row<'a> = [Cow<'a, str>; COLUMNS.len()];

impl StatementFormat for Csv {
    fn write_head(&mut self, bytes: &mut Vec<u8>) -> Result<(), Unrepresentable> {
        let Self(content) = &*self;
        let period = content.statement.period;
        bytes.extend(BYTE_ORDER_MARK.as_bytes());
        let about = [
            ("Account", content.statement.account_id.to_string()),
            ("Owner", defused(&content.owner).into_owned()),
            ("Currency", content.currency.code().to_owned()),
            ("From", period.from.to_string()),
            ("Before", period.to.to_string()),
        ];
        write(about.map(|(name, value)| row([(DATE, name.into()), (TRANSACTION, value.into())])), bytes);
        let opening = self.balance(period.from.to_string(), "Opening balance", content.statement.opening_balance);
        write([Row::default(), COLUMNS.map(Cow::from), opening], bytes);
        Ok(())
    }

    fn write_lines(&mut self, lines: &[TransactionView], bytes: &mut Vec<u8>) -> Result<(), Unrepresentable> {
        write(lines.iter().map(|line| self.line(line)), bytes);
        Ok(())
    }

    fn write_end(
        &mut self,
        Totals { total_in, total_out }: Totals,
        bytes: &mut Vec<u8>,
    ) -> Result<(), Unrepresentable> {
        let Self(content) = &*self;
        let total = |name: &'static str, sum| row([(TRANSACTION, name.into()), (AMOUNT, content.decimal(sum).into())]);
        let day = content.last_day().to_string();
        let closing = self.balance(day, "Closing balance", content.statement.closing_balance);
        write([total("Money in", total_in), total("Money out", -total_out), closing], bytes);
        Ok(())
    }
}

impl Csv {
    fn balance(&self, day: String, name: &'static str, minor_units: i64) -> Row<'static> {
        row([(DATE, day.into()), (TRANSACTION, name.into()), (BALANCE, self.0.decimal(minor_units).into())])
    }

    fn line<'a>(&self, line: &'a TransactionView) -> Row<'a> {
        let id = |id: Option<Uuid>| id.map(|id| id.to_string()).unwrap_or_default().into();
        [
            line.recorded_at.format("%Y-%m-%d %H:%M:%S").to_string().into(),
            kind_label(line).into(),
            self.0.decimal(line.balance_change()).into(),
            self.0.decimal(line.balance_after).into(),
            line.reference.as_deref().map(defused).unwrap_or_default(),
            id(line.counterparty_account_id),
            id(line.transfer_id),
            id(line.hold_id),
            line.version.to_string().into(),
            line.event_id.to_string().into(),
        ]
    }
}

/// A row with these cells.
fn row<'a, const CELLS: usize>(cells: [(usize, Cow<'a, str>); CELLS]) -> Row<'a> {
    let mut row = Row::default();
    for (column, text) in cells {
        row[column] = text;
    }
    row
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
