//! The fold of the holds of an account: the holds without a recorded end, and the row of each hold after its last event.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use uuid::Uuid;

use crate::decoded_event::{DecodedEvent, cannot_apply};
use passbook_domain::{Amount, Currency, Event, Hold, HoldStatus, Metadata, holds::hold_version};

/// A hold after its last event, without its texts.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub(super) struct HoldRow {
    /// The version of the account at which the hold was placed.
    pub(super) version: i64,
    pub(super) currency: Currency,
    pub(super) hold: Hold,
    /// As recorded: active until the end of the hold is recorded.
    pub(super) status: HoldStatus,
}

/// The texts of a hold, which never change.
#[derive(Clone, Debug, Default, Hash, PartialEq, Eq)]
pub(super) struct HoldTexts {
    pub(super) reference: Option<String>,
    pub(super) metadata: Metadata,
}

impl HoldRow {
    /// What counts for the total of the currency, in minor units: what remains, until the end of the hold is recorded.
    pub(super) fn held(&self) -> i64 {
        match self.status {
            HoldStatus::Active => self.hold.remaining(),
            HoldStatus::Captured | HoldStatus::Voided | HoldStatus::Expired => 0,
        }
    }
}

/// The holds of an account that have no recorded end. Their texts can be long and are not needed to fold events.
#[derive(Clone, Debug, Default)]
pub(super) struct AccountHolds {
    /// `None` before the opening.
    currency: Option<Currency>,
    active: BTreeMap<Uuid, HoldRow>,
}

/// What an event changes.
pub(super) struct Change {
    /// The row of the hold after the event.
    pub(super) row: HoldRow,
    /// The texts, if the event places the hold.
    pub(super) texts: Option<HoldTexts>,
    /// The change of the total of its currency, in minor units.
    pub(super) held_change: i64,
}

impl AccountHolds {
    /// The holds that were read from the view.
    pub(super) fn new(currency: Currency) -> Self {
        Self { currency: Some(currency), active: BTreeMap::new() }
    }

    /// Adds a hold that was read from the view.
    pub(super) fn add(&mut self, row: HoldRow) {
        self.active.insert(row.hold.hold_id, row);
    }

    /// The rows of these holds.
    pub(super) fn rows(&self) -> impl Iterator<Item = HoldRow> {
        self.active.values().copied()
    }

    /// Folds one more event. `None` if it changes no hold of the account.
    ///
    /// # Errors
    /// The event belongs to a hold that was not placed, or whose end is recorded.
    pub(super) fn evolve(
        &mut self,
        DecodedEvent { recorded, event, .. }: &DecodedEvent,
    ) -> sqlx::Result<Option<Change>> {
        if let Event::AccountOpened(opened) = event {
            self.currency = Some(opened.currency);
        }
        let Some(hold_id) = event.own_hold() else { return Ok(None) };
        let unknown = || cannot_apply(format!("the hold of the event at position {} is not active", recorded.position));
        let (row, texts, held_before) = match (event, self.currency) {
            (Event::HoldPlaced(placed), Some(currency)) => {
                let hold = Hold::placed(placed, recorded.recorded_at);
                let texts = HoldTexts { reference: placed.reference.clone(), metadata: placed.metadata.clone() };
                let row = HoldRow { version: recorded.version, currency, hold, status: HoldStatus::Active };
                (row, Some(texts), 0)
            }
            (_, _) => {
                let before = self.active.remove(&hold_id).ok_or_else(unknown)?;
                let (hold, status) = before.hold.evolve(event);
                (HoldRow { hold, status, ..before }, None, before.held())
            }
        };
        if row.status == HoldStatus::Active {
            self.active.insert(hold_id, row);
        }
        let held_change = row.held() - held_before;
        Ok(Some(Change { row, texts, held_change }))
    }
}

/// The columns of a row.
pub(super) struct Columns {
    pub(super) account_id: Uuid,
    pub(super) version: i64,
    pub(super) hold_id: Uuid,
    pub(super) currency: String,
    pub(super) status: String,
    pub(super) amount: i64,
    pub(super) captured: i64,
    pub(super) placed_at: DateTime<Utc>,
    pub(super) expires_at: DateTime<Utc>,
    pub(super) reference: Option<String>,
    pub(super) metadata: Option<Json<Metadata>>,
}

impl Columns {
    /// The row and its texts.
    ///
    /// # Errors
    /// A column has a value that no event writes.
    pub(super) fn row(self) -> sqlx::Result<(HoldRow, HoldTexts)> {
        let Self { version, hold_id, captured, placed_at, expires_at, reference, .. } = self;
        let unknown = |name: &str| cannot_apply(format!("the hold {hold_id} has the unknown {name}"));
        let amount = Amount::try_from(self.amount).map_err(|_| unknown("amount"))?;
        let row = HoldRow {
            version,
            currency: Currency::from_code(&self.currency).ok_or_else(|| unknown("currency"))?,
            hold: Hold { hold_id, amount, captured, placed_at, expires_at },
            status: HoldStatus::from_name(&self.status).ok_or_else(|| unknown("status"))?,
        };
        let metadata = self.metadata.map(|Json(metadata)| metadata).unwrap_or_default();
        Ok((row, HoldTexts { reference, metadata }))
    }
}

/// The version in the key of a hold. No row has version 0.
pub(super) fn key_version(hold_id: Uuid) -> i64 {
    hold_version(hold_id).unwrap_or_default()
}
