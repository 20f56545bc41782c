//! A hold as queries return it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::row::{HoldRow, HoldTexts};
use passbook_domain::{HoldStatus, Metadata};
use passbook_event_store::timestamp;

/// A hold as queries return it, at the moment of the query.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = Hold)]
pub struct HoldView {
    /// The id of the hold.
    pub hold_id: Uuid,
    /// The account that the hold is on.
    pub account_id: Uuid,
    /// Whether the hold is active, or how it ended. From `expires_at` on it is `expired`, whether that is recorded or not.
    pub status: HoldStatus,
    /// The amount at the placement, in minor units.
    #[schema(example = 500, minimum = 1, maximum = 9007199254740991i64)]
    pub amount: i64,
    /// The sum of the captures, in minor units.
    #[schema(example = 200, minimum = 0, maximum = 9007199254740991i64)]
    pub captured: i64,
    /// What can still be captured, in minor units; 0 once the hold is over.
    #[schema(example = 300, minimum = 0, maximum = 9007199254740991i64)]
    pub remaining: i64,
    /// When the hold was placed.
    #[serde(with = "timestamp")]
    pub placed_at: DateTime<Utc>,
    /// When the hold is over at the latest, this moment included.
    #[serde(with = "timestamp")]
    pub expires_at: DateTime<Utc>,
    /// The version of the account at which the hold was placed.
    #[schema(example = 2, minimum = 1)]
    pub version: i64,
    /// The text that the caller supplied.
    #[schema(required = true, example = "order 17")]
    pub reference: Option<String>,
    /// The pairs of texts that the caller supplied.
    #[schema(example = json!({}))]
    pub metadata: Metadata,
}

impl HoldView {
    /// The hold of an account at `now`.
    pub(super) fn at(account_id: Uuid, row: HoldRow, texts: HoldTexts, now: DateTime<Utc>) -> Self {
        let HoldRow { version, hold, .. } = row;
        let HoldTexts { reference, metadata } = texts;
        let status = match row.status {
            HoldStatus::Active if !hold.is_active(now) => HoldStatus::Expired,
            recorded => recorded,
        };
        Self {
            hold_id: hold.hold_id,
            account_id,
            status,
            amount: hold.amount.minor_units(),
            captured: hold.captured,
            remaining: if status == HoldStatus::Active { hold.remaining() } else { 0 },
            placed_at: hold.placed_at,
            expires_at: hold.expires_at,
            version,
            reference,
            metadata,
        }
    }
}
