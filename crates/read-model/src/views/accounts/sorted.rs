//! Pages of accounts by balance or by last activity. No index has this order, because every movement would change it. So all accounts
//! that match are read and sorted for each page, up to a limit.

use chrono::{DateTime, Utc};
use sqlx::{PgPool, query_file_as, types::Json};
use uuid::Uuid;

use super::{
    filter::{Candidates, Filter, Index},
    view::{AccountView, Row},
};
use crate::{
    positioned::{Page, Positioned},
    read_model::{Error, ReadModel},
};
use passbook_domain::{Holds, Limits, Metadata, Status, Usage};
use passbook_event_store::{Partitions, Position};

/// Limit of accounts that are sorted, in all partitions together.
pub const SORTED_ACCOUNTS_MAX: i64 = 10_000;
/// Limit of accounts of one owner, status or currency that are compared with the other filters, in all partitions together.
const SCAN_ROWS_MAX: i64 = 30_000;

/// What accounts are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortBy {
    /// The balance.
    Balance,
    /// The time of the last event.
    LastActivity,
}

/// The order of a list of accounts. Accounts with the same value are in the order of their ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    /// What accounts are sorted by.
    pub by: SortBy,
    /// Whether the greatest value comes first.
    pub is_descending: bool,
}

/// The key of an account in a sorted list: the value as a number that ascends, and the id. An account that moves while a client reads
/// the pages can be in two of them or in none. All others are in exactly one.
pub type SortKey = (i64, Uuid);

/// One page, the same in each partition.
struct PageRequest<'a> {
    filter: &'a Filter,
    sort: Sort,
    after: Option<SortKey>,
    limit: i64,
    scan_rows: i64,
}

/// The first accounts of one partition after the key of the page.
struct Sorted {
    found: Vec<(SortKey, AccountView)>,
    /// The number of accounts that match; 0 if none is after the key of the page.
    matches: i64,
    /// Whether more accounts than the limit would have to be read.
    is_cut: bool,
}

impl Sort {
    fn column(self) -> &'static str {
        match self.by {
            SortBy::Balance => "balance",
            SortBy::LastActivity => "last_activity_at",
        }
    }

    fn sign(self) -> i64 {
        if self.is_descending { -1 } else { 1 }
    }
}

impl ReadModel {
    /// A page of accounts in this order. `None` if more accounts match than can be sorted.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn sorted_accounts(
        &self,
        filter: &Filter,
        sort: Sort,
        (after, limit): (Option<SortKey>, i64),
        min_position: Option<&Position>,
    ) -> Result<Positioned<Option<Page<AccountView, SortKey>>>, Error> {
        let scan_rows = SCAN_ROWS_MAX / i64::from(self.partitions.count());
        let request = &PageRequest { filter, sort, after, limit, scan_rows };
        let pages = self.query_all_partitions(min_position, |partition, pool| async move {
            SortedRow::sorted(request.read(&pool, partition).await?, self.partitions, partition)
        });
        Ok(pages.await?.map(|pages| merge(pages, limit)))
    }
}

impl PageRequest<'_> {
    async fn read(&self, pool: &PgPool, partition: i16) -> sqlx::Result<Vec<SortedRow>> {
        if let Some(candidates) = self.filter.candidates(pool, partition, SORTED_ACCOUNTS_MAX).await? {
            return self.read_among(pool, partition, &candidates).await;
        }
        let Self { filter, sort, after, limit, scan_rows } = self;
        let (key, account_id) = after.unwrap_or((i64::MIN, Uuid::nil()));
        macro_rules! read {
            ($file:literal, $key:expr) => {
                query_file_as!(
                    SortedRow,
                    $file,
                    partition,
                    filter.status.map(Status::as_str),
                    filter.currency.as_deref(),
                    key,
                    account_id,
                    SORTED_ACCOUNTS_MAX,
                    *scan_rows,
                    filter.min_balance,
                    filter.max_balance,
                    filter.owner_beginning(),
                    filter.id_part(),
                    filter.pairs(),
                    $key,
                    sort.column(),
                    sort.sign(),
                    limit + 1
                )
                .fetch_all(pool)
                .await
            };
        }
        match filter.index() {
            Index::Owner(owner) => read!("src/views/accounts/sorted_of_owner.sql", owner),
            Index::NotOpen(status) => read!("src/views/accounts/sorted_of_status.sql", status.as_str()),
            Index::Currency(currency) => read!("src/views/accounts/sorted_of_currency.sql", currency),
            // A sorted list has a currency, because balances of different currencies cannot be compared.
            Index::Opened => read!("src/views/accounts/sorted_of_currency.sql", ""),
        }
    }

    /// Reads the page from these accounts alone.
    async fn read_among(&self, pool: &PgPool, partition: i16, candidates: &Candidates) -> sqlx::Result<Vec<SortedRow>> {
        let Self { filter, sort, after, limit, .. } = self;
        let (key, account_id) = after.unwrap_or((i64::MIN, Uuid::nil()));
        query_file_as!(
            SortedRow,
            "src/views/accounts/sorted_among.sql",
            partition,
            filter.status.map(Status::as_str),
            filter.currency.as_deref(),
            key,
            account_id,
            SORTED_ACCOUNTS_MAX,
            candidates.ids.len() as i64,
            filter.min_balance,
            filter.max_balance,
            filter.owner_beginning(),
            filter.id_part(),
            filter.pairs(),
            &candidates.ids,
            sort.column(),
            sort.sign(),
            limit + 1,
            filter.owner.as_deref(),
            candidates.position
        )
        .fetch_all(pool)
        .await
    }
}

/// Merges the pages of all partitions. `None` if the accounts are too many.
fn merge(pages: Vec<Sorted>, limit: i64) -> Option<Page<AccountView, SortKey>> {
    let matches: i64 = pages.iter().map(|page| page.matches).sum();
    if matches > SORTED_ACCOUNTS_MAX || pages.iter().any(|page| page.is_cut) {
        return None;
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut found: Vec<(SortKey, AccountView)> = pages.into_iter().flat_map(|page| page.found).collect();
    found.sort_unstable_by_key(|(key, _)| *key);
    let has_more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| has_more).map(|(key, _)| *key);
    Some(Page { rows: found.into_iter().map(|(_, account)| account).collect(), next })
}

/// A row of a sorted list with the checkpoint. If there is no account after the key of the page, only the checkpoint is present.
struct SortedRow {
    position: i64,
    generation: i16,
    schema_version: i16,
    now: Option<DateTime<Utc>>,
    account_id: Option<Uuid>,
    owner: Option<String>,
    currency: Option<String>,
    status: Option<String>,
    balance: Option<i64>,
    limits: Option<Json<Limits>>,
    usage: Option<Json<Usage>>,
    holds: Option<Json<Holds>>,
    metadata: Option<Json<Metadata>>,
    version: Option<i64>,
    transaction_count: Option<i64>,
    opened_at: Option<DateTime<Utc>>,
    last_activity_at: Option<DateTime<Utc>>,
    closed_at: Option<DateTime<Utc>>,
    sort_key: Option<i64>,
    matches: Option<i64>,
    is_cut: Option<bool>,
}

impl SortedRow {
    /// The accounts of a result; `None` if no generation is live.
    ///
    /// # Errors
    /// A row has an unknown currency or status.
    fn sorted(rows: Vec<Self>, partitions: Partitions, partition: i16) -> sqlx::Result<Option<Positioned<Sorted>>> {
        let Some(first) = rows.first() else { return Ok(None) };
        let (position, generation) = (partitions.position_in(partition, first.position), first.generation);
        let (matches, is_cut) = (first.matches.unwrap_or_default(), first.is_cut == Some(true));
        let found = rows.into_iter().filter_map(|row| row.keyed_view().transpose()).collect::<sqlx::Result<_>>()?;
        Ok(Some(Positioned { value: Sorted { found, matches, is_cut }, position, generation }))
    }

    fn keyed_view(self) -> sqlx::Result<Option<(SortKey, AccountView)>> {
        let Some(key) = self.sort_key.zip(self.account_id) else { return Ok(None) };
        let row = Row {
            position: self.position,
            generation: self.generation,
            schema_version: self.schema_version,
            now: self.now,
            account_id: self.account_id,
            owner: self.owner,
            currency: self.currency,
            status: self.status,
            balance: self.balance,
            limits: self.limits,
            usage: self.usage,
            holds: self.holds,
            metadata: self.metadata,
            version: self.version,
            transaction_count: self.transaction_count,
            opened_at: self.opened_at,
            last_activity_at: self.last_activity_at,
            closed_at: self.closed_at,
        };
        Ok(row.read()?.map(|account| (key, account.view())))
    }
}
