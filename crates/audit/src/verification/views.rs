//! Compares the rows of the views with a fold of the same events. Each generation is compared at the position of its checkpoint,
//! so views may lag behind the log.

use std::collections::{HashMap, VecDeque};

use sqlx::{PgConnection, query};

use super::{log_fold::LogFold, report::Error};
use passbook_read_model::{
    DecodedEvent,
    projection::{Check, Detail, ViewGeneration},
    views::checks,
};

/// The checks of the views of one partition.
pub(super) struct ViewChecks {
    /// The generations that are not compared yet, in the order of their checkpoints.
    pending: VecDeque<PendingView>,
    /// By the name of the view and the schema version of its rows.
    checks: HashMap<(&'static str, i16), Box<dyn Check>>,
}

struct PendingView {
    name: String,
    /// The position of the checkpoint.
    position: i64,
    view: ViewGeneration,
}

impl ViewChecks {
    /// Reads the checkpoints of all live and building generations.
    pub(super) async fn load(connection: &mut PgConnection, partition: i16) -> sqlx::Result<Self> {
        let pending = pending_views(connection, partition).await?.into();
        Ok(Self { pending, checks: checks(Detail::ByAccount).into_iter().collect() })
    }

    /// Folds one more event.
    pub(super) fn fold(&mut self, decoded: &DecodedEvent) {
        self.checks.values_mut().for_each(|check| check.fold(decoded));
    }

    /// Compares the generations whose checkpoint is at `position`, which is that of the last folded event.
    pub(super) async fn compare_at(
        &mut self,
        position: i64,
        connection: &mut PgConnection,
        fold: &LogFold,
    ) -> Result<(), Error> {
        while let Some(PendingView { name, view, .. }) = self.pending.pop_front_if(|next| next.position == position) {
            // This release cannot check the rows of another schema version.
            let Some(check) = self.checks.get(&(name.as_str(), view.schema_version)) else { continue };
            if let Some(mismatch) = check.compare(connection, view, None).await? {
                return Err(fold.finding(mismatch.position, mismatch.message).into());
            }
        }
        Ok(())
    }

    /// Fails if a checkpoint is beyond the log.
    pub(super) fn finish(&self, fold: &LogFold) -> Result<(), Error> {
        match self.pending.front() {
            None => Ok(()),
            Some(PendingView { name, position, .. }) => {
                let message = format!("the checkpoint of the view {name} is here, but the log ends before");
                Err(fold.finding(*position, message).into())
            }
        }
    }
}

async fn pending_views(connection: &mut PgConnection, partition: i16) -> sqlx::Result<Vec<PendingView>> {
    query!(
        "SELECT name, generation, schema_version, position
         FROM projection
         WHERE partition = $1 AND state IN ('building', 'live')
         ORDER BY position",
        partition
    )
    .map(|row| PendingView {
        name: row.name,
        position: row.position,
        view: ViewGeneration { partition, generation: row.generation, schema_version: row.schema_version },
    })
    .fetch_all(connection)
    .await
}
