//! The statement of an account over a period. Balances and versions are read by one SQL statement; the lines are then read page by
//! page. A statement can therefore have any length, and a slow client does not occupy a connection.

use std::{collections::HashMap, ops::Range, time::Duration};

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use sqlx::{query, query_file_as, types::Json};
use uuid::Uuid;

use super::{
    statement_check::{RunningBalance, Totals},
    versions::{LiveVersions, live_versions_at},
    view::{Columns, TransactionView},
};
use crate::{
    finality::last_moment_before,
    positioned::Positioned,
    query_router::QUERY_MS_MAX,
    read_model::{Error, ReadModel},
};
use passbook_domain::Metadata;
use passbook_event_store::{Position, with_timeout};

/// Limit of rows of the history per page.
const STATEMENT_PAGE_ROWS_MAX: i64 = 256;

/// A range of days in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// The first day.
    pub from: NaiveDate,
    /// The day after the last day.
    pub to: NaiveDate,
}

impl Period {
    /// The first moment after the period.
    pub fn end(&self) -> DateTime<Utc> {
        start_of(self.to)
    }
}

/// A statement without its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The account.
    pub account_id: Uuid,
    /// The currency (ISO 4217).
    pub currency: String,
    /// The days of the statement.
    pub period: Period,
    /// The balance before the first day, in minor units.
    pub opening_balance: i64,
    /// The balance after the last day, in minor units.
    pub closing_balance: i64,
    /// The last version of the account before the first day.
    before: i64,
    /// The last version of the account within the period; `before` if there is none.
    last: i64,
}

/// The lines of a statement, read page by page.
pub struct Lines {
    read_model: ReadModel,
    account_id: Uuid,
    balance: RunningBalance,
    has_batch_ids: bool,
}

impl ReadModel {
    /// The statement of an account, or `None` if the view does not contain the account.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn statement(
        &self,
        account_id: Uuid,
        period: Period,
        min_position: Option<&Position>,
    ) -> Result<Positioned<Option<Statement>>, Error> {
        let partition = self.partitions.partition_of(account_id);
        self.query_at_least(partition, min_position, |pool| async move {
            let times = [period.from, period.to].map(|day| last_moment_before(start_of(day)));
            let Some(LiveVersions { position, versions }) =
                live_versions_at(&pool, partition, account_id, &times).await?
            else {
                return Ok(None);
            };
            let [before, last] = versions[..] else { return Ok(None) };
            let row = query_file_as!(
                Row,
                "src/views/transactions/statement.sql",
                partition,
                account_id,
                before,
                last,
                position
            )
            .fetch_optional(&pool)
            .await?;
            let position = |position| self.partitions.position_in(partition, position);
            Ok(row.and_then(|row| row.statement(period, before..last, position)))
        })
        .await
    }

    /// The lines of a statement, oldest first. With `has_batch_ids` they have the batches of their commands, which are read from the
    /// log.
    pub fn lines(&self, statement: &Statement, has_batch_ids: bool) -> Lines {
        let balance =
            RunningBalance::new(statement.before..statement.last, statement.opening_balance, statement.closing_balance);
        Lines { read_model: self.clone(), account_id: statement.account_id, balance, has_batch_ids }
    }
}

impl Lines {
    /// The next lines, after they are checked. A page can be empty before the end, because not every event moves money. The last
    /// page is also checked against the closing balance.
    ///
    /// # Errors
    /// [`Error::Inconsistent`] if the lines contradict each other, [`Error::Storage`] if the database failed.
    pub async fn next_page(&mut self) -> Result<Vec<TransactionView>, Error> {
        if self.is_finished() {
            return Ok(vec![]);
        }
        let rows = self.read().await?;
        self.balance.add(&rows).map_err(Error::Inconsistent)?;
        Ok(rows.into_iter().filter(|row| row.amount > 0).collect())
    }

    /// Whether all lines are read.
    pub fn is_finished(&self) -> bool {
        self.balance.is_finished()
    }

    /// The totals of the lines read so far.
    pub fn totals(&self) -> Totals {
        self.balance.totals()
    }

    async fn read(&self) -> Result<Vec<TransactionView>, Error> {
        // Limits the connections that statements use at the same time.
        let _permit = self.read_model.statement_pages.acquire().await;
        let versions = self.balance.remaining();
        let rows = query_file_as!(
            Columns,
            "src/views/transactions/statement_page.sql",
            self.read_model.partitions.partition_of(self.account_id),
            self.account_id,
            versions.start,
            versions.end,
            STATEMENT_PAGE_ROWS_MAX
        )
        .fetch_all(self.read_model.router.primary());
        let rows = with_timeout(Duration::from_millis(QUERY_MS_MAX), rows).await?;
        let mut lines: Vec<TransactionView> = rows.into_iter().map(Columns::view).collect();
        if self.has_batch_ids {
            let batch_ids = with_timeout(Duration::from_millis(QUERY_MS_MAX), self.read_batch_ids(&lines)).await?;
            lines.iter_mut().for_each(|line| line.batch_id = batch_ids.get(&line.version).copied());
        }
        Ok(lines)
    }

    /// The batches of the commands behind these lines, by version.
    async fn read_batch_ids(&self, lines: &[TransactionView]) -> sqlx::Result<HashMap<i64, Uuid>> {
        let (Some(first), Some(last)) = (lines.first(), lines.last()) else { return Ok(HashMap::new()) };
        let rows = query!(
            r#"SELECT version, (metadata ->> 'batch_id')::uuid AS "batch_id!"
               FROM event
               WHERE partition = $1 AND stream_id = $2 AND version BETWEEN $3 AND $4 AND metadata ->> 'batch_id' IS NOT NULL"#,
            self.read_model.partitions.partition_of(self.account_id),
            self.account_id,
            first.version,
            last.version
        )
        .fetch_all(self.read_model.router.primary())
        .await?;
        Ok(rows.into_iter().map(|row| (row.version, row.batch_id)).collect())
    }
}

fn start_of(day: NaiveDate) -> DateTime<Utc> {
    day.and_time(NaiveTime::MIN).and_utc()
}

struct Row {
    position: i64,
    generation: i16,
    account_id: Option<Uuid>,
    currency: Option<String>,
    opening_balance: i64,
    closing_balance: i64,
}

impl Row {
    /// Returns `None` while the view of accounts is behind the view of transactions and does not have the currency yet.
    fn statement(
        self,
        period: Period,
        versions: Range<i64>,
        position: impl FnOnce(i64) -> Position,
    ) -> Option<Positioned<Option<Statement>>> {
        let value = match (self.account_id, self.currency) {
            (None, _) => None,
            (Some(_), None) => return None,
            (Some(account_id), Some(currency)) => Some(Statement {
                account_id,
                currency,
                period,
                opening_balance: self.opening_balance,
                closing_balance: self.closing_balance,
                before: versions.start,
                last: versions.end,
            }),
        };
        Some(Positioned { value, position: position(self.position), generation: self.generation })
    }
}
