//! The view of the bank's totals: accounts by status and money, one row a currency.

mod check;
mod projection;

use std::collections::BTreeMap;

use serde::Serialize;
use sqlx::query_file;
use utoipa::ToSchema;

pub(super) use projection::BankTotals;

use super::{Error, ReadModel, Seen, Sum};
use passbook_domain::Event;
use passbook_event_store::Position;

/// How many accounts are in each status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct AccountsByStatus {
    /// Money moves.
    #[schema(example = 40, minimum = 0)]
    pub open: i64,
    /// No money moves until they are unfrozen.
    #[schema(example = 1, minimum = 0)]
    pub frozen: i64,
    /// Over.
    #[schema(example = 2, minimum = 0)]
    pub closed: i64,
}

/// The whole bank as the queries show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Accounts of all currencies.
    pub accounts: AccountsByStatus,
    /// What all accounts of a currency hold, in minor units, for each currency ever used.
    pub money: BTreeMap<String, Sum>,
}

impl Totals {
    fn and(mut self, other: Self) -> Self {
        self.accounts.open += other.accounts.open;
        self.accounts.frozen += other.accounts.frozen;
        self.accounts.closed += other.accounts.closed;
        for (currency, Sum(money)) in other.money {
            self.money.entry(currency).or_default().0 += money;
        }
        self
    }
}

/// A row of the view, or what events add to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Total {
    accounts: AccountsByStatus,
    money: Sum,
    event_count: i64,
}

impl Total {
    fn record(&mut self, event: &Event) {
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
        self.money += event.gain();
        self.event_count += 1;
    }
}

impl ReadModel {
    /// The whole bank: what all partitions come to.
    pub async fn totals(&self, min_position: Option<&Position>) -> Result<Seen<Totals>, Error> {
        let seen = self.of_all(min_position, |partition, pool| async move {
            let rows = query_file!("src/bank_totals/totals.sql", partition).fetch_all(&pool).await?;
            let checkpoint =
                rows.first().map(|row| (self.partitions.position(partition, row.position), row.generation));
            let mut totals = Totals::default();
            for row in rows {
                totals.accounts.open += row.open.unwrap_or_default();
                totals.accounts.frozen += row.frozen.unwrap_or_default();
                totals.accounts.closed += row.closed.unwrap_or_default();
                // An empty bank has the checkpoint alone.
                totals.money.extend(row.currency.zip(row.money));
            }
            Ok(checkpoint.map(|(position, generation)| Seen { value: totals, position, generation }))
        });
        Ok(seen.await?.map(|totals| totals.into_iter().fold(Totals::default(), Totals::and)))
    }
}
