//! Names the accounts whose holds are over, from the view of holds, to the task that records expiries.

use futures_util::future::BoxFuture;
use uuid::Uuid;

use passbook_bank::DueHolds;
use passbook_read_model::ReadModel;

/// The view of holds.
pub(super) struct HoldsView(pub(super) ReadModel);

impl DueHolds for HoldsView {
    fn due_accounts(&self, partition: i16, holds_max: usize) -> BoxFuture<'_, Result<Vec<Uuid>, String>> {
        let holds_max = i64::try_from(holds_max).unwrap_or(i64::MAX);
        Box::pin(async move { self.0.due_holds(partition, holds_max).await.map_err(|error| error.to_string()) })
    }
}
