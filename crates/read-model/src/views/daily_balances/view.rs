//! A day of an account as queries return it: the fold of its events, and pages of days.

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use serde::Serialize;
use sqlx::query_file_as;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    decoded_event::DecodedEvent,
    money_sum::MoneySum,
    positioned::Positioned,
    read_model::{Error, ReadModel},
};
use passbook_event_store::Position;

/// A day of an account as queries return it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ToSchema)]
pub struct DailyBalance {
    /// The day in UTC.
    pub date: NaiveDate,
    /// The balance before the first transaction of the day, in minor units; negative while the overdraft is used.
    #[schema(example = 10000, minimum = -9007199254740991i64, maximum = 9007199254740991i64)]
    pub opening: i64,
    /// The sum of the amounts that increased the balance, in minor units, as digits. It can exceed the limit of a balance.
    #[serde(rename = "in")]
    #[schema(value_type = String, example = "500", pattern = "^[0-9]+$")]
    pub money_in: MoneySum,
    /// The sum of the amounts that decreased the balance, in minor units, as digits. It can exceed the limit of a balance.
    #[serde(rename = "out")]
    #[schema(value_type = String, example = "200", pattern = "^[0-9]+$")]
    pub money_out: MoneySum,
    /// The balance after the last transaction of the day, in minor units; negative while the overdraft is used.
    #[schema(example = 10300, minimum = -9007199254740991i64, maximum = 9007199254740991i64)]
    pub closing: i64,
    /// The number of transactions of the day.
    #[schema(example = 2, minimum = 1)]
    pub count: i64,
}

impl DailyBalance {
    /// Folds one more event into the last day of an account. The result is the same day or a later one; `None` if no money moved.
    /// Times never decrease in a log that passes verification.
    pub(super) fn evolve(last: Option<Self>, decoded: &DecodedEvent) -> Option<Self> {
        let change = decoded.event.balance_change();
        let date = decoded.recorded.recorded_at.date_naive();
        let opening = last.map_or(0, |last| last.closing);
        let mut day = match last {
            _ if change == 0 => return None,
            Some(last) if date <= last.date => last,
            Some(_) | None => {
                Self { date, opening, money_in: MoneySum(0), money_out: MoneySum(0), closing: opening, count: 0 }
            }
        };
        day.money_in += change.max(0);
        day.money_out += (-change).max(0);
        day.closing += change;
        day.count += 1;
        Some(day)
    }
}

/// Which days of an account a list contains.
#[derive(Clone, Copy, Debug, Default)]
pub struct Period {
    /// This day or later.
    pub from: Option<NaiveDate>,
    /// Before this day.
    pub to: Option<NaiveDate>,
}

impl Period {
    /// The first moment after the period; `None` if it has no end.
    pub fn end(&self) -> Option<DateTime<Utc>> {
        self.to.map(|day| day.and_time(NaiveTime::MIN).and_utc())
    }
}

impl ReadModel {
    /// A page of an account's days after the day `after`, the oldest first, and whether there are more.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn daily_balances(
        &self,
        account_id: Uuid,
        period: Period,
        after: Option<NaiveDate>,
        limit: i64,
        min_position: Option<&Position>,
    ) -> Result<Positioned<(Vec<DailyBalance>, bool)>, Error> {
        let partition = self.partitions.partition_of(account_id);
        let days = self.query_at_least(partition, min_position, |pool| async move {
            let rows = query_file_as!(
                Row,
                "src/views/daily_balances/list.sql",
                partition,
                account_id,
                period.from,
                period.to,
                after,
                limit + 1
            )
            .fetch_all(&pool)
            .await?;
            let checkpoint = |row: &Row| (self.partitions.position_in(partition, row.position), row.generation);
            Ok(Positioned::from_rows(rows, checkpoint, Row::view))
        });
        Ok(days.await?.into_page(limit))
    }
}

/// A row of the view with its checkpoint. If no row of the view matches, only the checkpoint is present.
struct Row {
    position: i64,
    generation: i16,
    date: Option<NaiveDate>,
    opening: Option<i64>,
    money_in: Option<MoneySum>,
    money_out: Option<MoneySum>,
    closing: Option<i64>,
    count: Option<i64>,
}

impl Row {
    fn view(self) -> Option<DailyBalance> {
        Some(DailyBalance {
            date: self.date?,
            opening: self.opening?,
            money_in: self.money_in?,
            money_out: self.money_out?,
            closing: self.closing?,
            count: self.count?,
        })
    }
}

/// A row of the view with its account, as the projection and the check read it.
pub(super) struct AccountDay {
    pub(super) account_id: Uuid,
    pub(super) date: NaiveDate,
    pub(super) opening: i64,
    pub(super) money_in: MoneySum,
    pub(super) money_out: MoneySum,
    pub(super) closing: i64,
    pub(super) count: i64,
}

impl AccountDay {
    pub(super) fn day(&self) -> DailyBalance {
        let &Self { date, opening, money_in, money_out, closing, count, .. } = self;
        DailyBalance { date, opening, money_in, money_out, closing, count }
    }
}
