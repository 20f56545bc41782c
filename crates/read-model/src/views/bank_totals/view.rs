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

/// The version of the shape of the rows. Since version 2 a row knows the money that transfers moved.
pub(super) const SCHEMA_VERSION: i16 = 2;

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
    /// The sum of the balances of each currency that was ever used, in minor units. Of each transfer it contains both sides or
    /// neither.
    pub money: BTreeMap<String, MoneySum>,
    /// What active holds of each currency set aside at the moment of the query, in minor units. It has each currency of `money`.
    pub held: BTreeMap<String, MoneySum>,
}

impl Totals {
    /// The sum over all partitions.
    ///
    /// The two sides of a transfer between partitions reach their views at different moments. A transfer moves no money in or out of
    /// the bank, so the sum leaves out what transfers moved, and is right at every moment. While a rebuild after an upgrade runs, some
    /// partitions have only rows that include transfers; then all rows include them.
    fn sum(partitions: &[PartitionTotals]) -> Self {
        let knows_transfers = partitions.iter().all(|partition| partition.schema_version >= SCHEMA_VERSION);
        let mut totals = Self::default();
        for (currency, total) in partitions.iter().flat_map(|partition| &partition.currencies) {
            totals.accounts.open += total.accounts.open;
            totals.accounts.frozen += total.accounts.frozen;
            totals.accounts.closed += total.accounts.closed;
            let transferred = if knows_transfers { total.transferred.0 } else { 0 };
            totals.money.entry(currency.clone()).or_default().0 += total.money.0 - transferred;
            totals.held.entry(currency.clone()).or_default();
        }
        for (currency, held) in partitions.iter().flat_map(|partition| &partition.held) {
            totals.held.entry(currency.clone()).or_default().0 += held.0;
        }
        totals
    }
}

/// The rows of one partition.
struct PartitionTotals {
    /// The version of the shape of the rows.
    schema_version: i16,
    currencies: Vec<(String, CurrencyTotal)>,
    /// By currency.
    held: Vec<(String, MoneySum)>,
}

/// A row of the view, or the changes that a batch of events adds to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CurrencyTotal {
    pub(super) accounts: AccountsByStatus,
    pub(super) money: MoneySum,
    /// The part of `money` that transfers brought, less what they took.
    pub(super) transferred: MoneySum,
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
            Event::TransferSent(_) | Event::TransferReceived(_) => self.transferred += event.balance_change(),
            Event::MovementReversed(reversed) if reversed.transfer_id.is_some() => {
                self.transferred += event.balance_change();
            }
            Event::MoneyDeposited(_)
            | Event::MoneyWithdrawn(_)
            | Event::HoldPlaced(_)
            | Event::HoldCaptured(_)
            | Event::HoldReleased(_)
            | Event::MovementReversed(_)
            | Event::LimitsSet(_) => {}
        }
        self.money += event.balance_change();
        self.event_count += 1;
    }
}

/// The currency of an account, if `event` is its opening. Other events do not contain it.
pub(in crate::views) fn opening_currency(event: &Event) -> Option<Currency> {
    match event {
        Event::AccountOpened(opened) => Some(opened.currency),
        Event::MoneyDeposited(_)
        | Event::MoneyWithdrawn(_)
        | Event::TransferSent(_)
        | Event::TransferReceived(_)
        | Event::HoldPlaced(_)
        | Event::HoldCaptured(_)
        | Event::HoldReleased(_)
        | Event::MovementReversed(_)
        | Event::LimitsSet(_)
        | Event::AccountFrozen(_)
        | Event::AccountUnfrozen(_)
        | Event::AccountClosed(_) => None,
    }
}

impl ReadModel {
    /// The totals of the bank: the sum over all partitions. Transfers that run meanwhile do not change it. What holds set aside is read
    /// from the view of holds.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn totals(&self, min_position: Option<&Position>) -> Result<Positioned<Totals>, Error> {
        let totals = self.query_all_partitions(min_position, |partition, pool| async move {
            let held = query_file!("src/views/bank_totals/held.sql", partition).fetch_all(&pool).await?;
            let rows = query_file!("src/views/bank_totals/totals.sql", partition).fetch_all(&pool).await?;
            let Some((first, held_at)) = rows.first().zip(held.first()) else { return Ok(None) };
            // Increases when either view is rebuilt, because the result depends on both.
            let generation = first.generation + held_at.generation - 1;
            let position = self.partitions.position_in(partition, first.position.min(held_at.position));
            let schema_version = first.schema_version;
            let held = held.iter().filter_map(|row| Some((row.currency.clone()?, row.held?))).collect();
            // The only row of an empty bank has a checkpoint and no currency.
            let currencies = rows.into_iter().filter_map(|row| {
                let accounts = AccountsByStatus { open: row.open?, frozen: row.frozen?, closed: row.closed? };
                let (money, transferred) = (row.money?, row.transferred?);
                Some((row.currency?, CurrencyTotal { accounts, money, transferred, event_count: 0 }))
            });
            let value = PartitionTotals { schema_version, currencies: currencies.collect(), held };
            Ok(Some(Positioned { value, position, generation }))
        });
        Ok(totals.await?.map(|partitions| Totals::sum(&partitions)))
    }
}
