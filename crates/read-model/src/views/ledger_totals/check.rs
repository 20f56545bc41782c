//! Compares the ledger totals with the log.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use futures_util::{FutureExt, future::BoxFuture};
use sqlx::{PgConnection, Result, query};
use uuid::Uuid;

use super::{
    originals::read_originals,
    projection::reversed_movement,
    view::{LedgerKey, LedgerTotal},
};
use crate::{
    account_table::FoldedAccounts,
    decoded_event::{DecodedEvent, cannot_apply},
    money_sum::MoneySum,
    projection::{Check, Mismatch, ViewGeneration},
    views::bank_totals::opening_currency,
};
use passbook_domain::{
    Currency,
    books::{self, LedgerAccount},
};
use passbook_event_store::StreamVersion;

/// The totals that follow from the events. Its memory grows with accounts and with reversals, because the ledger account of a
/// reversed movement is looked up at the end.
#[derive(Default)]
pub(super) struct LedgerTotalsCheck {
    currencies: FoldedAccounts<Option<Currency>>,
    totals: BTreeMap<LedgerKey, LedgerTotal>,
    /// What reversals of each movement changed in the balance of its account, by day.
    reversals: BTreeMap<(StreamVersion, NaiveDate), (&'static str, MoneySum)>,
    /// The last event of each currency.
    positions: BTreeMap<&'static str, i64>,
}

impl Check for LedgerTotalsCheck {
    fn fold(&mut self, decoded: &DecodedEvent) {
        let DecodedEvent { recorded, event, place } = decoded;
        let currency = self.currencies.get_or_default(recorded.stream_id, *place);
        *currency = opening_currency(event).or(*currency);
        // In a log that passes verification no event precedes the opening of its account.
        let Some(currency) = currency else { return };
        let (day, currency) = (recorded.recorded_at.date_naive(), currency.code());
        self.positions.insert(currency, recorded.position);
        let deposits = self.totals.entry((day, currency, LedgerAccount::CustomerDeposits.name())).or_default();
        deposits.event_count += 1;
        match (books::postings(event, None), reversed_movement(decoded)) {
            (Ok(postings), _) => {
                for posting in postings.into_iter().flatten() {
                    self.totals.entry((day, currency, posting.account.name())).or_default().post(posting);
                }
            }
            (Err(_), Some(movement)) => {
                let change = event.balance_change();
                deposits.debit += (-change).max(0);
                deposits.credit += change.max(0);
                let (_, sum) = self.reversals.entry((movement, day)).or_insert((currency, MoneySum(0)));
                *sum += change;
            }
            (Err(_), None) => {}
        }
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
            let expected = self.with_reversals(connection, view.partition).await?;
            let rows = query!(
                r#"SELECT day, currency, ledger_account, debit::text AS "debit!: MoneySum",
                          credit::text AS "credit!: MoneySum", event_count
                   FROM ledger_total
                   WHERE partition = $1 AND generation = $2"#,
                view.partition,
                view.generation
            )
            .fetch_all(connection)
            .await?;
            let actual: BTreeMap<(NaiveDate, &str, &str), LedgerTotal> = rows
                .iter()
                .map(|row| {
                    let (debit, credit, event_count) = (row.debit, row.credit, row.event_count);
                    let key = (row.day, &*row.currency, &*row.ledger_account);
                    (key, LedgerTotal { debit, credit, event_count })
                })
                .collect();
            let mut keys = expected.keys().copied().chain(actual.keys().copied());
            let mismatch = keys.find(|key| expected.get(key) != actual.get(key));
            Ok(mismatch.map(|(day, currency, account)| Mismatch {
                position: self.positions.get(currency).copied().unwrap_or(0),
                message: format!("the ledger totals of {account} in {currency} on {day} do not match the events"),
            }))
        }
        .boxed()
    }
}

impl LedgerTotalsCheck {
    /// The totals with the other sides of the reversals.
    async fn with_reversals(
        &self,
        connection: &mut PgConnection,
        partition: i16,
    ) -> Result<BTreeMap<(NaiveDate, &str, &str), LedgerTotal>> {
        let mut totals: BTreeMap<(NaiveDate, &str, &str), LedgerTotal> =
            self.totals.iter().map(|(key, total)| (*key, *total)).collect();
        let mut movements: Vec<StreamVersion> = self.reversals.keys().map(|(movement, _)| *movement).collect();
        movements.dedup();
        let originals = read_originals(connection, partition, &movements).await?;
        for ((movement, day), (currency, change)) in &self.reversals {
            let account = originals.get(movement).ok_or_else(|| {
                cannot_apply(format!("account {} has no version {}", movement.stream_id, movement.version))
            })?;
            let total = totals.entry((*day, *currency, account.name())).or_default();
            // A credit of the customer is a debit of the other side.
            total.debit.0 += change.0.max(0);
            total.credit.0 += (-change.0).max(0);
        }
        Ok(totals)
    }
}
