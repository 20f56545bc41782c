//! The view of movements: one row for each event of an account with what it was after it, and the list of those that moved
//! money.

mod check;
mod entry;
mod projection;
mod reckoning;
pub mod statement;
pub mod transfer;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::query_file_as;
use utoipa::ToSchema;
use uuid::Uuid;

pub(super) use projection::Transactions;
pub use reckoning::Totals;

use super::{Error, ReadModel, Seen, page};
use passbook_event_store::Position;
use passbook_event_store::timestamp;

/// Why money moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the words of the contract")]
pub enum Kind {
    OpeningDeposit,
    Deposit,
    Withdrawal,
    TransferIn,
    TransferOut,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Kind::OpeningDeposit => "opening_deposit",
            Kind::Deposit => "deposit",
            Kind::Withdrawal => "withdrawal",
            Kind::TransferIn => "transfer_in",
            Kind::TransferOut => "transfer_out",
        }
    }
}

/// A movement of money as the queries show it.
#[derive(Clone, Debug, Hash, PartialEq, Serialize, ToSchema)]
pub struct TransactionView {
    /// The account's version at which it happened.
    #[schema(example = 2, minimum = 1)]
    pub version: i64,
    /// Why money moved.
    #[schema(value_type = Kind)]
    pub kind: String,
    /// How much, in minor units; `kind` tells the direction.
    #[schema(example = 500, minimum = 1)]
    pub amount: i64,
    /// The account's balance after it, in minor units.
    #[schema(example = 15000, minimum = 0)]
    pub balance_after: i64,
    /// The transfer that it belongs to.
    pub transfer_id: Option<Uuid>,
    /// The other account of the transfer.
    pub counterparty_account_id: Option<Uuid>,
    /// The caller's own words.
    #[schema(example = "invoice 2026-17")]
    pub reference: Option<String>,
    /// When.
    #[serde(with = "timestamp")]
    pub recorded_at: DateTime<Utc>,
    /// The event behind it.
    pub event_id: Uuid,
}

/// Which of an account's movements a list holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter {
    /// Recorded then or later.
    pub from: Option<DateTime<Utc>>,
    /// Recorded before.
    pub to: Option<DateTime<Utc>>,
    /// Of this kind.
    pub kind: Option<Kind>,
}

impl ReadModel {
    /// A page of an account's movements below version `before`, newest first, and whether there are more.
    pub async fn transactions(
        &self,
        account_id: Uuid,
        filter: Filter,
        before: Option<i64>,
        limit: i64,
        min_position: Option<&Position>,
    ) -> Result<Seen<(Vec<TransactionView>, bool)>, Error> {
        let partition = self.partitions.of(account_id);
        self.at_least(partition, min_position, |pool| async move {
            let rows = query_file_as!(
                Row,
                "src/transactions/list.sql",
                partition,
                account_id,
                before.unwrap_or(i64::MAX),
                filter.from,
                filter.to,
                filter.kind.map(Kind::as_str),
                limit + 1
            )
            .fetch_all(&pool)
            .await?;
            let checkpoint =
                rows.first().map(|row| (self.partitions.position(partition, row.position), row.generation));
            Ok(checkpoint.map(|(position, generation)| Seen {
                value: page(rows.into_iter().filter_map(view).collect(), limit),
                position,
                generation,
            }))
        })
        .await
    }
}

/// A row of the view beside its checkpoint; all but the checkpoint is absent where the view holds nothing that fits.
struct Row {
    position: i64,
    generation: i16,
    version: Option<i64>,
    kind: Option<String>,
    amount: Option<i64>,
    balance_after: Option<i64>,
    transfer_id: Option<Uuid>,
    counterparty_account_id: Option<Uuid>,
    reference: Option<String>,
    recorded_at: Option<DateTime<Utc>>,
    event_id: Option<Uuid>,
}

fn view(row: Row) -> Option<TransactionView> {
    Some(TransactionView {
        version: row.version?,
        kind: row.kind?,
        amount: row.amount?,
        balance_after: row.balance_after?,
        transfer_id: row.transfer_id,
        counterparty_account_id: row.counterparty_account_id,
        reference: row.reference,
        recorded_at: row.recorded_at?,
        event_id: row.event_id?,
    })
}
