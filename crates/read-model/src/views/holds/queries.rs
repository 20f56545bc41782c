//! Queries for holds: pages of an account's holds, one hold, and the accounts whose holds are over without a recorded expiry.

use std::{collections::HashSet, time::Duration};

use chrono::{DateTime, Utc};
use sqlx::{PgPool, query_file_as, query_file_scalar, types::Json};
use uuid::Uuid;

use super::{
    row::{Columns, key_version},
    view::HoldView,
};
use crate::{
    positioned::Positioned,
    query_router::QUERY_MS_MAX,
    read_model::{Error, ReadModel},
};
use passbook_domain::{HoldStatus, Metadata};
use passbook_event_store::{Partitions, Position, with_timeout};

/// Which holds of an account a list contains.
#[derive(Clone, Copy, Debug, Default)]
pub struct HoldFilter {
    /// Holds with this status at the moment of the query.
    pub status: Option<HoldStatus>,
}

impl ReadModel {
    /// A page of an account's holds that were placed below version `before`, the newest first, and whether there are more.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn holds(
        &self,
        account_id: Uuid,
        filter: HoldFilter,
        before: Option<i64>,
        limit: i64,
        min_position: Option<&Position>,
    ) -> Result<Positioned<(Vec<HoldView>, bool)>, Error> {
        let partition = self.partitions.partition_of(account_id);
        let holds = self.query_at_least(partition, min_position, |pool| async move {
            let rows = read_page(&pool, (partition, account_id), filter, before.unwrap_or(i64::MAX), limit + 1).await?;
            Row::positioned(rows, self.partitions, partition)
        });
        Ok(holds.await?.into_page(limit))
    }

    /// One hold of an account, or `None` if the view does not contain it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn hold(
        &self,
        account_id: Uuid,
        hold_id: Uuid,
        min_position: Option<&Position>,
    ) -> Result<Positioned<Option<HoldView>>, Error> {
        let partition = self.partitions.partition_of(account_id);
        let version = key_version(hold_id);
        self.query_at_least(partition, min_position, |pool| async move {
            let rows = query_file_as!(Row, "src/views/holds/one.sql", partition, account_id, version, hold_id)
                .fetch_all(&pool)
                .await?;
            Ok(Row::positioned(rows, self.partitions, partition)?.map(Positioned::into_single))
        })
        .await
    }

    /// The accounts with holds that are over without a recorded expiry, at the database's time or at the log's head if that is later.
    /// Those that have waited longest come first. It considers at most `holds_max` holds, so it returns at most so many accounts. Read
    /// at the primary.
    ///
    /// # Errors
    /// The database failed.
    pub async fn due_holds(&self, partition: i16, holds_max: i64) -> Result<Vec<Uuid>, Error> {
        let accounts = query_file_scalar!("src/views/holds/due.sql", partition, holds_max);
        let accounts = accounts.fetch_all(self.router.primary());
        let accounts = with_timeout(Duration::from_millis(QUERY_MS_MAX), accounts).await?;
        let mut seen = HashSet::with_capacity(accounts.len());
        Ok(accounts.into_iter().filter(|account_id| seen.insert(*account_id)).collect())
    }
}

/// Reads up to `rows_max` holds of one account. A list of one status has an index, so there is a statement for it.
async fn read_page(
    pool: &PgPool,
    (partition, account_id): (i16, Uuid),
    filter: HoldFilter,
    before: i64,
    rows_max: i64,
) -> sqlx::Result<Vec<Row>> {
    match filter.status.map(HoldStatus::as_str) {
        None => {
            query_file_as!(Row, "src/views/holds/list.sql", partition, account_id, before, rows_max)
                .fetch_all(pool)
                .await
        }
        Some(status) => {
            query_file_as!(Row, "src/views/holds/of_status.sql", partition, account_id, before, rows_max, status)
                .fetch_all(pool)
                .await
        }
    }
}

/// A row of the view with its checkpoint. If no row of the view matches, only the checkpoint is present.
struct Row {
    position: i64,
    generation: i16,
    /// When it was read, as for an account: never before the log's head.
    now: Option<DateTime<Utc>>,
    account_id: Option<Uuid>,
    version: Option<i64>,
    hold_id: Option<Uuid>,
    currency: Option<String>,
    status: Option<String>,
    amount: Option<i64>,
    captured: Option<i64>,
    placed_at: Option<DateTime<Utc>>,
    expires_at: Option<DateTime<Utc>>,
    reference: Option<String>,
    metadata: Option<Json<Metadata>>,
}

impl Row {
    /// The holds of a result; `None` if no generation is live.
    fn positioned(
        rows: Vec<Self>,
        partitions: Partitions,
        partition: i16,
    ) -> sqlx::Result<Option<Positioned<Vec<HoldView>>>> {
        let Some(first) = rows.first() else { return Ok(None) };
        let (position, generation) = (partitions.position_in(partition, first.position), first.generation);
        let value = rows.into_iter().filter_map(|row| row.view().transpose()).collect::<sqlx::Result<_>>()?;
        Ok(Some(Positioned { value, position, generation }))
    }

    fn view(self) -> sqlx::Result<Option<HoldView>> {
        let now = self.now;
        let Some((columns, now)) = self.columns().zip(now) else { return Ok(None) };
        let account_id = columns.account_id;
        let (row, texts) = columns.row()?;
        Ok(Some(HoldView::at(account_id, row, texts, now)))
    }

    fn columns(self) -> Option<Columns> {
        Some(Columns {
            account_id: self.account_id?,
            version: self.version?,
            hold_id: self.hold_id?,
            currency: self.currency?,
            status: self.status?,
            amount: self.amount?,
            captured: self.captured?,
            placed_at: self.placed_at?,
            expires_at: self.expires_at?,
            reference: self.reference,
            metadata: self.metadata,
        })
    }
}
