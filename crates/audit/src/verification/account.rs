//! Verifies one account while the service runs: recomputes its hashes, and compares its view with the fold of its events.
//!
//! The view is read first, and then the events in slices, each with a statement of its own. Events never change, so no snapshot of
//! the database is needed. A check that takes longer than one request is kept, and the next request continues it.

use serde::Serialize;
use sqlx::PgPool;
use utoipa::ToSchema;
use uuid::Uuid;

use passbook_domain::{Aggregate, Event, EventType};
use passbook_event_store::{EventWithHash, Partitions, hash_chain, scan};
use passbook_read_model::{
    DecodedEvent, Positioned,
    accounts::{self, AccountRow, ReadAccount},
};

/// The end of a verification.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The account does not exist.
    UnknownAccount,
    /// All events were verified, or there is a finding.
    Verified(Verification),
}

/// The result of verifying one account.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = AccountVerification)]
pub struct Verification {
    /// The account.
    pub account_id: Uuid,
    /// Whether the account is consistent.
    #[schema(example = true)]
    pub verified: bool,
    /// How many of the account's events were verified, from the first on.
    #[schema(example = 2)]
    pub events: i64,
    /// What is inconsistent; `null` if nothing is.
    #[schema(required = true, example = json!(null))]
    pub finding: Option<String>,
}

/// A verification that continues after the events that it has verified.
#[derive(Debug)]
pub(crate) struct AccountCheck {
    partition: i16,
    account_id: Uuid,
    events: i64,
    fold: Option<AccountRow>,
    view: Option<Positioned<Option<ReadAccount>>>,
}

impl AccountCheck {
    /// Reads the view of the account.
    ///
    /// # Errors
    /// The database failed.
    pub(crate) async fn begin(pool: &PgPool, partitions: Partitions, account_id: Uuid) -> sqlx::Result<Self> {
        let mut connection = pool.acquire().await?;
        let partition = partitions.partition_of(account_id);
        let view = accounts::read_live(&mut *connection, partitions, partition, &[account_id]).await?;
        let view = view.map(Positioned::into_single);
        Ok(Self { partition, account_id, events: 0, fold: None, view })
    }

    /// How many events are verified.
    pub(crate) fn events(&self) -> i64 {
        self.events
    }

    /// Verifies the next `slice_events` events. Returns the result after the last slice or with the first finding, otherwise `None`.
    ///
    /// # Errors
    /// The database failed. The check can be continued.
    pub(crate) async fn verify_slice(&mut self, pool: &PgPool, slice_events: i64) -> sqlx::Result<Option<Outcome>> {
        let (partition, account_id) = (self.partition, self.account_id);
        let slice = {
            let mut connection = pool.acquire().await?;
            scan::events_with_previous_hash(&mut connection, partition, account_id, self.events, slice_events).await?
        };
        let is_last = (slice.len() as i64) < slice_events;
        // No account: the stream of another aggregate.
        if slice
            .first()
            .is_some_and(|(linked, _)| EventType::aggregate_of(&linked.event.event_type) != Aggregate::BankAccount)
        {
            return Ok(Some(Outcome::UnknownAccount));
        }
        for (linked, previous_hash) in slice {
            if let Err(finding) = self.apply(linked, &previous_hash) {
                return Ok(Some(self.outcome(Some(finding))));
            }
        }
        Ok(is_last.then(|| self.outcome(self.compare_versions())))
    }

    fn outcome(&self, finding: Option<String>) -> Outcome {
        if self.events == 0 && finding.is_none() {
            return Outcome::UnknownAccount;
        }
        let Self { account_id, events, .. } = *self;
        Outcome::Verified(Verification { account_id, verified: finding.is_none(), events, finding })
    }

    /// Verifies and folds the next event. `previous_hash` is the hash of the event before it in the log.
    fn apply(&mut self, linked: EventWithHash, previous_hash: &[u8]) -> Result<(), String> {
        let position = linked.event.position;
        let version = self.events + 1;
        if linked.event.version != version {
            return Err(format!("version {version} is missing"));
        }
        let changed = || format!("the hash of the event at position {position} does not match: an event was changed");
        let previous_hash = previous_hash.try_into().map_err(|_| changed())?;
        if hash_chain::hash(previous_hash, linked.hashed_fields(self.partition)) != *linked.hash {
            return Err(changed());
        }
        let EventWithHash { event: recorded, .. } = linked;
        let event = Event::decode(&recorded.event_type, recorded.schema_version, &recorded.data)
            .map_err(|error| format!("position {position}: {error}"))?;
        self.events = version;
        self.fold = AccountRow::evolve(self.fold.take(), &DecodedEvent { recorded, event, place: None });
        self.compare_view(version, position)
    }

    /// Compares the view after the event with this version and position.
    fn compare_view(&self, version: i64, position: i64) -> Result<(), String> {
        let Some(Positioned { value: view, position: checkpoint, .. }) = &self.view else { return Ok(()) };
        let is_projected = checkpoint.in_partition(self.partition) >= position;
        match view {
            Some(view) if view.row.state.version == version && !self.matches_fold(view) => {
                Err(format!("the view does not match the events up to position {position}"))
            }
            Some(view) if view.row.state.version < version && is_projected => {
                Err(format!("the view's checkpoint includes position {position}, but the view lacks the event there"))
            }
            None if is_projected => {
                Err(format!("the view's checkpoint includes position {position}, but the view lacks the account"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether the row is the fold of the events, as a generation of its shape stores it.
    fn matches_fold(&self, view: &ReadAccount) -> bool {
        self.fold.clone().is_some_and(|fold| fold.in_shape(view.schema_version) == view.row)
    }

    /// Compares the view's version with the number of events.
    fn compare_versions(&self) -> Option<String> {
        let version = self.view.as_ref()?.value.as_ref()?.row.state.version;
        (version > self.events)
            .then(|| format!("the view has version {version}, but the last event has version {}", self.events))
    }
}
