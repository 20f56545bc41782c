//! A transaction as queries return it, and pages of an account's transactions.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::{query_file_as, types::Json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::versions::{LiveVersions, live_versions_at};
use crate::{
    finality::last_moment_before,
    positioned::{Page, Positioned},
    read_model::{Error, ReadModel},
};
use passbook_domain::{Channel, Metadata};
use passbook_event_store::{Position, timestamp};

/// Limit of rows of an account that are scanned for one page. A filter can match few of them, and freezing moves no money. Each
/// row can be a random read of up to 1 ms, and a query may take 5 s.
const SCAN_ROWS_MAX: i64 = 4_000;
/// The version of every opening deposit.
const OPENING_VERSION: i64 = 1;

/// Why money moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each name is the value in the API")]
#[schema(as = TransactionKind)]
pub enum Kind {
    OpeningDeposit,
    Deposit,
    Withdrawal,
    TransferIn,
    TransferOut,
    Capture,
    ReversalIn,
    ReversalOut,
}

/// Whether a movement increased or decreased the balance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    In,
    Out,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::OpeningDeposit,
        Self::Deposit,
        Self::Withdrawal,
        Self::TransferIn,
        Self::TransferOut,
        Self::Capture,
        Self::ReversalIn,
        Self::ReversalOut,
    ];

    /// The direction of a kind with this name; `None` for the name of an event that moved no money.
    pub(super) fn direction(name: &str) -> Option<Direction> {
        Some(match Self::ALL.into_iter().find(|kind| kind.as_str() == name)? {
            Self::OpeningDeposit | Self::Deposit | Self::TransferIn | Self::ReversalIn => Direction::In,
            Self::Withdrawal | Self::TransferOut | Self::Capture | Self::ReversalOut => Direction::Out,
        })
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Kind::OpeningDeposit => "opening_deposit",
            Kind::Deposit => "deposit",
            Kind::Withdrawal => "withdrawal",
            Kind::TransferIn => "transfer_in",
            Kind::TransferOut => "transfer_out",
            Kind::Capture => "capture",
            Kind::ReversalIn => "reversal_in",
            Kind::ReversalOut => "reversal_out",
        }
    }
}

/// A transaction as queries return it.
#[derive(Clone, Debug, Hash, PartialEq, Serialize, ToSchema)]
#[schema(as = Transaction)]
pub struct TransactionView {
    /// The version of the account after the transaction.
    #[schema(example = 2, minimum = 1)]
    pub version: i64,
    /// Why money moved.
    #[schema(value_type = Kind)]
    pub kind: String,
    /// The amount in minor units. `kind` determines the direction.
    #[schema(example = 500, minimum = 1)]
    pub amount: i64,
    /// The balance after the transaction in minor units; negative while the overdraft is used.
    #[schema(example = 15000)]
    pub balance_after: i64,
    /// The transfer that the transaction is a side of.
    #[schema(required = true)]
    pub transfer_id: Option<Uuid>,
    /// The other account of the transfer.
    #[schema(required = true)]
    pub counterparty_account_id: Option<Uuid>,
    /// The hold that the transaction captured. That of a received transfer is the sender's.
    #[schema(required = true)]
    pub hold_id: Option<Uuid>,
    /// The version of the transaction of this account that a reversal pays back.
    #[schema(required = true, example = json!(null))]
    pub reverses_version: Option<i64>,
    /// The sum of its reversals so far in minor units. Statements do not have it, because it can change later.
    #[schema(example = 0, minimum = 0, nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reversed: Option<i64>,
    /// The text that the caller supplied.
    #[schema(required = true, example = "invoice 2026-17")]
    pub reference: Option<String>,
    /// Where the money was deposited or withdrawn.
    #[schema(value_type = Option<Channel>, required = true, example = json!(null))]
    pub channel: Option<String>,
    /// The pairs of texts that the caller supplied.
    #[schema(example = json!({}))]
    pub metadata: Metadata,
    /// When the event was recorded.
    #[serde(with = "timestamp")]
    pub recorded_at: DateTime<Utc>,
    /// The event that moved the money.
    pub event_id: Uuid,
    /// The batch of the command. Only the lines of a statement that were read with it have it.
    #[serde(skip)]
    pub batch_id: Option<Uuid>,
}

impl TransactionView {
    /// The change of the balance, in minor units.
    pub fn balance_change(&self) -> i64 {
        match Kind::direction(&self.kind) {
            Some(Direction::In) => self.amount,
            Some(Direction::Out) => -self.amount,
            None => 0,
        }
    }
}

/// Which transactions of an account a list contains.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Transactions recorded at this time or later.
    pub from: Option<DateTime<Utc>>,
    /// Transactions recorded before this time.
    pub to: Option<DateTime<Utc>>,
    /// Transactions of this kind.
    pub kind: Option<Kind>,
    /// Transactions whose reference begins with this text, in any case.
    pub reference: Option<String>,
    /// Transactions of at least this amount, in minor units.
    pub min_amount: Option<i64>,
    /// Transactions of at most this amount, in minor units.
    pub max_amount: Option<i64>,
}

impl Filter {
    /// The lowest version that the page does not contain, if its rows are below version `before`.
    fn end(&self, before: Option<i64>) -> i64 {
        let before = before.unwrap_or(i64::MAX);
        match self.kind {
            Some(Kind::OpeningDeposit) => before.min(OPENING_VERSION + 1),
            Some(
                Kind::Deposit
                | Kind::Withdrawal
                | Kind::TransferIn
                | Kind::TransferOut
                | Kind::Capture
                | Kind::ReversalIn
                | Kind::ReversalOut,
            )
            | None => before,
        }
    }
}

impl ReadModel {
    /// A page of an account's transactions below version `before`, the newest first. `next` of the page is the `before` of the
    /// next one.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn transactions(
        &self,
        account_id: Uuid,
        filter: &Filter,
        before: Option<i64>,
        limit: i64,
        min_position: Option<&Position>,
    ) -> Result<Positioned<Page<TransactionView, i64>>, Error> {
        let partition = self.partitions.partition_of(account_id);
        self.query_at_least(partition, min_position, |pool| async move {
            // Times never decrease with the version, so a range of times is a range of versions.
            let times: Vec<_> = filter.from.into_iter().chain(filter.to).map(last_moment_before).collect();
            let Some(LiveVersions { position, versions }) =
                live_versions_at(&pool, partition, account_id, &times).await?
            else {
                return Ok(None);
            };
            let above = filter.from.and(versions.first().copied()).unwrap_or_default();
            let last = filter.to.and(versions.last().copied());
            let rows = query_file_as!(
                Row,
                "src/views/transactions/list.sql",
                partition,
                account_id,
                filter.end(before),
                above,
                last,
                filter.kind.map(Kind::as_str),
                limit + 1,
                SCAN_ROWS_MAX,
                position,
                filter.reference.as_deref(),
                filter.min_amount,
                filter.max_amount
            )
            .fetch_all(&pool)
            .await?;
            let unscanned = rows.first().filter(|row| row.has_unscanned).map(|row| row.scanned_above + 1);
            let checkpoint = |row: &Row| (self.partitions.position_in(partition, row.position), row.generation);
            let transactions = Positioned::from_rows(rows, checkpoint, |row| row.columns().map(Columns::view));
            Ok(transactions.map(|transactions| transactions.map(|rows| page(rows, limit, unscanned))))
        })
        .await
    }
}

/// The page of a scan that found up to `limit + 1` rows. `unscanned` is the version below which rows are not scanned, if any.
fn page(mut rows: Vec<TransactionView>, limit: i64, unscanned: Option<i64>) -> Page<TransactionView, i64> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if rows.len() <= limit {
        return Page { rows, next: unscanned };
    }
    rows.truncate(limit);
    let next = rows.last().map(|last| last.version);
    Page { rows, next }
}

/// A row of the view with its checkpoint. If no row of the view matches, only the checkpoint is present.
struct Row {
    position: i64,
    generation: i16,
    /// The versions above this one are scanned.
    scanned_above: i64,
    /// Whether versions of the period remain at `scanned_above` or below.
    has_unscanned: bool,
    version: Option<i64>,
    kind: Option<String>,
    amount: Option<i64>,
    balance_after: Option<i64>,
    transfer_id: Option<Uuid>,
    counterparty_account_id: Option<Uuid>,
    hold_id: Option<Uuid>,
    reverses_version: Option<i64>,
    reversed: i64,
    reference: Option<String>,
    channel: Option<String>,
    metadata: Option<Json<Metadata>>,
    recorded_at: Option<DateTime<Utc>>,
    event_id: Option<Uuid>,
}

impl Row {
    fn columns(self) -> Option<Columns> {
        Some(Columns {
            version: self.version?,
            kind: self.kind?,
            amount: self.amount?,
            balance_after: self.balance_after?,
            transfer_id: self.transfer_id,
            counterparty_account_id: self.counterparty_account_id,
            hold_id: self.hold_id,
            reverses_version: self.reverses_version,
            reversed: Some(self.reversed),
            reference: self.reference,
            channel: self.channel,
            metadata: self.metadata,
            recorded_at: self.recorded_at?,
            event_id: self.event_id?,
        })
    }
}

/// The columns of a row.
pub(super) struct Columns {
    pub(super) version: i64,
    pub(super) kind: String,
    pub(super) amount: i64,
    pub(super) balance_after: i64,
    pub(super) transfer_id: Option<Uuid>,
    pub(super) counterparty_account_id: Option<Uuid>,
    pub(super) hold_id: Option<Uuid>,
    pub(super) reverses_version: Option<i64>,
    /// `None` in statements, and where rows are compared.
    pub(super) reversed: Option<i64>,
    pub(super) reference: Option<String>,
    pub(super) channel: Option<String>,
    pub(super) metadata: Option<Json<Metadata>>,
    pub(super) recorded_at: DateTime<Utc>,
    pub(super) event_id: Uuid,
}

impl Columns {
    pub(super) fn view(self) -> TransactionView {
        TransactionView {
            version: self.version,
            kind: self.kind,
            amount: self.amount,
            balance_after: self.balance_after,
            transfer_id: self.transfer_id,
            counterparty_account_id: self.counterparty_account_id,
            hold_id: self.hold_id,
            reverses_version: self.reverses_version,
            reversed: self.reversed,
            reference: self.reference,
            channel: self.channel,
            metadata: self.metadata.map(|Json(metadata)| metadata).unwrap_or_default(),
            recorded_at: self.recorded_at,
            event_id: self.event_id,
            batch_id: None,
        }
    }
}
