//! A statement as one JSON object: its lines stand in the middle and are written as they come.

use chrono::NaiveDate;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Form;
use passbook_event_store::Position;
use passbook_read_model::transactions::{
    Totals, TransactionView,
    statement::{Period, Statement},
};

/// A statement that is being written as JSON.
pub(super) struct Json {
    statement: Statement,
    position: Position,
    has_lines: bool,
}

/// An account's statement.
#[derive(ToSchema)]
#[schema(as = Statement)]
#[expect(dead_code, reason = "read by the derive alone: the answer is written piece by piece")]
pub struct StatementBody {
    /// The account.
    account_id: Uuid,
    /// Its currency (ISO 4217).
    #[schema(example = "EUR")]
    currency: String,
    /// The first day, in UTC.
    from: NaiveDate,
    /// The day after the last, in UTC.
    to: NaiveDate,
    /// The balance before the first day, in minor units; 0 before the account was opened.
    #[schema(example = 10000, minimum = 0, maximum = 9007199254740991i64)]
    opening_balance: i64,
    /// Every movement of money within the days, oldest first.
    lines: Vec<TransactionView>,
    /// What came in, in minor units. Only balances have a ceiling.
    #[schema(example = 5500, minimum = 0)]
    total_in: i128,
    /// What went out, in minor units. Only balances have a ceiling.
    #[schema(example = 500, minimum = 0)]
    total_out: i128,
    /// The balance after the last day: the opening balance and what came in, less what went out.
    #[schema(example = 15000, minimum = 0, maximum = 9007199254740991i64)]
    closing_balance: i64,
    /// How far the view had read: nothing that was recorded later is in the statement.
    #[schema(value_type = String, example = "42")]
    position: Position,
}

/// What stands before the lines.
#[derive(Serialize)]
struct Head<'a> {
    account_id: Uuid,
    currency: &'a str,
    from: NaiveDate,
    to: NaiveDate,
    opening_balance: i64,
}

/// What stands behind the lines.
#[derive(Serialize)]
struct End {
    total_in: i128,
    total_out: i128,
    closing_balance: i64,
    position: Position,
}

impl Json {
    pub(super) fn new(statement: Statement, position: Position) -> Self {
        Self { statement, position, has_lines: false }
    }
}

impl Form for Json {
    fn content_type(&self) -> &'static str {
        "application/json"
    }

    fn head(&mut self, bytes: &mut Vec<u8>) {
        let Statement { account_id, currency, period: Period { from, to }, opening_balance, .. } = &self.statement;
        let (account_id, from, to, opening_balance) = (*account_id, *from, *to, *opening_balance);
        write(&Head { account_id, currency, from, to, opening_balance }, bytes);
        // The object goes on.
        bytes.pop();
        bytes.extend(b",\"lines\":[");
    }

    fn lines(&mut self, lines: &[TransactionView], bytes: &mut Vec<u8>) {
        for line in lines {
            if self.has_lines {
                bytes.push(b',');
            }
            self.has_lines = true;
            write(line, bytes);
        }
    }

    fn end(&mut self, Totals { total_in, total_out }: Totals, bytes: &mut Vec<u8>) {
        let end = End {
            total_in,
            total_out,
            closing_balance: self.statement.closing_balance,
            position: self.position.clone(),
        };
        bytes.push(b']');
        let start = bytes.len();
        write(&end, bytes);
        // In place of the brace that would begin another object.
        bytes[start] = b',';
    }
}

fn write(value: &impl Serialize, bytes: &mut Vec<u8>) {
    serde_json::to_writer(bytes, value).expect("a plain value is written to memory");
}
