//! Pages of accounts. Each page scans one index for a limited number of rows, so that a filter that few accounts match costs no
//! more than one that many match. The page then ends where the scan ended, and the next page continues there. If an index of searches
//! finds few accounts for the filter, the page is read from those instead.

use std::cmp::Reverse;

use chrono::{DateTime, Utc};
use sqlx::{PgPool, query_file_as, types::Json};
use uuid::Uuid;

use super::{
    filter::{Candidates, Filter, Index},
    view::{AccountView, ReadAccount, Row},
};
use crate::{
    positioned::{Page, Positioned},
    read_model::{Error, ReadModel},
};
use passbook_domain::{Holds, Limits, Metadata, Status, Usage};
use passbook_event_store::{Partitions, Position};

/// Limit of rows that are scanned for one page, in all partitions together. If a page has more rows than the share of a partition,
/// the limit of each partition is the size of the page. Each row can be a random read of up to 1 ms, and a query may take 5 s.
const SCAN_ROWS_MAX: i64 = 4_000;

/// The key of the last account of a page: when it was opened, and its id. The next page starts after it.
pub type PageKey = (DateTime<Utc>, Uuid);

/// The scan of one page, the same in each partition.
struct PageRequest<'a> {
    filter: &'a Filter,
    after: Option<PageKey>,
    limit: i64,
    /// Limit of rows that are scanned in one partition.
    scan_rows: i64,
}

/// The accounts found by the scan of one partition.
#[derive(Debug)]
struct Scan {
    /// The newest matching accounts after the key of the page: one more than the page has, or all that were scanned.
    found: Vec<AccountView>,
    /// The last account scanned, if the scan ended at its limit. `None` if it found enough accounts or all of them.
    end: Option<PageKey>,
}

impl ReadModel {
    /// A page of accounts, the newest first. With several partitions it merges the newest accounts of each.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn accounts(
        &self,
        filter: &Filter,
        after: Option<PageKey>,
        limit: i64,
        min_position: Option<&Position>,
    ) -> Result<Positioned<Page<AccountView, PageKey>>, Error> {
        let scan_rows = (SCAN_ROWS_MAX / i64::from(self.partitions.count())).max(limit + 1);
        let request = &PageRequest { filter, after, limit, scan_rows };
        let scans = self.query_all_partitions(min_position, |partition, pool| async move {
            let scan = ListRow::scan(request.read(&pool, partition).await?, self.partitions, partition)?;
            if scan.as_ref().is_none_or(|scan| scan.value.end.is_none()) {
                return Ok(scan);
            }
            // The scan has not found enough accounts. Few may match.
            match filter.candidates(&pool, partition, scan_rows).await? {
                Some(candidates) => {
                    let found = request.read_among(&pool, partition, &candidates).await?;
                    ListRow::scan(found, self.partitions, partition)
                }
                None => Ok(scan),
            }
        });
        Ok(scans.await?.map(|scans| merge(scans, limit)))
    }
}

impl PageRequest<'_> {
    /// Reads one partition. There is a statement for each index, so that no plan can read another one.
    async fn read(&self, pool: &PgPool, partition: i16) -> sqlx::Result<Vec<ListRow>> {
        let Self { filter, after, limit, scan_rows } = self;
        let status = filter.status.map(Status::as_str);
        let currency = filter.currency.as_deref();
        let (opened_at, account_id) = after.unzip();
        macro_rules! read {
            ($file:literal $(, $key:expr)?) => {
                query_file_as!(
                    ListRow,
                    $file,
                    partition,
                    status,
                    currency,
                    opened_at,
                    account_id,
                    limit + 1,
                    *scan_rows,
                    filter.min_balance,
                    filter.max_balance,
                    filter.owner_beginning(),
                    filter.id_part(),
                    filter.pairs()
                    $(, $key)?
                )
                .fetch_all(pool)
                .await
            };
        }
        match filter.index() {
            Index::Opened => read!("src/views/accounts/list.sql"),
            Index::Owner(owner) => read!("src/views/accounts/of_owner.sql", owner),
            Index::NotOpen(status) => read!("src/views/accounts/of_status.sql", status.as_str()),
            Index::Currency(currency) => read!("src/views/accounts/of_currency.sql", currency),
        }
    }

    /// Reads the page from these accounts alone.
    async fn read_among(&self, pool: &PgPool, partition: i16, candidates: &Candidates) -> sqlx::Result<Vec<ListRow>> {
        let Self { filter, after, limit, .. } = self;
        let (opened_at, account_id) = after.unzip();
        query_file_as!(
            ListRow,
            "src/views/accounts/among.sql",
            partition,
            filter.status.map(Status::as_str),
            filter.currency.as_deref(),
            opened_at,
            account_id,
            limit + 1,
            candidates.position,
            filter.min_balance,
            filter.max_balance,
            filter.owner_beginning(),
            filter.id_part(),
            filter.pairs(),
            &candidates.ids,
            filter.owner.as_deref()
        )
        .fetch_all(pool)
        .await
    }
}

/// Merges the scans of all partitions into one page. Accounts older than the end of a scan are left for the next page, because
/// newer ones of that partition may follow.
fn merge(scans: Vec<Scan>, limit: i64) -> Page<AccountView, PageKey> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let end = scans.iter().filter_map(|scan| scan.end).max();
    let mut rows: Vec<AccountView> = scans.into_iter().flat_map(|scan| scan.found).collect();
    rows.retain(|account| end.is_none_or(|end| key(account) >= end));
    rows.sort_unstable_by_key(|account| Reverse(key(account)));
    let next = match rows.len() > limit {
        true => rows.get(limit.saturating_sub(1)).map(key),
        false => end,
    };
    rows.truncate(limit);
    Page { rows, next }
}

fn key(account: &AccountView) -> PageKey {
    (account.opened_at, account.account_id)
}

/// A row of a list with the checkpoint. If the scan found none, only the checkpoint is present.
struct ListRow {
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
    /// Whether the account matches the filter. Otherwise it is here as the end of the scan.
    is_match: Option<bool>,
    /// Whether it is the last account that the scan may read.
    is_scan_end: Option<bool>,
}

impl ListRow {
    /// The scan that returned these rows; `None` if no generation is live.
    ///
    /// # Errors
    /// A row has an unknown currency or status.
    fn scan(rows: Vec<Self>, partitions: Partitions, partition: i16) -> sqlx::Result<Option<Positioned<Scan>>> {
        let Some(first) = rows.first() else { return Ok(None) };
        let (position, generation) = (partitions.position_in(partition, first.position), first.generation);
        let last = rows.last().filter(|row| row.is_scan_end == Some(true));
        let end = last.and_then(|row| row.opened_at.zip(row.account_id));
        let found = rows.into_iter().filter_map(|row| row.view().transpose()).collect::<sqlx::Result<_>>()?;
        Ok(Some(Positioned { value: Scan { found, end }, position, generation }))
    }

    /// The account; `None` if the row is only the end of the scan, or no account.
    fn view(self) -> sqlx::Result<Option<AccountView>> {
        if self.is_match != Some(true) {
            return Ok(None);
        }
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
        Ok(row.read()?.map(ReadAccount::view))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An account whose opening and id are made from a number.
    fn account(number: u8) -> AccountView {
        let opened_at = DateTime::from_timestamp(number.into(), 0).expect("a time");
        AccountView {
            account_id: Uuid::from_u128(number.into()),
            owner: "customer-17".to_owned(),
            currency: "EUR".to_owned(),
            status: "open".to_owned(),
            balance: 0,
            held: 0,
            available: 0,
            overdraft: 0,
            version: 1,
            transaction_count: 0,
            opened_at,
            last_activity_at: opened_at,
            closed_at: None,
            metadata: Metadata::default(),
            unrecorded_expiries: 0,
        }
    }

    fn scan(found: &[u8], end: Option<u8>) -> Scan {
        Scan { found: found.iter().copied().map(account).collect(), end: end.map(|end| key(&account(end))) }
    }

    /// The numbers of a page and of its `next`.
    fn merged(scans: Vec<Scan>, limit: i64) -> (Vec<u128>, Option<u128>) {
        let page = merge(scans, limit);
        let numbers = page.rows.iter().map(|account| account.account_id.as_u128()).collect();
        (numbers, page.next.map(|(_, account_id)| account_id.as_u128()))
    }

    #[test]
    fn a_page_ends_with_the_list_if_every_scan_read_all_accounts() {
        assert_eq!(merged(vec![scan(&[9, 5], None), scan(&[8], None)], 3), (vec![9, 8, 5], None));
        assert_eq!(merged(vec![scan(&[], None), scan(&[], None)], 3), (vec![], None));
    }

    #[test]
    fn a_full_page_continues_after_its_last_account() {
        assert_eq!(merged(vec![scan(&[9, 5, 4], None), scan(&[8], None)], 2), (vec![9, 8], Some(8)));
        assert_eq!(merged(vec![scan(&[9, 8, 7], None), scan(&[3, 2], Some(2))], 2), (vec![9, 8], Some(8)));
    }

    #[test]
    fn a_page_ends_at_the_newest_end_of_a_scan() {
        // Between 6 and 3, the first partition may have accounts that are not scanned yet.
        assert_eq!(merged(vec![scan(&[9], Some(6)), scan(&[8, 6, 3], Some(2))], 5), (vec![9, 8, 6], Some(6)));
        assert_eq!(merged(vec![scan(&[6], Some(6)), scan(&[], None)], 5), (vec![6], Some(6)));
        assert_eq!(merged(vec![scan(&[], Some(6)), scan(&[5], None)], 5), (vec![], Some(6)));
    }
}
