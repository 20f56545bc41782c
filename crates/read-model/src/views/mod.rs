//! The views: tables that projections fill and queries read, one folder each, and the list of all of them.

pub(crate) mod account_cache;
pub mod accounts;
pub mod bank_totals;
mod columns;
pub mod daily_balances;
pub mod holds;
pub mod ledger_totals;
pub mod transactions;

use std::sync::LazyLock;

use self::{
    account_cache::Purpose, accounts::projection::Accounts, bank_totals::projection::BankTotals,
    daily_balances::projection::DailyBalances, holds::projection::Holds, ledger_totals::projection::LedgerTotals,
    transactions::projection::Transactions,
};
use crate::projection::{Check, Detail, Projection};
use passbook_event_store::PrimaryConnector;

/// How projections write rows that may exist already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowWrites {
    /// One statement inserts or updates them.
    Upsert,
    /// One statement updates those that exist, and another one inserts the rest. Citus plans an upsert of many rows for every
    /// shard, and an update of many rows of one partition for one.
    UpdateThenInsert,
}

impl RowWrites {
    pub(crate) fn of(primary: &PrimaryConnector) -> Self {
        if primary.is_distributed() { Self::UpdateThenInsert } else { Self::Upsert }
    }
}

/// The projections of all views.
pub(crate) fn projections(purpose: Purpose, writes: RowWrites) -> Vec<Box<dyn Projection>> {
    vec![
        Box::new(Accounts::new(purpose, writes)),
        Box::new(Transactions::new(purpose, writes)),
        Box::new(DailyBalances::new(purpose, writes)),
        Box::new(BankTotals::new(purpose, writes)),
        Box::new(Holds::new(purpose, writes)),
        Box::new(LedgerTotals::new(purpose, writes)),
    ]
}

/// The name of a view and the version of the shape of its rows.
pub type Shape = (&'static str, i16);

/// An empty check for each view, in the shape that this release writes.
pub fn checks(detail: Detail) -> Vec<(Shape, Box<dyn Check>)> {
    projections(Purpose::Live, RowWrites::Upsert)
        .iter()
        .map(|view| ((view.name(), view.schema_version()), view.check(detail)))
        .collect()
}

/// The views of this release with the newest shape that it can write. It does not touch rows of a newer shape.
pub(crate) struct KnownViews {
    pub(crate) names: Vec<String>,
    pub(crate) schema_versions: Vec<i16>,
}

impl KnownViews {
    /// The shape that this release writes, or `None` if there is no such view.
    pub(crate) fn schema_version(&self, name: &str) -> Option<i16> {
        let mut views = self.names.iter().zip(&self.schema_versions);
        views.find(|(known, _)| *known == name).map(|(_, schema_version)| *schema_version)
    }
}

/// The views of this release, as two lists that a statement can unnest.
pub(crate) fn known_views() -> &'static KnownViews {
    static KNOWN: LazyLock<KnownViews> = LazyLock::new(|| {
        let (names, schema_versions) = projections(Purpose::Live, RowWrites::Upsert)
            .iter()
            .map(|view| (view.name().to_owned(), view.schema_version()))
            .unzip();
        KnownViews { names, schema_versions }
    });
    &KNOWN
}
