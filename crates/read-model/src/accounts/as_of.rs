//! An account as it was at any moment: one row of its history in the view of movements, found
//! through the key.

use chrono::{DateTime, Utc};
use sqlx::query_file_as;
use uuid::Uuid;

use super::{AccountView, Row, only, seen};
use crate::{Error, ReadModel, Seen};
use passbook_event_store::Position;

/// Which moment; what happened at it is included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// What was recorded then or before.
    Time(DateTime<Utc>),
    /// After so many events of the account.
    Version(i64),
}

impl ReadModel {
    /// One account as it was, or `None` before its opening and where the view knows none.
    pub async fn account_as_of(
        &self,
        account_id: Uuid,
        moment: Moment,
        min_position: Option<&Position>,
    ) -> Result<Seen<Option<AccountView>>, Error> {
        let (time, version) = match moment {
            Moment::Time(time) => (Some(time), None),
            Moment::Version(version) => (None, Some(version)),
        };
        let partition = self.partitions.of(account_id);
        self.at_least(partition, min_position, |pool| async move {
            let rows = query_file_as!(Row, "src/accounts/as_of.sql", partition, account_id, time, version)
                .fetch_all(&pool)
                .await?;
            Ok(seen(rows, self.partitions, partition).map(only))
        })
        .await
    }
}
