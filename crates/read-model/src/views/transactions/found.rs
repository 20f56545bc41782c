//! Rows that searches of transactions find, and their places in the log.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::types::Json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::view::{Columns, TransactionView};
use crate::positioned::Positioned;
use passbook_domain::Metadata;
use passbook_event_store::Partitions;

/// A transaction with its account.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = AccountTransaction)]
pub struct AccountTransactionView {
    /// The account whose balance changed.
    pub account_id: Uuid,
    /// The transaction.
    #[serde(flatten)]
    pub transaction: TransactionView,
}

/// The place of a transaction in the list: its time, its partition, and the position of its event there. The next page has the
/// transactions below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogKey {
    /// When the event was recorded.
    pub recorded_at: DateTime<Utc>,
    /// The partition of the account.
    pub partition: i16,
    /// The position of the event in the partition.
    pub position: i64,
}

/// The transactions found by the scan of one partition.
pub(super) struct Scan {
    pub(super) found: Vec<(LogKey, AccountTransactionView)>,
    /// The last row scanned, if the scan ended at its limit.
    pub(super) end: Option<LogKey>,
}

/// A row of the view with its checkpoint and its event. If no row matches, only the checkpoint is present.
pub(super) struct Row {
    pub(super) position: i64,
    pub(super) generation: i16,
    pub(super) event_position: Option<i64>,
    pub(super) account_id: Option<Uuid>,
    pub(super) version: Option<i64>,
    pub(super) kind: Option<String>,
    pub(super) amount: Option<i64>,
    pub(super) balance_after: Option<i64>,
    pub(super) transfer_id: Option<Uuid>,
    pub(super) counterparty_account_id: Option<Uuid>,
    pub(super) hold_id: Option<Uuid>,
    pub(super) reverses_version: Option<i64>,
    pub(super) reversed: i64,
    pub(super) reference: Option<String>,
    pub(super) channel: Option<String>,
    pub(super) metadata: Option<Json<Metadata>>,
    pub(super) recorded_at: Option<DateTime<Utc>>,
    pub(super) event_id: Option<Uuid>,
    /// Whether the row matches the filter. Otherwise it is here as the end of the scan.
    pub(super) is_match: Option<bool>,
    /// Whether it is the last row that the scan may read, of all accounts or of one.
    pub(super) is_scan_end: Option<bool>,
}

impl Row {
    /// The scan that returned these rows; `None` if no generation is live.
    pub(super) fn scan(rows: Vec<Self>, partitions: Partitions, partition: i16) -> Option<Positioned<Scan>> {
        let first = rows.first()?;
        let (position, generation) = (partitions.position_in(partition, first.position), first.generation);
        // The newest end: the scans of several accounts can end at different times.
        let end = rows.iter().find(|row| row.is_scan_end == Some(true)).and_then(|row| row.key(partition));
        let found = rows.into_iter().filter_map(|row| row.key(partition).zip(row.view())).collect();
        Some(Positioned { value: Scan { found, end }, position, generation })
    }

    fn key(&self, partition: i16) -> Option<LogKey> {
        Some(LogKey { recorded_at: self.recorded_at?, partition, position: self.event_position? })
    }

    /// The transaction; `None` if the row is only the end of the scan, or no row.
    fn view(self) -> Option<AccountTransactionView> {
        if self.is_match != Some(true) {
            return None;
        }
        let columns = Columns {
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
        };
        Some(AccountTransactionView { account_id: self.account_id?, transaction: columns.view() })
    }
}
