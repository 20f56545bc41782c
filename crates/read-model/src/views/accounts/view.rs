//! An account as queries return it, and the statement that reads current rows by id.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgExecutor, query_file_as, types::Json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::row::{AccountRow, Columns};
use crate::positioned::Positioned;
use passbook_domain::{Holds, Limits, Metadata, Status, Usage, limits::LimitUsage};
use passbook_event_store::{Partitions, timestamp};

/// An account as queries return it, at the moment of the query or at an earlier one.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
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
    /// The balance in minor units; negative while the overdraft is used.
    #[schema(example = 15000, maximum = 9007199254740991i64)]
    pub balance: i64,
    /// What active holds set aside, in minor units.
    #[schema(example = 500, minimum = 0)]
    pub held: i64,
    /// What debits and holds can use, in minor units: `balance - held + overdraft`. Negative if the overdraft was lowered below what
    /// is used.
    #[schema(example = 14500, maximum = 9007199254740991i64)]
    pub available: i64,
    /// How far the balance may go below zero, in minor units.
    #[schema(example = 0, minimum = 0, maximum = 9007199254740991i64)]
    pub overdraft: i64,
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
    /// The pairs of texts that the account was opened with.
    #[schema(example = json!({}))]
    pub metadata: Metadata,
    /// How many holds are over without a recorded expiry. Each of them has changed `held` and `available` without a new version, so
    /// the number is a part of the ETag.
    #[serde(skip)]
    pub unrecorded_expiries: usize,
}

/// A limit of an account, and how much of it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = LimitUsage)]
pub struct LimitView {
    /// The limit, in minor units.
    #[schema(example = 200000, minimum = 0, maximum = 9007199254740991i64)]
    pub maximum: i64,
    /// What counts against it, in minor units; 0 for the limit on single movements.
    #[schema(example = 500, minimum = 0)]
    pub used: i64,
    /// What is left of it, in minor units.
    #[schema(example = 199500, minimum = 0, maximum = 9007199254740991i64)]
    pub remaining: i64,
    /// When `used` starts at 0 again; `null` for the overdraft and the limit on single movements.
    #[serde(with = "timestamp::option")]
    #[schema(required = true)]
    pub resets_at: Option<DateTime<Utc>>,
}

impl From<LimitUsage> for LimitView {
    fn from(LimitUsage { maximum, used, remaining, resets_at }: LimitUsage) -> Self {
        Self { maximum, used, remaining, resets_at }
    }
}

/// The limits of an account at the moment of the query. A limit that is not set is `null`, and so is an overdraft of 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = AccountLimits)]
pub struct LimitsView {
    /// How far the balance may go below zero. What the balance and active holds use of it is `used`.
    #[schema(required = true)]
    pub overdraft: Option<LimitView>,
    /// The largest single withdrawal, sent transfer or hold.
    #[schema(required = true)]
    pub per_movement: Option<LimitView>,
    /// How much may leave the account in one UTC day.
    #[schema(required = true)]
    pub out_per_day: Option<LimitView>,
    /// How much may leave the account in one UTC month.
    #[schema(required = true)]
    pub out_per_month: Option<LimitView>,
}

/// Reads the rows of these accounts in the live generation, with the schema version of that generation and the time of the read.
/// Unknown accounts are left out. `None`: no generation is live.
///
/// # Errors
/// The database failed.
pub async fn read_live(
    executor: impl PgExecutor<'_>,
    partitions: Partitions,
    partition: i16,
    ids: &[Uuid],
) -> sqlx::Result<Option<Positioned<Vec<ReadAccount>>>> {
    let rows = query_file_as!(Row, "src/views/accounts/live.sql", partition, ids).fetch_all(executor).await?;
    Row::positioned(rows, partitions, partition)
}

/// A row that was read.
#[derive(Clone, Debug)]
pub struct ReadAccount {
    /// The row.
    pub row: AccountRow,
    /// The version of the shape of the row.
    pub schema_version: i16,
    /// When it was read: the clock of the database that answered, or the time of the log's head if that is later. So no read is
    /// earlier than a decision that it can see. For a row of the history, its moment.
    pub now: DateTime<Utc>,
}

impl ReadAccount {
    /// The account at the moment of the read.
    pub fn view(self) -> AccountView {
        self.row.at(self.now)
    }
}

/// A row of the view with its checkpoint. If no row of the view matches, only the checkpoint is present.
pub(super) struct Row {
    pub(super) position: i64,
    pub(super) generation: i16,
    pub(super) schema_version: i16,
    pub(super) now: Option<DateTime<Utc>>,
    pub(super) account_id: Option<Uuid>,
    pub(super) owner: Option<String>,
    pub(super) currency: Option<String>,
    pub(super) status: Option<String>,
    pub(super) balance: Option<i64>,
    pub(super) limits: Option<Json<Limits>>,
    pub(super) usage: Option<Json<Usage>>,
    pub(super) holds: Option<Json<Holds>>,
    pub(super) metadata: Option<Json<Metadata>>,
    pub(super) version: Option<i64>,
    pub(super) transaction_count: Option<i64>,
    pub(super) opened_at: Option<DateTime<Utc>>,
    pub(super) last_activity_at: Option<DateTime<Utc>>,
    pub(super) closed_at: Option<DateTime<Utc>>,
}

impl Row {
    /// The accounts of a result; `None` if no generation is live.
    ///
    /// # Errors
    /// A row has an unknown currency or status.
    pub(super) fn positioned(
        rows: Vec<Self>,
        partitions: Partitions,
        partition: i16,
    ) -> sqlx::Result<Option<Positioned<Vec<ReadAccount>>>> {
        let Some(first) = rows.first() else { return Ok(None) };
        let (position, generation) = (partitions.position_in(partition, first.position), first.generation);
        let value = rows.into_iter().filter_map(|row| row.read().transpose()).collect::<sqlx::Result<_>>()?;
        Ok(Some(Positioned { value, position, generation }))
    }

    pub(super) fn read(self) -> sqlx::Result<Option<ReadAccount>> {
        let (schema_version, now) = (self.schema_version, self.now);
        let Some((columns, now)) = self.columns().zip(now) else { return Ok(None) };
        Ok(Some(ReadAccount { row: columns.row()?, schema_version, now }))
    }

    fn columns(self) -> Option<Columns> {
        Some(Columns {
            account_id: self.account_id?,
            owner: self.owner?,
            currency: self.currency?,
            status: self.status?,
            balance: self.balance?,
            limits: self.limits,
            usage: self.usage,
            holds: self.holds,
            metadata: self.metadata,
            version: self.version?,
            transaction_count: self.transaction_count?,
            opened_at: self.opened_at?,
            last_activity_at: self.last_activity_at?,
            closed_at: self.closed_at,
        })
    }
}
