//! Queries for one account: now, and at an earlier moment.

use sqlx::query_file_as;
use uuid::Uuid;

use super::view::{AccountView, Row, read_live};
use crate::{
    finality::Moment,
    positioned::Positioned,
    read_model::{Error, ReadModel},
};
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
}
