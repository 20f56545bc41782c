//! The trial balance: the fold of the postings of all events, and the query.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use serde::Serialize;
use sqlx::query_file;
use utoipa::ToSchema;

use crate::{
    money_sum::MoneySum,
    positioned::Positioned,
    read_model::{Error, ReadModel},
};
use passbook_domain::books::Posting;
use passbook_event_store::Position;

/// A row of the view, or the changes that a batch of events adds to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LedgerTotal {
    pub(super) debit: MoneySum,
    pub(super) credit: MoneySum,
    pub(super) event_count: i64,
}

impl LedgerTotal {
    pub(super) fn post(&mut self, posting: Posting) {
        self.debit += posting.debit();
        self.credit += posting.credit();
    }
}

/// The key of a row within its generation: the day, the code of the currency and the name of the ledger account.
pub(super) type LedgerKey = (NaiveDate, &'static str, &'static str);

/// A line of the trial balance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct LedgerBalance {
    /// The currency (ISO 4217).
    #[schema(example = "EUR", pattern = "^[A-Z]{3}$")]
    pub currency: String,
    /// The ledger account.
    #[schema(example = "assets:cash:branch")]
    pub ledger_account: String,
    /// The sum of all debits, in minor units, as digits.
    #[schema(value_type = String, example = "15000", pattern = "^[0-9]+$")]
    pub debit: MoneySum,
    /// The sum of all credits, in minor units, as digits.
    #[schema(value_type = String, example = "500", pattern = "^[0-9]+$")]
    pub credit: MoneySum,
    /// Debits less credits: positive for what the bank has, negative for what it owes.
    #[schema(value_type = String, example = "14500", pattern = "^-?[0-9]+$")]
    pub balance: MoneySum,
}

/// The lines of the trial balance by currency and ledger account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrialBalance {
    /// The lines. A currency without postings has one of zeros if an account was opened in it.
    pub lines: Vec<LedgerBalance>,
}

impl TrialBalance {
    /// The sum over all partitions.
    fn sum(rows: impl Iterator<Item = Row>) -> Self {
        let mut sums: BTreeMap<(String, String), (i128, i128)> = BTreeMap::new();
        for row in rows {
            let (debit, credit) = sums.entry((row.currency, row.ledger_account)).or_default();
            *debit += row.debit.0;
            *credit += row.credit.0;
        }
        let line = |((currency, ledger_account), (debit, credit))| LedgerBalance {
            currency,
            ledger_account,
            debit: MoneySum(debit),
            credit: MoneySum(credit),
            balance: MoneySum(debit - credit),
        };
        Self { lines: sums.into_iter().map(line).collect() }
    }
}

/// The sums of one partition.
struct Row {
    currency: String,
    ledger_account: String,
    debit: MoneySum,
    credit: MoneySum,
}

impl ReadModel {
    /// The trial balance at the end of a day, or now: the sum over all partitions. Debits equal credits at every moment, because
    /// each event is balanced.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn trial_balance(
        &self,
        date: Option<NaiveDate>,
        min_position: Option<&Position>,
    ) -> Result<Positioned<TrialBalance>, Error> {
        let sums = self.query_all_partitions(min_position, |partition, pool| async move {
            let rows =
                query_file!("src/views/ledger_totals/trial_balance.sql", partition, date).fetch_all(&pool).await?;
            let Some(first) = rows.first() else { return Ok(None) };
            let (position, generation) = (self.partitions.position_in(partition, first.position), first.generation);
            // The only row of an empty bank has a checkpoint and no currency.
            let sums = rows.into_iter().filter_map(|row| {
                let (currency, ledger_account) = (row.currency?, row.ledger_account?);
                Some(Row { currency, ledger_account, debit: row.debit?, credit: row.credit? })
            });
            let value: Vec<Row> = sums.collect();
            Ok(Some(Positioned { value, position, generation }))
        });
        Ok(sums.await?.map(|partitions| TrialBalance::sum(partitions.into_iter().flatten())))
    }
}
