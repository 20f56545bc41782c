//! One account checked while the bank runs: its links in the chain, and its view.

use serde::Serialize;
use sqlx::{Connection, PgConnection};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Audit, Error};
use passbook_domain::Event;
use passbook_event_store::{
    chain,
    whole::{self, LinkedEvent},
};
use passbook_read_model::{
    DecodedEvent, Positioned,
    accounts::{self, AccountView},
};

/// How many events are read at once.
const PAGE_EVENTS: i64 = 5_000;

/// What the check of one account found.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Verification {
    /// The account.
    pub account_id: Uuid,
    /// Whether everything is in order.
    #[schema(example = true)]
    pub verified: bool,
    /// How many of its events were checked, from the first on.
    #[schema(example = 2)]
    pub events: i64,
    /// What is not in order, in plain words; `null` if nothing is.
    #[schema(example = json!(null))]
    pub finding: Option<String>,
}

/// The account's events so far, and the view beside them.
struct Check {
    partition: i16,
    account_id: Uuid,
    events: i64,
    fold: Option<AccountView>,
    view: Option<Positioned<Option<AccountView>>>,
}

impl Audit {
    /// Recomputes the account's links in the chain and compares its view with its fold, all at one moment. `None`: there
    /// is no such account.
    pub async fn account(&self, account_id: Uuid) -> Result<Option<Verification>, Error> {
        let _turn = self.verifications.try_acquire().map_err(|_| Error::Busy)?;
        let mut connection = self.pool.acquire().await?;
        let mut snapshot = connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let partition = self.partitions.of(account_id);
        let view = accounts::read_live(&mut *snapshot, self.partitions, partition, &[account_id])
            .await?
            .map(Positioned::into_single);
        let mut check = Check { partition, account_id, events: 0, fold: None, view };
        let finding = check.run(&mut snapshot).await?;
        snapshot.commit().await?;
        let known = check.events > 0 || finding.is_some();
        Ok(known.then_some(Verification { account_id, verified: finding.is_none(), events: check.events, finding }))
    }
}

impl Check {
    async fn run(&mut self, connection: &mut PgConnection) -> sqlx::Result<Option<String>> {
        loop {
            let page = whole::links(connection, self.partition, self.account_id, self.events, PAGE_EVENTS).await?;
            let is_last = (page.len() as i64) < PAGE_EVENTS;
            for (linked, previous) in page {
                if let Err(finding) = self.next(linked, &previous) {
                    return Ok(Some(finding));
                }
            }
            if is_last {
                return Ok(self.view_ahead());
            }
        }
    }

    /// One more event, which follows the one with the hash `previous` in the log.
    fn next(&mut self, linked: LinkedEvent, previous: &[u8]) -> Result<(), String> {
        let position = linked.event.position;
        let version = self.events + 1;
        if linked.event.version != version {
            return Err(format!("version {version} is missing"));
        }
        let unlinked = || format!("the event at position {position} is not what was recorded there");
        let previous = previous.try_into().map_err(|_| unlinked())?;
        if chain::hash(previous, linked.link(self.partition)) != *linked.hash {
            return Err(unlinked());
        }
        let LinkedEvent { event: recorded, .. } = linked;
        let event = Event::decode(&recorded.event_type, recorded.schema_version, &recorded.data)
            .map_err(|error| format!("position {position}: {error}"))?;
        self.events = version;
        self.fold = AccountView::evolve(self.fold.take(), &DecodedEvent { recorded, event });
        match &self.view {
            Some(Positioned { value: Some(view), .. })
                if view.version == version && Some(view) != self.fold.as_ref() =>
            {
                Err(format!("the view is not what the events up to position {position} say"))
            }
            Some(Positioned { value: Some(view), position: read, .. })
                if view.version < version && read.at(self.partition) >= position =>
            {
                Err(format!("the view has read position {position} and knows nothing of the event there"))
            }
            Some(Positioned { value: None, position: read, .. }) if read.at(self.partition) >= position => {
                Err(format!("the view has read position {position} and does not know the account"))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn view_ahead(&self) -> Option<String> {
        let view = self.view.as_ref()?.value.as_ref()?;
        (view.version > self.events)
            .then(|| format!("the view is at version {}, and the events end at {}", view.version, self.events))
    }
}
