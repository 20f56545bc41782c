//! Transfers, read from the transaction of the sending account.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgPool, query_file_as};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    positioned::Positioned,
    read_model::{Error, ReadModel},
};
use passbook_event_store::{Position, timestamp};

/// A transfer as queries return it.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = Transfer)]
pub struct TransferView {
    /// The transfer.
    pub transfer_id: Uuid,
    /// The account that sent the money.
    pub from: Uuid,
    /// The account that received the money.
    pub to: Uuid,
    /// The amount in minor units.
    #[schema(example = 500, minimum = 1)]
    pub amount: i64,
    /// The currency (ISO 4217).
    #[schema(example = "EUR")]
    pub currency: String,
    /// The text that the caller supplied.
    #[schema(required = true, example = "rent")]
    pub reference: Option<String>,
    /// The sum of its reversals so far in minor units.
    #[schema(example = 0, minimum = 0)]
    pub reversed: i64,
    /// When the transfer was recorded.
    #[serde(with = "timestamp")]
    pub recorded_at: DateTime<Utc>,
}

impl ReadModel {
    /// One transfer, or `None` if the view does not contain it. The id determines the partition of the sending account. A transfer
    /// that was copied from a log with other partitions can be in any partition, so all of them are queried if the first has none.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn transfer(
        &self,
        transfer_id: Uuid,
        min_position: Option<&Position>,
    ) -> Result<Positioned<Option<TransferView>>, Error> {
        let home = self.partitions.partition_of(transfer_id);
        let at_home = self.query_at_least(home, min_position, |pool| self.transfer_in(pool, home, transfer_id)).await?;
        if at_home.value.is_some() || !self.partitions.is_partitioned() {
            return Ok(at_home);
        }
        let all = self
            .query_all_partitions(min_position, |partition, pool| self.transfer_in(pool, partition, transfer_id))
            .await?
            .map(|transfers| transfers.into_iter().flatten().next());
        // An unknown transfer gets the same response as one that the caller may not see: the position of the home partition.
        Ok(if all.value.is_some() { all } else { at_home })
    }

    async fn transfer_in(
        &self,
        pool: PgPool,
        partition: i16,
        transfer_id: Uuid,
    ) -> sqlx::Result<Option<Positioned<Option<TransferView>>>> {
        let row = query_file_as!(Row, "src/views/transactions/transfer.sql", partition, transfer_id)
            .fetch_optional(&pool)
            .await?;
        let position = |row: &Row| self.partitions.position_in(partition, row.position);
        Ok(row.map(|row| Positioned { position: position(&row), generation: row.generation, value: row.view() }))
    }
}

/// The transfer with the checkpoint. If the view does not contain it, only the checkpoint is present.
struct Row {
    position: i64,
    generation: i16,
    transfer_id: Option<Uuid>,
    from: Option<Uuid>,
    to: Option<Uuid>,
    amount: Option<i64>,
    currency: Option<String>,
    reference: Option<String>,
    reversed: i64,
    recorded_at: Option<DateTime<Utc>>,
}

impl Row {
    fn view(self) -> Option<TransferView> {
        Some(TransferView {
            transfer_id: self.transfer_id?,
            from: self.from?,
            to: self.to?,
            amount: self.amount?,
            currency: self.currency?,
            reference: self.reference,
            reversed: self.reversed,
            recorded_at: self.recorded_at?,
        })
    }
}
