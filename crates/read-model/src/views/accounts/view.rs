//! An account as queries return it: the fold of its events, and the statement that reads current rows by id.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgExecutor, query_file_as};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{decoded_event::DecodedEvent, positioned::Positioned};
use passbook_domain::{Event, Status};
use passbook_event_store::{Partitions, timestamp};

/// An account as queries return it.
#[derive(Clone, Debug, Hash, PartialEq, Serialize, ToSchema)]
#[schema(as = Account)]
pub struct AccountView {
    /// The account.
    pub account_id: Uuid,
    /// The customer who owns the account.
    #[schema(example = "customer-17")]
    pub owner: String,
    /// The currency (ISO 4217).
    #[schema(example = "EUR")]
    pub currency: String,
    /// Open, frozen or closed.
    #[schema(value_type = Status)]
    pub status: String,
    /// The balance in minor units.
    #[schema(example = 15000, minimum = 0, maximum = 9007199254740991i64)]
    pub balance: i64,
    /// The number of events of the account. In quotes it is the ETag.
    #[schema(example = 2, minimum = 1)]
    pub version: i64,
    /// The number of events that moved money.
    #[schema(example = 2)]
    pub transaction_count: i64,
    /// When the account was opened.
    #[serde(with = "timestamp")]
    pub opened_at: DateTime<Utc>,
    /// When the last event of the account was recorded.
    #[serde(with = "timestamp")]
    pub last_activity_at: DateTime<Utc>,
    /// When the account was closed.
    #[serde(with = "timestamp::option")]
    #[schema(required = true)]
    pub closed_at: Option<DateTime<Utc>>,
}

impl AccountView {
    /// Folds one more event into the row. Returns `None` for an event before the opening.
    pub fn evolve(row: Option<Self>, decoded: &DecodedEvent) -> Option<Self> {
        let DecodedEvent { recorded, event } = decoded;
        let mut row = match (row, event) {
            (Some(row), _) => row,
            (None, Event::AccountOpened(opened)) => Self {
                account_id: recorded.stream_id,
                owner: opened.owner.to_string(),
                currency: opened.currency.code().to_owned(),
                status: String::new(),
                balance: 0,
                version: 0,
                transaction_count: 0,
                opened_at: recorded.recorded_at,
                last_activity_at: recorded.recorded_at,
                closed_at: None,
            },
            (None, _) => return None,
        };
        match event {
            Event::AccountOpened(_) | Event::AccountUnfrozen(_) => row.status = Status::Open.as_str().to_owned(),
            Event::AccountFrozen(_) => row.status = Status::Frozen.as_str().to_owned(),
            Event::AccountClosed(_) => {
                row.status = Status::Closed.as_str().to_owned();
                row.closed_at = Some(recorded.recorded_at);
            }
            Event::MoneyDeposited(_)
            | Event::MoneyWithdrawn(_)
            | Event::TransferSent(_)
            | Event::TransferReceived(_) => {}
        }
        row.balance += event.balance_change();
        row.transaction_count += i64::from(event.balance_change() != 0);
        row.version = recorded.version;
        row.last_activity_at = recorded.recorded_at;
        Some(row)
    }
}

/// Reads the rows of these accounts in the live generation. Unknown accounts are left out. `None`: no generation is live.
///
/// # Errors
/// The database failed.
pub async fn read_live(
    executor: impl PgExecutor<'_>,
    partitions: Partitions,
    partition: i16,
    ids: &[Uuid],
) -> sqlx::Result<Option<Positioned<Vec<AccountView>>>> {
    let rows = query_file_as!(Row, "src/views/accounts/live.sql", partition, ids).fetch_all(executor).await?;
    Ok(Row::positioned(rows, partitions, partition))
}

/// A row of the view with its checkpoint. If no row of the view matches, only the checkpoint is present.
pub(super) struct Row {
    pub(super) position: i64,
    pub(super) generation: i16,
    pub(super) account_id: Option<Uuid>,
    pub(super) owner: Option<String>,
    pub(super) currency: Option<String>,
    pub(super) status: Option<String>,
    pub(super) balance: Option<i64>,
    pub(super) version: Option<i64>,
    pub(super) transaction_count: Option<i64>,
    pub(super) opened_at: Option<DateTime<Utc>>,
    pub(super) last_activity_at: Option<DateTime<Utc>>,
    pub(super) closed_at: Option<DateTime<Utc>>,
}

impl Row {
    /// The accounts of a result; `None` if no generation is live.
    pub(super) fn positioned(
        rows: Vec<Self>,
        partitions: Partitions,
        partition: i16,
    ) -> Option<Positioned<Vec<AccountView>>> {
        let checkpoint = |row: &Self| (partitions.position_in(partition, row.position), row.generation);
        Positioned::from_rows(rows, checkpoint, Self::view)
    }

    pub(super) fn view(self) -> Option<AccountView> {
        Some(AccountView {
            account_id: self.account_id?,
            owner: self.owner?,
            currency: self.currency?,
            status: self.status?,
            balance: self.balance?,
            version: self.version?,
            transaction_count: self.transaction_count?,
            opened_at: self.opened_at?,
            last_activity_at: self.last_activity_at?,
            closed_at: self.closed_at,
        })
    }
}
