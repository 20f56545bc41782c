//! Transfers, read from the movement on the side that sent them.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgPool, query_file_as};
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::{Error, ReadModel, Seen};
use passbook_event_store::Position;
use passbook_event_store::timestamp;

/// A transfer as the queries show it.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct TransferView {
    /// The transfer.
    pub transfer_id: Uuid,
    /// The account that paid.
    pub from: Uuid,
    /// The account that was paid.
    pub to: Uuid,
    /// How much, in minor units.
    #[schema(example = 500, minimum = 1)]
    pub amount: i64,
    /// The currency (ISO 4217).
    #[schema(example = "EUR")]
    pub currency: String,
    /// The caller's own words.
    #[schema(example = "rent")]
    pub reference: Option<String>,
    /// When.
    #[serde(with = "timestamp")]
    pub recorded_at: DateTime<Utc>,
}

impl ReadModel {
    /// One transfer, or `None` where the view knows none. Its id leads to the partition of the account that paid; one that was
    /// copied from a log with other partitions may be in any.
    pub async fn transfer(
        &self,
        transfer_id: Uuid,
        min_position: Option<&Position>,
    ) -> Result<Seen<Option<TransferView>>, Error> {
        let home = self.partitions.of(transfer_id);
        let seen = self.at_least(home, min_position, |pool| self.transfer_in(pool, home, transfer_id)).await?;
        if seen.value.is_some() || !self.partitions.are_several() {
            return Ok(seen);
        }
        let all = self.of_all(min_position, |partition, pool| self.transfer_in(pool, partition, transfer_id)).await?;
        let found = all.map(|found| found.into_iter().flatten().next());
        // Told as one that is at home and may not be seen.
        Ok(if found.value.is_some() { found } else { seen })
    }

    async fn transfer_in(
        &self,
        pool: PgPool,
        partition: i16,
        transfer_id: Uuid,
    ) -> sqlx::Result<Option<Seen<Option<TransferView>>>> {
        let row =
            query_file_as!(Row, "src/transactions/transfer.sql", partition, transfer_id).fetch_optional(&pool).await?;
        let position = |row: &Row| self.partitions.position(partition, row.position);
        Ok(row.map(|row| Seen { position: position(&row), generation: row.generation, value: view(row) }))
    }
}

/// The transfer beside the checkpoint; absent where the view knows none.
struct Row {
    position: i64,
    generation: i16,
    transfer_id: Option<Uuid>,
    from: Option<Uuid>,
    to: Option<Uuid>,
    amount: Option<i64>,
    currency: Option<String>,
    reference: Option<String>,
    recorded_at: Option<DateTime<Utc>>,
}

fn view(row: Row) -> Option<TransferView> {
    Some(TransferView {
        transfer_id: row.transfer_id?,
        from: row.from?,
        to: row.to?,
        amount: row.amount?,
        currency: row.currency?,
        reference: row.reference,
        recorded_at: row.recorded_at?,
    })
}
