//! Pages of the transactions of all accounts, or of all accounts of one owner, the newest first. Each page scans a limited number of
//! rows, as pages of accounts do.
//!
//! Where the page is read from depends on the filter: the rows that an index of references finds, if they are few; the histories of
//! the owner's accounts, if those are few; else the log, which has the order of this list.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{PgPool, query, query_file, query_file_as, types::Json};
use uuid::Uuid;

use super::found::{AccountTransactionView, LogKey, Row, Scan};
use crate::{
    positioned::{Page, Positioned},
    read_model::{Error, ReadModel},
    views::accounts::filter::{LAST_CHARACTER, is_usable},
};
use passbook_domain::Metadata;
use passbook_event_store::Position;

/// Limit of rows that are scanned for one page, in all partitions together. If a page has more rows than the share of a partition,
/// the limit of each partition is the size of the page. Each row is looked up in the log and in the view, each a random read of up to
/// 1 ms, and a query may take 5 s.
const SCAN_ROWS_MAX: i64 = 2_000;
/// Limit of accounts of an owner in one partition whose histories are merged.
const MERGED_ACCOUNTS_MAX: i64 = 50;

/// Which transactions of all accounts a list contains: those that match all of its conditions.
#[derive(Clone, Debug, Default)]
pub struct SearchFilter {
    /// Transactions whose reference begins with this text, in any case.
    pub reference: Option<String>,
    /// Transactions of the accounts of this owner.
    pub owner: Option<String>,
    /// Transactions of accounts in this currency.
    pub currency: Option<String>,
    /// Transactions of at least this amount, in minor units.
    pub min_amount: Option<i64>,
    /// Transactions of at most this amount, in minor units.
    pub max_amount: Option<i64>,
    /// Transactions recorded at this time or later.
    pub from: Option<DateTime<Utc>>,
    /// Transactions recorded before this time.
    pub to: Option<DateTime<Utc>>,
}

/// One page, the same in each partition.
struct PageRequest<'a> {
    filter: &'a SearchFilter,
    after: Option<LogKey>,
    limit: i64,
    scan_rows: i64,
}

/// The positions of one partition that a page can contain: those above `above` and below `below`.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    above: i64,
    below: i64,
}

/// Rows that an index of searches finds, with the checkpoint at which it found them.
struct Found<T> {
    position: i64,
    keys: Vec<T>,
}

impl ReadModel {
    /// A page of the transactions of all accounts that match, the newest first.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn search_transactions(
        &self,
        filter: &SearchFilter,
        after: Option<LogKey>,
        limit: i64,
        min_position: Option<&Position>,
    ) -> Result<Positioned<Page<AccountTransactionView, LogKey>>, Error> {
        let scan_rows = (SCAN_ROWS_MAX / i64::from(self.partitions.count())).max(limit + 1);
        let request = &PageRequest { filter, after, limit, scan_rows };
        let scans = self.query_all_partitions(min_position, |partition, pool| async move {
            Ok(Row::scan(request.read(&pool, partition).await?, self.partitions, partition))
        });
        Ok(scans.await?.map(|scans| merge(scans, limit)))
    }
}

impl PageRequest<'_> {
    async fn read(&self, pool: &PgPool, partition: i16) -> sqlx::Result<Vec<Row>> {
        let bounds = self.bounds(pool, partition).await?;
        if let Some(found) = self.with_reference(pool, partition).await? {
            return self.read_found(pool, partition, bounds, &found).await;
        }
        match self.owned_accounts(pool, partition).await? {
            Some(accounts) => self.read_accounts(pool, partition, bounds, &accounts).await,
            None => self.read_log(pool, partition, bounds).await,
        }
    }

    /// Finds the positions between which the page lies. Citus refuses a function that reads tables in a statement that reads tables
    /// itself, so this is a statement of its own.
    async fn bounds(&self, pool: &PgPool, partition: i16) -> sqlx::Result<Bounds> {
        let Self { filter, after, .. } = self;
        let mut bounds = Bounds { above: 0, below: i64::MAX };
        let next_moment = |time: DateTime<Utc>| time.checked_add_signed(TimeDelta::microseconds(1)).unwrap_or(time);
        // The times before which the events are recorded that the page can contain.
        let ends = [
            filter.to,
            after.filter(|after| partition < after.partition).map(|after| next_moment(after.recorded_at)),
            after.filter(|after| partition > after.partition).map(|after| after.recorded_at),
        ];
        let end = ends.into_iter().flatten().min();
        let times: Vec<DateTime<Utc>> = filter.from.into_iter().chain(end).collect();
        if !times.is_empty() {
            let row =
                query!(r#"SELECT positions_at($1, $2) AS "positions!""#, partition, &times).fetch_one(pool).await?;
            if filter.from.is_some() {
                bounds.above = row.positions.first().copied().unwrap_or_default();
            }
            if end.is_some() {
                bounds.below = row.positions.last().map_or(i64::MAX, |position| position + 1);
            }
        }
        if let Some(after) = after.filter(|after| partition == after.partition) {
            bounds.below = bounds.below.min(after.position);
        }
        Ok(bounds)
    }

    /// The rows whose reference begins with that of the filter. `None` if the filter has none, if there are too many rows, or if the
    /// index is not built yet.
    async fn with_reference(&self, pool: &PgPool, partition: i16) -> sqlx::Result<Option<Found<(Uuid, i64)>>> {
        let Some(reference) = &self.filter.reference else { return Ok(None) };
        if !is_usable(pool, "account_transaction_reference_folded").await? {
            return Ok(None);
        }
        let rows = query_file!(
            "src/views/transactions/with_reference.sql",
            partition,
            reference,
            LAST_CHARACTER,
            self.scan_rows + 1
        );
        let rows = rows.fetch_all(pool).await?;
        let position = rows.first().map(|row| row.position).unwrap_or_default();
        let keys: Vec<(Uuid, i64)> = rows.into_iter().filter_map(|row| row.account_id.zip(row.version)).collect();
        Ok((keys.len() as i64 <= self.scan_rows).then_some(Found { position, keys }))
    }

    /// The accounts of the owner in the currency of the filter. `None` if the filter has no owner, or if the owner has too many
    /// accounts.
    async fn owned_accounts(&self, pool: &PgPool, partition: i16) -> sqlx::Result<Option<Found<Uuid>>> {
        let Some(owner) = &self.filter.owner else { return Ok(None) };
        let rows =
            query_file!("src/views/transactions/accounts_of_owner.sql", partition, owner, MERGED_ACCOUNTS_MAX + 1);
        let rows = rows.fetch_all(pool).await?;
        if rows.len() as i64 > MERGED_ACCOUNTS_MAX {
            return Ok(None);
        }
        let position = rows.first().map(|row| row.position).unwrap_or_default();
        let currency = self.filter.currency.as_deref();
        let is_listed = |of_account: Option<&str>| currency.is_none() || of_account == currency;
        let listed = rows.into_iter().filter(|row| is_listed(row.currency.as_deref()));
        Ok(Some(Found { position, keys: listed.filter_map(|row| row.account_id).collect() }))
    }

    /// Reads the page from the log.
    async fn read_log(&self, pool: &PgPool, partition: i16, bounds: Bounds) -> sqlx::Result<Vec<Row>> {
        let Self { filter, limit, scan_rows, .. } = self;
        query_file_as!(
            Row,
            "src/views/transactions/recent.sql",
            partition,
            bounds.below,
            bounds.above,
            *scan_rows,
            limit + 1,
            filter.min_amount,
            filter.max_amount,
            filter.reference.as_deref(),
            filter.owner.as_deref(),
            filter.currency.as_deref()
        )
        .fetch_all(pool)
        .await
    }

    /// Reads the page from these rows alone.
    async fn read_found(
        &self,
        pool: &PgPool,
        partition: i16,
        bounds: Bounds,
        found: &Found<(Uuid, i64)>,
    ) -> sqlx::Result<Vec<Row>> {
        let Self { filter, limit, .. } = self;
        let (account_ids, versions): (Vec<Uuid>, Vec<i64>) = found.keys.iter().copied().unzip();
        query_file_as!(
            Row,
            "src/views/transactions/found.sql",
            partition,
            bounds.below,
            bounds.above,
            found.position,
            limit + 1,
            filter.min_amount,
            filter.max_amount,
            filter.reference.as_deref(),
            filter.owner.as_deref(),
            filter.currency.as_deref(),
            &account_ids,
            &versions
        )
        .fetch_all(pool)
        .await
    }

    /// Reads the page from the histories of these accounts.
    async fn read_accounts(
        &self,
        pool: &PgPool,
        partition: i16,
        bounds: Bounds,
        accounts: &Found<Uuid>,
    ) -> sqlx::Result<Vec<Row>> {
        let Self { filter, limit, scan_rows, .. } = self;
        let ids = &accounts.keys;
        let above = match bounds.above {
            0 => vec![0; ids.len()],
            above => versions_at(pool, partition, ids, above).await?,
        };
        let last = match bounds.below {
            i64::MAX => vec![i64::MAX; ids.len()],
            below => versions_at(pool, partition, ids, below - 1).await?,
        };
        let scan_rows = (scan_rows / ids.len().max(1) as i64).max(limit + 1);
        query_file_as!(
            Row,
            "src/views/transactions/of_accounts.sql",
            partition,
            accounts.position,
            scan_rows,
            limit + 1,
            filter.min_amount,
            filter.max_amount,
            filter.reference.as_deref(),
            ids,
            &above,
            &last
        )
        .fetch_all(pool)
        .await
    }
}

/// For each account, the last version that was recorded at a position or before it.
async fn versions_at(pool: &PgPool, partition: i16, ids: &[Uuid], position: i64) -> sqlx::Result<Vec<i64>> {
    let row = query!(r#"SELECT versions_at_position($1, $2, $3) AS "versions!""#, partition, ids, position);
    Ok(row.fetch_one(pool).await?.versions)
}

/// Merges the scans of all partitions into one page. Transactions older than the end of a scan are left for the next page, because
/// newer ones of that partition may follow.
fn merge(scans: Vec<Scan>, limit: i64) -> Page<AccountTransactionView, LogKey> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let end = scans.iter().filter_map(|scan| scan.end).max();
    let mut found: Vec<(LogKey, AccountTransactionView)> = scans.into_iter().flat_map(|scan| scan.found).collect();
    found.retain(|(key, _)| end.is_none_or(|end| *key >= end));
    found.sort_unstable_by(|(one, _), (other, _)| other.cmp(one));
    let next = match found.len() > limit {
        true => found.get(limit.saturating_sub(1)).map(|(key, _)| *key),
        false => end,
    };
    found.truncate(limit);
    Page { rows: found.into_iter().map(|(_, row)| row).collect(), next }
}
