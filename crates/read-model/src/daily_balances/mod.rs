//! The view of daily balances: one row for each day on which money moved on an account.

mod check;
mod projection;

use chrono::NaiveDate;
use serde::Serialize;
use sqlx::query_file_as;
use utoipa::ToSchema;
use uuid::Uuid;

pub(super) use projection::DailyBalances;

use super::{Error, ReadModel, Seen, Sum, page, projection::Applicable};
use passbook_event_store::Position;

/// A day of an account as the queries show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ToSchema)]
pub struct DailyBalance {
    /// The day, in UTC.
    pub date: NaiveDate,
    /// The balance before its first movement, in minor units.
    #[schema(example = 10000, minimum = 0, maximum = 9007199254740991i64)]
    pub opening: i64,
    /// What came in over the day. Many movements together may pass what a balance may be.
    #[serde(rename = "in")]
    #[schema(value_type = i128, example = 500, minimum = 0)]
    pub money_in: Sum,
    /// What went out over the day.
    #[serde(rename = "out")]
    #[schema(value_type = i128, example = 200, minimum = 0)]
    pub money_out: Sum,
    /// The balance after its last movement, in minor units.
    #[schema(example = 10300, minimum = 0, maximum = 9007199254740991i64)]
    pub closing: i64,
    /// How many movements there were.
    #[schema(example = 2, minimum = 1)]
    pub count: i64,
}

impl DailyBalance {
    /// The last day after one more event, which is `last` or the one that follows it; `None` where no money moved. Times
    /// never go back in a log that verifies.
    fn evolve(last: Option<Self>, applicable: &Applicable) -> Option<Self> {
        let gain = applicable.event.gain();
        let date = applicable.recorded.recorded_at.date_naive();
        let opening = last.map_or(0, |last| last.closing);
        let mut day = match last {
            _ if gain == 0 => return None,
            Some(last) if date <= last.date => last,
            Some(_) | None => Self { date, opening, money_in: Sum(0), money_out: Sum(0), closing: opening, count: 0 },
        };
        day.money_in += gain.max(0);
        day.money_out += (-gain).max(0);
        day.closing += gain;
        day.count += 1;
        Some(day)
    }
}

/// Which of an account's days a list holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Period {
    /// This day or later.
    pub from: Option<NaiveDate>,
    /// Before this day.
    pub to: Option<NaiveDate>,
}

impl ReadModel {
    /// A page of an account's days behind `after`, oldest first, and whether there are more.
    pub async fn daily_balances(
        &self,
        account_id: Uuid,
        period: Period,
        after: Option<NaiveDate>,
        limit: i64,
        min_position: Option<&Position>,
    ) -> Result<Seen<(Vec<DailyBalance>, bool)>, Error> {
        let partition = self.partitions.of(account_id);
        self.at_least(partition, min_position, |pool| async move {
            let rows = query_file_as!(
                Row,
                "src/daily_balances/list.sql",
                partition,
                account_id,
                period.from,
                period.to,
                after,
                limit + 1
            )
            .fetch_all(&pool)
            .await?;
            let checkpoint =
                rows.first().map(|row| (self.partitions.position(partition, row.position), row.generation));
            Ok(checkpoint.map(|(position, generation)| Seen {
                value: page(rows.into_iter().filter_map(view).collect(), limit),
                position,
                generation,
            }))
        })
        .await
    }
}

/// A row of the view beside its checkpoint; all but the checkpoint is absent where the view holds nothing that fits.
struct Row {
    position: i64,
    generation: i16,
    date: Option<NaiveDate>,
    opening: Option<i64>,
    money_in: Option<Sum>,
    money_out: Option<Sum>,
    closing: Option<i64>,
    count: Option<i64>,
}

fn view(row: Row) -> Option<DailyBalance> {
    Some(DailyBalance {
        date: row.date?,
        opening: row.opening?,
        money_in: row.money_in?,
        money_out: row.money_out?,
        closing: row.closing?,
        count: row.count?,
    })
}

/// A row as the table holds it.
struct Recorded {
    account_id: Uuid,
    date: NaiveDate,
    opening: i64,
    money_in: Sum,
    money_out: Sum,
    closing: i64,
    count: i64,
}

impl Recorded {
    fn day(&self) -> DailyBalance {
        let &Self { date, opening, money_in, money_out, closing, count, .. } = self;
        DailyBalance { date, opening, money_in, money_out, closing, count }
    }
}
