//! Verifies one account while the service runs: recomputes its hashes, and compares its view with the fold of its events.

use serde::Serialize;
use sqlx::{Connection, PgConnection};
use utoipa::ToSchema;
use uuid::Uuid;

use passbook_domain::Event;
use passbook_event_store::{EventWithHash, Partitions, hash_chain, scan};
use passbook_read_model::{
    DecodedEvent, Positioned,
    accounts::{self, AccountView},
};

/// How many events are read at once.
const PAGE_EVENTS: i64 = 5_000;

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

/// Recomputes the account's hashes in the hash chain and compares its view with the fold of its events, in one snapshot of the
/// database. `None` if the account does not exist.
///
/// # Errors
/// The database failed.
pub(crate) async fn verify_account(
    connection: &mut PgConnection,
    partitions: Partitions,
    account_id: Uuid,
) -> sqlx::Result<Option<Verification>> {
    let mut snapshot = connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let partition = partitions.partition_of(account_id);
    let view = accounts::read_live(&mut *snapshot, partitions, partition, &[account_id]).await?;
    let view = view.map(Positioned::into_single);
    let mut check = AccountCheck { partition, account_id, events: 0, fold: None, view };
    let finding = check.run(&mut snapshot).await?;
    snapshot.commit().await?;
    let exists = check.events > 0 || finding.is_some();
    Ok(exists.then_some(Verification { account_id, verified: finding.is_none(), events: check.events, finding }))
}

/// The fold of the account's events so far, and the view.
struct AccountCheck {
    partition: i16,
    account_id: Uuid,
    events: i64,
    fold: Option<AccountView>,
    view: Option<Positioned<Option<AccountView>>>,
}

impl AccountCheck {
    /// Verifies all events. Returns what is inconsistent, or `None`.
    async fn run(&mut self, connection: &mut PgConnection) -> sqlx::Result<Option<String>> {
        loop {
            let page =
                scan::events_with_previous_hash(connection, self.partition, self.account_id, self.events, PAGE_EVENTS)
                    .await?;
            let is_last = (page.len() as i64) < PAGE_EVENTS;
            for (linked, previous_hash) in page {
                if let Err(finding) = self.apply(linked, &previous_hash) {
                    return Ok(Some(finding));
                }
            }
            if is_last {
                return Ok(self.compare_versions());
            }
        }
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
        self.fold = AccountView::evolve(self.fold.take(), &DecodedEvent { recorded, event });
        self.compare_view(version, position)
    }

    /// Compares the view after the event with this version and position.
    fn compare_view(&self, version: i64, position: i64) -> Result<(), String> {
        let Some(Positioned { value: view, position: checkpoint, .. }) = &self.view else { return Ok(()) };
        let is_projected = checkpoint.in_partition(self.partition) >= position;
        match view {
            Some(view) if view.version == version && Some(view) != self.fold.as_ref() => {
                Err(format!("the view does not match the events up to position {position}"))
            }
            Some(view) if view.version < version && is_projected => {
                Err(format!("the view's checkpoint includes position {position}, but the view lacks the event there"))
            }
            None if is_projected => {
                Err(format!("the view's checkpoint includes position {position}, but the view lacks the account"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Compares the view's version with the number of events.
    fn compare_versions(&self) -> Option<String> {
        let view = self.view.as_ref()?.value.as_ref()?;
        (view.version > self.events)
            .then(|| format!("the view has version {}, but the last event has version {}", view.version, self.events))
    }
}
