//! An account's statement over some days. What it rests on is read in one statement; its lines follow page by page, so
//! that it may be as long as it likes, and no connection is held while somebody takes his time to read it.

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use sqlx::query_file_as;
use tokio::time::{Duration, timeout};
use uuid::Uuid;

use super::{
    TransactionView,
    reckoning::{Reckoning, Totals},
};
use crate::{Error, QUERY_MS_MAX, ReadModel, Seen, timed_out};
use passbook_event_store::Position;

/// How many rows of the history are read at once.
const STATEMENT_PAGE_ROWS_MAX: i64 = 256;

/// Days in UTC, the last one excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// The first day.
    pub from: NaiveDate,
    /// The day after the last.
    pub to: NaiveDate,
}

/// What a statement says beside its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The account.
    pub account_id: Uuid,
    /// Its currency (ISO 4217).
    pub currency: String,
    /// The days.
    pub period: Period,
    /// The balance before the first day, in minor units.
    pub opening_balance: i64,
    /// The balance after the last day, in minor units.
    pub closing_balance: i64,
    /// The last version of the account before the first day.
    before: i64,
    /// The last version of the account within the days, or `before`.
    last: i64,
}

/// The lines of a statement, read page by page.
pub struct Lines {
    read_model: ReadModel,
    account_id: Uuid,
    reckoning: Reckoning,
}

impl ReadModel {
    /// An account's statement, or `None` where the view knows no such account.
    pub async fn statement(
        &self,
        account_id: Uuid,
        period: Period,
        min_position: Option<&Position>,
    ) -> Result<Seen<Option<Statement>>, Error> {
        let partition = self.partitions.of(account_id);
        self.at_least(partition, min_position, |pool| async move {
            let row = query_file_as!(
                Row,
                "src/transactions/statement.sql",
                partition,
                account_id,
                beginning(period.from),
                beginning(period.to)
            )
            .fetch_optional(&pool)
            .await?;
            Ok(row.and_then(|row| row.seen(period, |position| self.partitions.position(partition, position))))
        })
        .await
    }

    /// The lines of a statement, oldest first.
    pub fn lines(&self, statement: &Statement) -> Lines {
        let reckoning =
            Reckoning::new(statement.before..statement.last, statement.opening_balance, statement.closing_balance);
        Lines { read_model: self.clone(), account_id: statement.account_id, reckoning }
    }
}

impl Lines {
    /// The next lines, which may be none even before the end: money does not move at each version. They are checked
    /// before they are given away, and the last ones with what all of them come to.
    pub async fn next_page(&mut self) -> Result<Vec<TransactionView>, Error> {
        if self.is_over() {
            return Ok(vec![]);
        }
        let rows = self.read().await?;
        self.reckoning.add(&rows).map_err(Error::Broken)?;
        Ok(rows.into_iter().filter(|row| row.amount > 0).collect())
    }

    /// Whether all lines were read.
    pub fn is_over(&self) -> bool {
        self.reckoning.is_over()
    }

    /// What the lines read so far come to.
    pub fn totals(&self) -> Totals {
        self.reckoning.totals()
    }

    async fn read(&self) -> Result<Vec<TransactionView>, Error> {
        // However many statements are read at once, other queries find a connection.
        let _turn = self.read_model.statement_pages.acquire().await;
        let versions = self.reckoning.left();
        let rows = query_file_as!(
            TransactionView,
            "src/transactions/statement_page.sql",
            self.read_model.partitions.of(self.account_id),
            self.account_id,
            versions.start,
            versions.end,
            STATEMENT_PAGE_ROWS_MAX
        )
        .fetch_all(self.read_model.source.primary());
        let read = timeout(Duration::from_millis(QUERY_MS_MAX), rows).await;
        Ok(read.unwrap_or_else(|_| Err(timed_out()))?)
    }
}

fn beginning(day: NaiveDate) -> DateTime<Utc> {
    day.and_time(NaiveTime::MIN).and_utc()
}

struct Row {
    position: i64,
    generation: i16,
    account_id: Option<Uuid>,
    currency: Option<String>,
    before: i64,
    last: i64,
    opening_balance: i64,
    closing_balance: i64,
}

impl Row {
    /// `None` while the view of accounts is behind this one, and cannot tell the currency.
    fn seen(self, period: Period, tell: impl FnOnce(i64) -> Position) -> Option<Seen<Option<Statement>>> {
        let value = match (self.account_id, self.currency) {
            (None, _) => None,
            (Some(_), None) => return None,
            (Some(account_id), Some(currency)) => Some(Statement {
                account_id,
                currency,
                period,
                opening_balance: self.opening_balance,
                closing_balance: self.closing_balance,
                before: self.before,
                last: self.last,
            }),
        };
        Some(Seen { value, position: tell(self.position), generation: self.generation })
    }
}
