//! Moves generations that are being built by one batch. Each view has a task, a connection and a transaction of its own: the views do
//! not depend on each other, and one server process writes no more than some 20 000 rows/s.
//!
//! The tasks run on threads for blocking work. To fold and encode a large batch takes some 100 ms without a pause, which the threads
//! that serve requests must not spend.

use std::{
    slice,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use sqlx::{Connection, PgConnection, Result, raw_sql};
use tokio::{runtime::Handle, sync::Semaphore, task::spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::{
    generation::{self, Checkpoint},
    projections::{EventBatch, ProjectionState, Projections, write},
};
use passbook_event_store::PrimaryConnector;
use passbook_telemetry::supervision;

/// How many views are moved at the same time. More would take the processors from commands.
const BUILDERS_MAX: usize = 2;
/// When the server ends the transaction of a process that is frozen. It waits for its turn in the transaction, and its lock keeps
/// nothing but other builders of the same generation from working.
const IDLE_IN_TRANSACTION: &str = "SET LOCAL idle_in_transaction_session_timeout = '1min'";

/// The connections of the tasks. Clones share them.
#[derive(Clone)]
pub(crate) struct ViewBuilders {
    primary: PrimaryConnector,
    idle: Arc<Mutex<Vec<PgConnection>>>,
    turns: Arc<Semaphore>,
}

/// One view to be moved by a batch.
struct Job {
    builders: ViewBuilders,
    state: ProjectionState,
    checkpoint: Checkpoint,
    batch: Arc<EventBatch>,
}

impl ViewBuilders {
    pub(crate) fn new(primary: &PrimaryConnector) -> Self {
        Self { primary: primary.clone(), idle: Arc::default(), turns: Arc::new(Semaphore::new(BUILDERS_MAX)) }
    }

    /// Closes the connections, because nothing is being built or the primary may have changed.
    pub(crate) fn reset(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Moves views that are at the position of a batch. Returns whether one has moved. A view that cannot apply the batch stays where it
    /// is, with the reason in its checkpoint. If the future is dropped, the transactions are rolled back.
    pub(crate) async fn advance(
        &self,
        projections: &mut Projections,
        mut checkpoints: Vec<Checkpoint>,
        batch: EventBatch,
    ) -> Result<bool> {
        // The largest view, that of transactions, takes the first turn.
        checkpoints.sort_unstable_by(|a, b| b.name.cmp(&a.name));
        let stop = CancellationToken::new();
        let _stop_when_dropped = stop.clone().drop_guard();
        let batch = Arc::new(batch);
        let mut running = FuturesUnordered::new();
        for checkpoint in checkpoints {
            let Some(state) = projections.take(&checkpoint.name) else { continue };
            let job = Job { builders: self.clone(), state, checkpoint, batch: Arc::clone(&batch) };
            running.push(job.spawn(stop.clone()));
        }
        let (mut moved, mut failure) = (false, None);
        while let Some(ended) = running.next().await {
            let Some((state, result)) = ended else { continue };
            match result {
                Ok(has_moved) => {
                    projections.put_back(state);
                    moved |= has_moved;
                }
                // The cache may be ahead of the rows.
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(moved), Err)
    }

    async fn connection(&self) -> Result<PgConnection> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(connection) => Ok(connection),
            None => self.primary.connect().await,
        }
    }

    fn keep(&self, connection: PgConnection) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }
}

impl Job {
    /// Runs the job in a thread until `stop` is cancelled. Returns the state with the result, or `None` if there is none.
    async fn spawn(self, stop: CancellationToken) -> Option<(ProjectionState, Result<bool>)> {
        let runtime = Handle::current();
        let run = move || runtime.block_on(stop.run_until_cancelled_owned(self.run()));
        match spawn_blocking(run).await {
            Ok(ended) => ended,
            Err(error) => {
                if let Ok(panic) = error.try_into_panic() {
                    supervision::report("view builder", &*panic);
                }
                None
            }
        }
    }

    async fn run(mut self) -> (ProjectionState, Result<bool>) {
        let result = self.advance().await;
        (self.state, result)
    }

    /// Writes the rows that follow from the batch, and moves the checkpoint.
    async fn advance(&mut self) -> Result<bool> {
        let mut connection = self.builders.connection().await?;
        let mut transaction = connection.begin().await?;
        raw_sql(IDLE_IN_TRANSACTION).execute(&mut *transaction).await?;
        let Some(claimed) = generation::claim_building(&mut transaction, &self.checkpoint).await? else {
            // Another instance builds.
            transaction.rollback().await?;
            self.builders.keep(connection);
            return Ok(false);
        };
        // The checkpoint is locked before the view waits for its turn, so that no other instance reads the same events in vain.
        let turn = Arc::clone(&self.builders.turns).acquire_owned().await;
        let mut reads = transaction.begin().await?;
        match self.state.preload(&mut reads, claimed.view, &self.batch).await? {
            true => reads.commit().await?,
            false => reads.rollback().await?,
        }
        let states = slice::from_mut(&mut self.state);
        let (moved, _) = write(states, &mut transaction, &[&claimed], &self.batch.read).await?;
        transaction.commit().await?;
        drop(turn);
        self.builders.keep(connection);
        Ok(moved)
    }
}
