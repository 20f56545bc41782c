//! Compares the view of daily balances with the log.

use futures_util::{FutureExt, TryStreamExt, future::BoxFuture};
use sqlx::{PgConnection, Result, query_file_as};
use uuid::Uuid;

use super::view::{AccountDay, DailyBalance};
use crate::{
    decoded_event::DecodedEvent,
    money_sum::MoneySum,
    projection::{Check, Detail, Mismatch, ViewGeneration},
    row_set_hash::ExpectedRows,
};

/// The days of each account that follow from its events. The last day can still change; the days before it are final.
pub(super) struct DailyBalancesCheck(ExpectedRows<Option<DailyBalance>>);

impl DailyBalancesCheck {
    pub(super) fn new(detail: Detail) -> Self {
        Self(ExpectedRows::new(detail))
    }
}

impl Check for DailyBalancesCheck {
    fn fold(&mut self, decoded: &DecodedEvent) {
        if decoded.event.balance_change() == 0 {
            return;
        }
        self.0.fold(decoded, |last| {
            let day = DailyBalance::evolve(*last, decoded)?;
            last.replace(day).filter(|previous| previous.date != day.date)
        });
    }

    fn compare<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        view: ViewGeneration,
        only: Option<&'a [Uuid]>,
    ) -> BoxFuture<'a, Result<Option<Mismatch>>> {
        async move {
            let mut actual = self.0.actual_rows();
            let mut rows = query_file_as!(
                AccountDay,
                "src/views/daily_balances/all.sql",
                view.partition,
                view.generation,
                only as _
            )
            .fetch(connection);
            while let Some(row) = rows.try_next().await? {
                actual.add(row.account_id, row.day());
            }
            Ok(self.0.mismatch(&actual, "daily balances", |day| *day))
        }
        .boxed()
    }
}
