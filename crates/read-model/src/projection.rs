//! What a view is to the projector: a name, and a way to fold events into its rows.

use std::sync::LazyLock;

use futures_util::future::BoxFuture;
use sqlx::{PgConnection, Result};
use uuid::Uuid;

use super::{accounts::Accounts, bank_totals::BankTotals, daily_balances::DailyBalances, transactions::Transactions};
use passbook_domain::{Event, event::DecodeError};
use passbook_event_store::{RecordedEvent, StreamVersion};

/// Every view that Passbook keeps.
pub(super) fn projections() -> Vec<Box<dyn Projection>> {
    vec![
        Box::<Accounts>::default(),
        Box::<Transactions>::default(),
        Box::<DailyBalances>::default(),
        Box::<BankTotals>::default(),
    ]
}

/// A view that is kept by folding events into rows.
pub trait Projection: Send + Sync {
    /// The name in `GET /v1/projections` and in the `projection` table.
    fn name(&self) -> &'static str;

    /// Raised when the rows mean something else than before.
    fn schema_version(&self) -> i16;

    /// Folds `events` into the rows of `place`.
    fn apply<'a>(
        &'a mut self,
        connection: &'a mut PgConnection,
        place: Place,
        events: &'a [Applicable],
    ) -> BoxFuture<'a, Result<()>>;

    /// Drops rows held in memory: somebody else may have written since.
    fn forget(&mut self);

    /// What must hold of all rows together once `position` is read, told without reading the log; the sentence where it
    /// does not.
    fn check_sums<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        place: Place,
        position: i64,
    ) -> BoxFuture<'a, Result<Option<String>>>;

    /// Deletes up to `limit` rows of a generation that nobody reads any more, and says how many.
    fn discard<'a>(&'a self, connection: &'a mut PgConnection, place: Place, limit: i64) -> BoxFuture<'a, Result<u64>>;

    /// The same view folded in memory, to compare its rows with.
    fn check(&self) -> Box<dyn Check>;
}

/// Folds the log in memory, one event after the other, and compares a view's rows with what comes out. Its memory grows
/// with accounts and not with events.
pub trait Check: Send {
    /// Folds one more event in.
    fn apply(&mut self, applicable: &Applicable);

    /// The first row of `place` found that is not what the events so far make of it: of all rows, or of these accounts'
    /// alone.
    fn compare<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        place: Place,
        only: Option<&'a [Uuid]>,
    ) -> BoxFuture<'a, Result<Option<Flaw>>>;
}

/// What is wrong with a row of a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// The last event that the row should rest on.
    pub position: i64,
    /// What is wrong.
    pub sentence: String,
}

/// A view and the shape of its rows.
pub type Shape = (&'static str, i16);

/// Every view in the shape of this release, each with an empty fold.
pub fn checks() -> Vec<(Shape, Box<dyn Check>)> {
    projections().iter().map(|view| ((view.name(), view.schema_version()), view.check())).collect()
}

/// Every view that this release keeps, and the newest shape that it can give to the rows. Those of a newer release it
/// leaves alone.
pub(super) struct Known {
    pub(super) names: Vec<String>,
    pub(super) schema_versions: Vec<i16>,
}

impl Known {
    /// The shape that this release gives to the rows of a view; `None`: there is no such view.
    pub(super) fn schema_version(&self, name: &str) -> Option<i16> {
        let mut views = self.names.iter().zip(&self.schema_versions);
        views.find(|(known, _)| *known == name).map(|(_, schema_version)| *schema_version)
    }
}

/// What this release knows, told once.
pub(super) fn known() -> &'static Known {
    static KNOWN: LazyLock<Known> = LazyLock::new(|| {
        let (names, schema_versions) =
            projections().iter().map(|view| (view.name().to_owned(), view.schema_version())).unzip();
        Known { names, schema_versions }
    });
    &KNOWN
}

/// Which rows a projection writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The log's partition.
    pub partition: i16,
    /// The view's generation, from 1.
    pub generation: i16,
    /// The version of the view's shape that its rows have.
    pub schema_version: i16,
}

/// A recorded event, decoded.
#[derive(Debug)]
pub struct Applicable {
    /// As the log holds it.
    pub recorded: RecordedEvent,
    /// What it means.
    pub event: Event,
}

impl TryFrom<RecordedEvent> for Applicable {
    type Error = sqlx::Error;

    fn try_from(recorded: RecordedEvent) -> Result<Self> {
        match Event::decode(&recorded.event_type, recorded.schema_version, &recorded.data) {
            Ok(event) => Ok(Self { recorded, event }),
            Err(source) => Err(sqlx::Error::Decode(Box::new(Undecodable { recorded, source }))),
        }
    }
}

/// Decodes events and checks that they follow `position` without a hole. None is ever skipped.
pub(super) fn decode(events: Vec<RecordedEvent>, position: i64) -> Result<Vec<Applicable>> {
    (position + 1..)
        .zip(events)
        .map(|(expected, recorded)| match recorded.position == expected {
            true => recorded.try_into(),
            false => Err(cannot_apply(format!("position {expected} is missing from the log"))),
        })
        .collect()
}

/// A recorded event that this release does not understand.
#[derive(Debug, thiserror::Error)]
#[error("position {}: {source}", recorded.position)]
struct Undecodable {
    recorded: RecordedEvent,
    source: DecodeError,
}

/// The event that an error is about, if only a newer release can read it.
pub(super) fn newer(error: &sqlx::Error) -> Option<StreamVersion> {
    let sqlx::Error::Decode(inner) = error else { return None };
    match inner.downcast_ref()? {
        Undecodable { recorded, source: DecodeError::Newer { .. } } => {
            Some(StreamVersion { stream_id: recorded.stream_id, version: recorded.version })
        }
        Undecodable { .. } => None,
    }
}

/// An event that a view cannot take.
pub(super) fn cannot_apply(reason: String) -> sqlx::Error {
    sqlx::Error::Decode(reason.into())
}
