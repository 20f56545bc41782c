//! Compares the bank's totals with the log.

use std::collections::BTreeMap;

use super::view::{AccountsByStatus, CurrencyTotal, opening_currency};
use crate::{
    account_table::FoldedAccounts,
    decoded_event::DecodedEvent,
    money_sum::MoneySum,
    projection::{Check, Mismatch, ViewGeneration},
};
use futures_util::{FutureExt, future::BoxFuture};
use passbook_domain::Currency;
use sqlx::{PgConnection, Result, query};
use uuid::Uuid;

/// The total of each currency that follows from the events, with the position of its last event.
#[derive(Default)]
pub(super) struct BankTotalsCheck {
    currencies: FoldedAccounts<Option<Currency>>,
    totals: BTreeMap<&'static str, (CurrencyTotal, i64)>,
}

impl Check for BankTotalsCheck {
    fn fold(&mut self, DecodedEvent { recorded, event, place }: &DecodedEvent) {
        let currency = self.currencies.get_or_default(recorded.stream_id, *place);
        *currency = opening_currency(event).or(*currency);
        // In a log that passes verification no event precedes the opening of its account.
        let Some(currency) = currency else { return };
        let (total, position) = self.totals.entry(currency.code()).or_default();
        total.add(event);
        *position = recorded.position;
    }

    /// A total over all accounts cannot be compared with the events of a sample.
    fn compare<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        view: ViewGeneration,
        only: Option<&'a [Uuid]>,
    ) -> BoxFuture<'a, Result<Option<Mismatch>>> {
        async move {
            if only.is_some() {
                return Ok(None);
            }
            let rows = query!(
                r#"SELECT currency, open, frozen, closed, money::text AS "money!: MoneySum", event_count,
                          transferred::text AS "transferred!: MoneySum"
                   FROM bank_total
                   WHERE partition = $1 AND generation = $2"#,
                view.partition,
                view.generation
            )
            .fetch_all(connection)
            .await?;
            let actual: BTreeMap<&str, CurrencyTotal> = rows
                .iter()
                .map(|row| {
                    let accounts = AccountsByStatus { open: row.open, frozen: row.frozen, closed: row.closed };
                    let (money, transferred, event_count) = (row.money, row.transferred, row.event_count);
                    (&*row.currency, CurrencyTotal { accounts, money, transferred, event_count })
                })
                .collect();
            let expected = |currency: &str| self.totals.get(currency).copied();
            let differs =
                |currency: &&&str| actual.get(*currency).copied() != expected(currency).map(|(total, _)| total);
            let mismatch = self.totals.keys().chain(actual.keys()).find(differs);
            Ok(mismatch.map(|currency| Mismatch {
                position: expected(currency).map_or(0, |(_, position)| position),
                message: format!("the totals of {currency} do not match the events"),
            }))
        }
        .boxed()
    }
}
