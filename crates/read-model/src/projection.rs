//! The interface between the projector and a view: how events are folded into rows, and how the rows are checked.

use futures_util::future::BoxFuture;
use sqlx::{PgConnection, Result};
use uuid::Uuid;

use crate::decoded_event::DecodedEvent;

/// Folds events into the rows of a view.
pub trait Projection: Send + Sync {
    /// The name in `GET /v1/projections` and in the table `projection`.
    fn name(&self) -> &'static str;

    /// The version of the shape of the rows. It increases when the rows change their meaning.
    fn schema_version(&self) -> i16;

    /// Reads what the fold of a batch needs and the cache does not have, before the transaction of [`Self::apply`] takes its locks.
    /// The rows of `view` are those of the position before the batch.
    ///
    /// # Errors
    /// The database failed, or a row has an unknown value.
    fn preload<'a>(
        &'a mut self,
        connection: &'a mut PgConnection,
        view: ViewGeneration,
        events: &'a [DecodedEvent],
    ) -> BoxFuture<'a, Result<()>>;

    /// Folds a batch of at least one event into the rows of `view`, in the transaction that also moves the checkpoint.
    ///
    /// # Errors
    /// The database failed, or the events contradict the rows. The caller then rolls back and clears the cache.
    fn apply<'a>(
        &'a mut self,
        connection: &'a mut PgConnection,
        view: ViewGeneration,
        events: &'a [DecodedEvent],
    ) -> BoxFuture<'a, Result<()>>;

    /// Drops rows cached in memory, because another process may have written since or a transaction failed.
    fn clear_cache(&mut self);

    /// Checks an invariant over all rows that needs no log, once the view has read so many events of accounts. Returns what is
    /// wrong, or `None`.
    ///
    /// # Errors
    /// The database failed.
    fn check_sums<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        view: ViewGeneration,
        events: i64,
    ) -> BoxFuture<'a, Result<Option<String>>>;

    /// Deletes up to `limit` rows of a retired generation, in the order of their keys, behind the row `after`. Returns the last
    /// deleted row, or `None` if no row was left.
    ///
    /// # Errors
    /// The database failed.
    fn discard<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        view: ViewGeneration,
        after: RowKey,
        limit: i64,
    ) -> BoxFuture<'a, Result<Option<RowKey>>>;

    /// An empty check of this view.
    fn check(&self, detail: Detail) -> Box<dyn Check>;
}

/// What a check says about a view that does not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// That it does not match. The check needs no memory for the rows.
    Total,
    /// Also an account whose rows do not match, and the position of its last event.
    ByAccount,
}

/// The key of a row of a view within its generation. The default precedes every row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowKey {
    /// The account.
    pub account_id: Uuid,
    /// The number of the row of this account: its version or its day; 0 in views with one row per account.
    pub number: i64,
}

/// Folds the log in memory, event by event, and compares the result with the rows of a view. Its memory grows with accounts and
/// not with events.
pub trait Check: Send + Sync {
    /// Folds one more event.
    fn fold(&mut self, decoded: &DecodedEvent);

    /// Compares the rows of `view` with the events folded so far and returns a difference, or `None`. With `only`, it compares
    /// the rows of these accounts alone; then only their events may have been folded.
    ///
    /// # Errors
    /// The database failed.
    fn compare<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        view: ViewGeneration,
        only: Option<&'a [Uuid]>,
    ) -> BoxFuture<'a, Result<Option<Mismatch>>>;
}

/// A difference between the rows of a view and the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Position of the last event that the row depends on; 0 if there is none.
    pub position: i64,
    /// The difference, as a sentence.
    pub message: String,
}

/// The rows of one generation of a view in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ViewGeneration {
    /// The partition of the log.
    pub partition: i16,
    /// The view's generation, from 1.
    pub generation: i16,
    /// The version of the shape of these rows.
    pub schema_version: i16,
}
