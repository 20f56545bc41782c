//! An account as the view stores it: the fold of its events, and the account at a moment that follows from it.

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use uuid::Uuid;

use super::view::{AccountView, LimitView, LimitsView};
use crate::decoded_event::{DecodedEvent, cannot_apply};
use passbook_domain::{
    Account, Currency, Event, Holds, LimitName, Limits, Metadata, OpenedAccount, Status, Usage, limits::LimitUsage,
};

/// The version of the shape of the rows. Since version 2 a row has the counters of limits.
pub(super) const SCHEMA_VERSION: i16 = 2;

/// An account as the view stores it.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub struct AccountRow {
    /// The account.
    pub account_id: Uuid,
    /// The state, folded by the domain.
    pub state: OpenedAccount,
    /// The metadata of the opening.
    pub metadata: Metadata,
    /// The number of events that moved money.
    pub transaction_count: i64,
    /// When the account was opened.
    pub opened_at: DateTime<Utc>,
    /// When the last event of the account was recorded.
    pub last_activity_at: DateTime<Utc>,
    /// When the account was closed.
    pub closed_at: Option<DateTime<Utc>>,
}

impl AccountRow {
    /// Folds one more event into the row. Returns `None` for an event before the opening.
    pub fn evolve(row: Option<Self>, decoded: &DecodedEvent) -> Option<Self> {
        let DecodedEvent { recorded, event, .. } = decoded;
        let mut row = match row {
            Some(row) => Self { state: row.state.evolve(event, recorded.recorded_at), ..row },
            None => Self::opened(decoded)?,
        };
        if let Event::AccountClosed(_) = event {
            row.closed_at = Some(recorded.recorded_at);
        }
        row.state.version = recorded.version;
        row.transaction_count += i64::from(event.balance_change() != 0);
        row.last_activity_at = recorded.recorded_at;
        Some(row)
    }

    fn opened(DecodedEvent { recorded, event, .. }: &DecodedEvent) -> Option<Self> {
        let (Event::AccountOpened(opened), Account::Opened(state)) =
            (event, Account::default().evolve(event, recorded.recorded_at))
        else {
            return None;
        };
        Some(Self {
            account_id: recorded.stream_id,
            state,
            metadata: opened.metadata.clone(),
            transaction_count: 0,
            opened_at: recorded.recorded_at,
            last_activity_at: recorded.recorded_at,
            closed_at: None,
        })
    }

    /// The row as a generation of this shape stores it.
    #[must_use]
    pub fn in_shape(mut self, schema_version: i16) -> Self {
        if schema_version < SCHEMA_VERSION {
            self.state.usage = Usage::default();
        }
        self
    }

    /// The account at `now`, which is not before its last event.
    pub fn at(self, now: DateTime<Utc>) -> AccountView {
        let Self { account_id, state, metadata, transaction_count, opened_at, last_activity_at, closed_at } = self;
        AccountView {
            account_id,
            owner: state.owner.to_string(),
            currency: state.currency.code().to_owned(),
            status: state.status.as_str().to_owned(),
            balance: state.balance,
            held: state.holds.held(now),
            available: state.available(now),
            overdraft: state.limits.overdraft,
            version: state.version,
            transaction_count,
            opened_at,
            last_activity_at,
            closed_at,
            metadata,
            unrecorded_expiries: state.holds.over(now).count(),
        }
    }

    /// The limits of the account at `now`, which is not before its last event.
    pub(super) fn limits_at(&self, now: DateTime<Utc>) -> LimitsView {
        let limit = |name| self.state.limit_usage(name, now).map(LimitView::from);
        let maximum = self.state.limits.overdraft;
        let used = (maximum - self.state.available(now)).max(0);
        let overdraft = LimitUsage { maximum, used, remaining: (maximum - used).max(0), resets_at: None };
        LimitsView {
            overdraft: (maximum > 0).then(|| overdraft.into()),
            per_movement: limit(LimitName::PerMovement),
            out_per_day: limit(LimitName::OutPerDay),
            out_per_month: limit(LimitName::OutPerMonth),
        }
    }
}

/// The columns of a row.
pub(super) struct Columns {
    pub(super) account_id: Uuid,
    pub(super) owner: String,
    pub(super) currency: String,
    pub(super) status: String,
    pub(super) balance: i64,
    pub(super) limits: Option<Json<Limits>>,
    pub(super) usage: Option<Json<Usage>>,
    pub(super) holds: Option<Json<Holds>>,
    pub(super) metadata: Option<Json<Metadata>>,
    pub(super) version: i64,
    pub(super) transaction_count: i64,
    pub(super) opened_at: DateTime<Utc>,
    pub(super) last_activity_at: DateTime<Utc>,
    pub(super) closed_at: Option<DateTime<Utc>>,
}

impl Columns {
    /// The row.
    ///
    /// # Errors
    /// The currency or the status does not exist.
    pub(super) fn row(self) -> sqlx::Result<AccountRow> {
        let unknown = |name: &str| cannot_apply(format!("account {} has the unknown {name}", self.account_id));
        let currency = Currency::from_code(&self.currency).ok_or_else(|| unknown("currency"))?;
        let status = Status::from_name(&self.status).ok_or_else(|| unknown("status"))?;
        Ok(AccountRow {
            account_id: self.account_id,
            state: OpenedAccount {
                owner: self.owner.into(),
                currency,
                status,
                version: self.version,
                balance: self.balance,
                limits: value(self.limits),
                usage: value(self.usage),
                holds: value(self.holds),
            },
            metadata: value(self.metadata),
            transaction_count: self.transaction_count,
            opened_at: self.opened_at,
            last_activity_at: self.last_activity_at,
            closed_at: self.closed_at,
        })
    }
}

fn value<T: Default>(column: Option<Json<T>>) -> T {
    column.map_or_else(T::default, |Json(value)| value)
}
