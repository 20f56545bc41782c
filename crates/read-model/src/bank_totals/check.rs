//! Compares the bank's totals with the log.

use std::collections::{BTreeMap, HashMap};

use futures_util::{FutureExt, future::BoxFuture};
use sqlx::{PgConnection, Result, query};
use uuid::Uuid;

use super::{
    super::{
        Sum,
        projection::{Applicable, Check, Flaw, Place},
    },
    AccountsByStatus, Total,
    projection::currency,
};
use passbook_domain::Currency;

/// Every currency's total as the events make it, with the position of the last one.
#[derive(Default)]
pub(super) struct BankTotalsCheck {
    currencies: HashMap<Uuid, Currency>,
    totals: BTreeMap<&'static str, (Total, i64)>,
}

impl Check for BankTotalsCheck {
    fn apply(&mut self, Applicable { recorded, event }: &Applicable) {
        self.currencies.extend(currency(event).map(|currency| (recorded.stream_id, currency)));
        // Nothing happens to an account before its opening in a log that verifies.
        let Some(currency) = self.currencies.get(&recorded.stream_id) else { return };
        let (total, position) = self.totals.entry(currency.code()).or_default();
        total.record(event);
        *position = recorded.position;
    }

    /// Some accounts' events alone say nothing of a sum over all.
    fn compare<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        place: Place,
        only: Option<&'a [Uuid]>,
    ) -> BoxFuture<'a, Result<Option<Flaw>>> {
        async move {
            if only.is_some() {
                return Ok(None);
            }
            let rows = query!(
                r#"SELECT currency, open, frozen, closed, money::text AS "money!: Sum", event_count
                   FROM bank_total
                   WHERE partition = $1 AND generation = $2"#,
                place.partition,
                place.generation
            )
            .fetch_all(connection)
            .await?;
            let found: BTreeMap<&str, Total> = rows
                .iter()
                .map(|row| {
                    let accounts = AccountsByStatus { open: row.open, frozen: row.frozen, closed: row.closed };
                    (&*row.currency, Total { accounts, money: row.money, event_count: row.event_count })
                })
                .collect();
            let expected = |currency: &str| self.totals.get(currency).copied();
            let differs =
                |currency: &&&str| found.get(*currency).copied() != expected(currency).map(|(total, _)| total);
            let flawed = self.totals.keys().chain(found.keys()).find(differs);
            Ok(flawed.map(|currency| Flaw {
                position: expected(currency).map_or(0, |(_, position)| position),
                sentence: format!("the totals of {currency} are not what the events say"),
            }))
        }
        .boxed()
    }
}
