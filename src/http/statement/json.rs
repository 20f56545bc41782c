//! A statement as one JSON object. Its lines are written one page at a time.

use chrono::NaiveDate;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    body::{StatementFormat, Unrepresentable},
    content::Content,
};
use passbook_event_store::Position;
use passbook_read_model::{
    MoneySum,
    transactions::{
        Totals, TransactionView,
        statement::{Period, Statement},
    },
};

/// Writes a statement as JSON.
pub(super) struct Json {
    content: Content,
    has_lines: bool,
}

/// An account's statement.
#[derive(ToSchema)]
#[schema(as = Statement)]
#[expect(dead_code, reason = "only the derive reads it: the response is written in parts")]
pub struct StatementSchema {
    /// The account.
    account_id: Uuid,
    /// Its currency (ISO 4217).
    #[schema(example = "EUR")]
    currency: String,
    /// The customer who owns the account.
    #[schema(example = "customer-17")]
    owner: String,
    /// The first day, in UTC.
    from: NaiveDate,
    /// The day after the last, in UTC.
    to: NaiveDate,
    /// The balance before the first day, in minor units; 0 before the opening of the account.
    #[schema(example = 10000, minimum = -9007199254740991i64, maximum = 9007199254740991i64)]
    opening_balance: i64,
    /// Every movement of money in the period, oldest first.
    lines: Vec<TransactionView>,
    /// The sum of all money that came in, in minor units, as digits. It has no maximum, unlike a balance.
    #[schema(example = "5500", pattern = "^[0-9]+$")]
    total_in: String,
    /// The sum of all money that went out, in minor units, as digits. It has no maximum, unlike a balance.
    #[schema(example = "500", pattern = "^[0-9]+$")]
    total_out: String,
    /// The balance after the last day, in minor units: `opening_balance + total_in - total_out`.
    #[schema(example = 15000, minimum = -9007199254740991i64, maximum = 9007199254740991i64)]
    closing_balance: i64,
    /// How far the view had read. The statement contains no event that was recorded later.
    #[schema(value_type = String)]
    position: Position,
}

/// The members before the lines.
#[derive(Serialize)]
struct Head<'a> {
    account_id: Uuid,
    currency: &'a str,
    owner: &'a str,
    from: NaiveDate,
    to: NaiveDate,
    opening_balance: i64,
}

/// The members after the lines.
#[derive(Serialize)]
struct End {
    total_in: MoneySum,
    total_out: MoneySum,
    closing_balance: i64,
    position: Position,
}

impl Json {
    pub(super) fn new(content: Content) -> Self {
        Self { content, has_lines: false }
    }
}

impl StatementFormat for Json {
    fn write_head(&mut self, bytes: &mut Vec<u8>) -> Result<(), Unrepresentable> {
        let Content { statement, owner, .. } = &self.content;
        let Statement { account_id, currency, period: Period { from, to }, opening_balance, .. } = statement;
        let (account_id, from, to, opening_balance) = (*account_id, *from, *to, *opening_balance);
        write(&Head { account_id, currency, owner, from, to, opening_balance }, bytes);
        // Removes the closing brace, because further members follow.
        bytes.pop();
        bytes.extend(b",\"lines\":[");
        Ok(())
    }

    fn write_lines(&mut self, lines: &[TransactionView], bytes: &mut Vec<u8>) -> Result<(), Unrepresentable> {
        for line in lines {
            if self.has_lines {
                bytes.push(b',');
            }
            self.has_lines = true;
            write(line, bytes);
        }
        Ok(())
    }

    fn write_end(
        &mut self,
        Totals { total_in, total_out }: Totals,
        bytes: &mut Vec<u8>,
    ) -> Result<(), Unrepresentable> {
        let end = End {
            total_in: MoneySum(total_in),
            total_out: MoneySum(total_out),
            closing_balance: self.content.statement.closing_balance,
            position: self.content.position.clone(),
        };
        bytes.push(b']');
        let start = bytes.len();
        write(&end, bytes);
        // Replaces the opening brace, because the members belong to the same object.
        bytes[start] = b',';
        Ok(())
    }
}

fn write(value: &impl Serialize, bytes: &mut Vec<u8>) {
    serde_json::to_writer(bytes, value).expect("writing a plain value to memory cannot fail");
}
