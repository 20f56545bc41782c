//! Transfers, read from the movement on the side that sent them.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::query_file_as;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::{Error, ReadModel, Seen};
use crate::{event_store::Position, timestamp};

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
    /// One transfer, or `None` where the view knows none.
    pub async fn transfer(
        &self,
        transfer_id: Uuid,
        min_position: Option<Position>,
    ) -> Result<Seen<Option<TransferView>>, Error> {
        self.at_least(min_position, || async {
            let row = query_file_as!(Row, "src/read_model/transactions/transfer.sql", self.partition, transfer_id)
                .fetch_optional(&self.pool)
                .await?;
            Ok(row.map(|row| Seen { position: Position(row.position), generation: row.generation, value: view(row) }))
        })
        .await
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
