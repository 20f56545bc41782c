//! Queries for one account: now, and at an earlier moment.

use sqlx::{query_file_as, types::Json};
use uuid::Uuid;

use super::{
    row::SCHEMA_VERSION,
    view::{AccountView, LimitsView, ReadAccount, Row, read_live},
};
use crate::{
    finality::Moment,
    positioned::Positioned,
    read_model::{Error, ReadModel},
    views::transactions::versions::{LiveVersions, live_versions_at},
};
use passbook_domain::{Holds, Limits, Metadata, Usage};
use passbook_event_store::Position;

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
                    let account = read_live(&pool, self.partitions, partition, &[account_id]).await?;
                    Ok(account.map(|account| account.into_single().map(|account| account.map(ReadAccount::view))))
                }
            }
        })
        .await
    }

    /// The limits of an account with their usage, or `None` if the view does not contain it.
    ///
    /// # Errors
    /// See [`Error`]. [`Error::Lagging`] also while the rows of the live view have no counters, after an upgrade.
    pub async fn limits(
        &self,
        account_id: Uuid,
        min_position: Option<&Position>,
    ) -> Result<Positioned<Option<LimitsView>>, Error> {
        let partition = self.partitions.partition_of(account_id);
        self.query_at_least(partition, min_position, |pool| async move {
            let account = read_live(&pool, self.partitions, partition, &[account_id]).await?;
            let Some(account) = account.map(Positioned::into_single) else { return Ok(None) };
            let has_usage = |account: &ReadAccount| account.schema_version >= SCHEMA_VERSION;
            Ok(match account.value.as_ref().is_none_or(has_usage) {
                true => Some(account.map(|account| account.map(|account| account.row.limits_at(account.now)))),
                false => None,
            })
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
        let partition = self.partitions.partition_of(account_id);
        self.query_at_least(partition, min_position, |pool| async move {
            let (time, version, read_at) = match moment {
                Moment::Version(version) => (None, version, None),
                Moment::Time(time) => match live_versions_at(&pool, partition, account_id, &[time]).await? {
                    None => return Ok(None),
                    Some(LiveVersions { position, versions }) => {
                        (Some(time), versions.first().copied().unwrap_or_default(), position)
                    }
                },
            };
            let rows =
                query_file_as!(Row, "src/views/accounts/as_of.sql", partition, account_id, time, version, read_at)
                    .fetch_all(&pool)
                    .await?;
            let account = Row::positioned(rows, self.partitions, partition)?;
            Ok(account.map(|account| account.into_single().map(|account| account.map(ReadAccount::view))))
        })
        .await
    }
}
