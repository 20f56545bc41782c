//! The totals of the bank: the fold of the events of all accounts, and the query.

use std::collections::BTreeMap;

use serde::Serialize;
use sqlx::query_file;
use utoipa::ToSchema;

use crate::{
    money_sum::MoneySum,
    positioned::Positioned,
    read_model::{Error, ReadModel},
};
use passbook_domain::{Currency, Event};
use passbook_event_store::Position;

/// The number of accounts in each status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct AccountsByStatus {
    /// Accounts that can move money.
    #[schema(example = 40, minimum = 0)]
    pub open: i64,
    /// Accounts that cannot move money until they are unfrozen.
    #[schema(example = 1, minimum = 0)]
    pub frozen: i64,
    /// Accounts that are closed for good.
    #[schema(example = 2, minimum = 0)]
    pub closed: i64,
}

/// The totals of the bank as queries return them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Accounts of all currencies.
    pub accounts: AccountsByStatus,
    /// The sum of the balances of each currency that was ever used, in minor units.
    pub money: BTreeMap<String, MoneySum>,
}

impl Totals {
    fn merge(mut self, other: Self) -> Self {
        self.accounts.open += other.accounts.open;
        self.accounts.frozen += other.accounts.frozen;
        self.accounts.closed += other.accounts.closed;
        for (currency, MoneySum(money)) in other.money {
            self.money.entry(currency).or_default().0 += money;
        }
        self
    }
}

/// A row of the view, or the changes that a batch of events adds to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CurrencyTotal {
    pub(super) accounts: AccountsByStatus,
    pub(super) money: MoneySum,
    pub(super) event_count: i64,
}

impl CurrencyTotal {
    pub(super) fn add(&mut self, event: &Event) {
        let AccountsByStatus { open, frozen, closed } = &mut self.accounts;
        match event {
            Event::AccountOpened(_) => *open += 1,
            Event::AccountFrozen(_) => (*open, *frozen) = (*open - 1, *frozen + 1),
            Event::AccountUnfrozen(_) => (*open, *frozen) = (*open + 1, *frozen - 1),
            Event::AccountClosed(_) => (*open, *closed) = (*open - 1, *closed + 1),
            Event::MoneyDeposited(_)
            | Event::MoneyWithdrawn(_)
            | Event::TransferSent(_)
            | Event::TransferReceived(_) => {}
        }
        self.money += event.balance_change();
        self.event_count += 1;
    }
}

/// The currency of an account, if `event` is its opening. Other events do not contain it.
pub(super) fn opening_currency(event: &Event) -> Option<Currency> {
    match event {
        Event::AccountOpened(opened) => Some(opened.currency),
        Event::MoneyDeposited(_)
        | Event::MoneyWithdrawn(_)
        | Event::TransferSent(_)
        | Event::TransferReceived(_)
        | Event::AccountFrozen(_)
        | Event::AccountUnfrozen(_)
        | Event::AccountClosed(_) => None,
    }
}

impl ReadModel {
    /// The totals of the bank: the sum over all partitions.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn totals(&self, min_position: Option<&Position>) -> Result<Positioned<Totals>, Error> {
        let totals = self.query_all_partitions(min_position, |partition, pool| async move {
            let rows = query_file!("src/views/bank_totals/totals.sql", partition).fetch_all(&pool).await?;
            let checkpoint =
                rows.first().map(|row| (self.partitions.position_in(partition, row.position), row.generation));
            let mut totals = Totals::default();
            for row in rows {
                totals.accounts.open += row.open.unwrap_or_default();
                totals.accounts.frozen += row.frozen.unwrap_or_default();
                totals.accounts.closed += row.closed.unwrap_or_default();
                // The only row of an empty bank has a checkpoint and no currency.
                totals.money.extend(row.currency.zip(row.money));
            }
            Ok(checkpoint.map(|(position, generation)| Positioned { value: totals, position, generation }))
        });
        Ok(totals.await?.map(|totals| totals.into_iter().fold(Totals::default(), Totals::merge)))
    }
}
