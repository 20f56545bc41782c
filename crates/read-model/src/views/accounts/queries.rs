//! Queries for accounts: one account, one account at an earlier moment, and pages of accounts.

use std::cmp::Reverse;

use chrono::{DateTime, Utc};
use sqlx::{PgPool, query_file_as};
use uuid::Uuid;

use super::view::{AccountView, Row, read_live};
use crate::{
    finality::Moment,
    positioned::Positioned,
    read_model::{Error, ReadModel},
};
use passbook_domain::Status;
use passbook_event_store::Position;

/// Which accounts a list contains.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Accounts of this owner.
    pub owner: Option<String>,
    /// Accounts in this status.
    pub status: Option<Status>,
    /// Accounts in this currency.
    pub currency: Option<String>,
}

/// The key of the last account of a page: when it was opened, and its id. The next page starts after it.
pub type PageKey = (DateTime<Utc>, Uuid);

impl ReadModel {
    /// One account, or `None` if the view does not contain it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn account(
        &self,
        account_id: Uuid,
        min_position: Option<&Position>,
    ) -> Result<Positioned<Option<AccountView>>, Error> {
        let partition = self.partitions.partition_of(account_id);
        let loader = &self.partition(partition)?.accounts;
        self.query_at_least(partition, min_position, |pool| async move {
            let can_share = self.router.can_share(min_position.is_some());
            let shared = if can_share { loader.load(account_id).await } else { None };
            match shared {
                Some(result) => Ok(result),
                None => {
                    Ok(read_live(&pool, self.partitions, partition, &[account_id]).await?.map(Positioned::into_single))
                }
            }
        })
        .await
    }

    /// One account at an earlier moment, or `None` before its opening and if the views do not contain it. It is read from the
    /// account's history in the view of transactions. The answer is final if the view has read up to the position of
    /// [`Self::finality`].
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn account_as_of(
        &self,
        account_id: Uuid,
        moment: Moment,
        min_position: Option<&Position>,
    ) -> Result<Positioned<Option<AccountView>>, Error> {
        let (time, version) = match moment {
            Moment::Time(time) => (Some(time), None),
            Moment::Version(version) => (None, Some(version)),
        };
        let partition = self.partitions.partition_of(account_id);
        self.query_at_least(partition, min_position, |pool| async move {
            let rows = query_file_as!(Row, "src/views/accounts/as_of.sql", partition, account_id, time, version)
                .fetch_all(&pool)
                .await?;
            Ok(Row::positioned(rows, self.partitions, partition).map(Positioned::into_single))
        })
        .await
    }

    /// A page of accounts, the newest first, and whether there are more. With several partitions it merges the newest accounts of
    /// each.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn accounts(
        &self,
        filter: &Filter,
        after: Option<PageKey>,
        limit: i64,
        min_position: Option<&Position>,
    ) -> Result<Positioned<(Vec<AccountView>, bool)>, Error> {
        let newest = self.query_all_partitions(min_position, |partition, pool| async move {
            let rows = read_page(&pool, partition, filter, after, limit + 1).await?;
            Ok(Row::positioned(rows, self.partitions, partition))
        });
        let accounts = newest.await?.map(|newest| {
            let mut accounts: Vec<AccountView> = newest.into_iter().flatten().collect();
            if self.partitions.is_partitioned() {
                accounts.sort_unstable_by_key(|account| Reverse((account.opened_at, account.account_id)));
            }
            accounts
        });
        Ok(accounts.into_page(limit))
    }
}

/// Reads up to `rows_max` accounts of one partition. A generic plan uses one index, and the accounts of an owner have their own.
/// There is therefore a statement with an owner and one without.
async fn read_page(
    pool: &PgPool,
    partition: i16,
    filter: &Filter,
    after: Option<PageKey>,
    rows_max: i64,
) -> sqlx::Result<Vec<Row>> {
    let status = filter.status.map(Status::as_str);
    let currency = filter.currency.as_deref();
    let (opened_at, account_id) = after.unzip();
    match &filter.owner {
        Some(owner) => {
            query_file_as!(
                Row,
                "src/views/accounts/of_owner.sql",
                partition,
                status,
                currency,
                opened_at,
                account_id,
                rows_max,
                owner
            )
            .fetch_all(pool)
            .await
        }
        None => {
            query_file_as!(
                Row,
                "src/views/accounts/list.sql",
                partition,
                status,
                currency,
                opened_at,
                account_id,
                rows_max
            )
            .fetch_all(pool)
            .await
        }
    }
}
