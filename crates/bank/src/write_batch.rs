//! Writes a decided batch to the log: one call for a batch of one partition, one transaction for a batch of several.

use sqlx::{Connection, PgConnection};

use super::{
    appender::AppendPath,
    decide_batch::{Decided, HeadsByPartition, RecordedKeys},
    storage_error::{STATEMENT_TIMEOUT, StorageError},
};
use passbook_event_store::{
    log::{self, Key, Outcome},
    with_timeout,
};
use passbook_telemetry::metrics::phase;

/// The result of one write to the log.
pub(super) enum WriteOutcome {
    /// Everything is written; these are the new heads.
    Written(HeadsByPartition),
    /// Nothing was written: another instance has appended, or has raised the fence.
    HeadMoved,
    /// Nothing was written: these keys of the batch are recorded already.
    KeysRecorded(RecordedKeys),
}

/// A failed write.
pub(super) enum WriteError {
    /// COMMIT was not sent, so Postgres rolls the transaction back.
    BeforeCommit(StorageError),
    /// The write may have committed.
    Commit(StorageError),
}

/// Writes a decided batch to each of its partitions, on the optimistic path in a transaction if there are several.
pub(super) async fn write(
    path: &mut AppendPath<'_>,
    heads: &HeadsByPartition,
    decided: &Decided,
) -> Result<WriteOutcome, WriteError> {
    let _timer = phase("write");
    let spans = heads.len() > 1;
    match path {
        AppendPath::Locked(transaction, ..) => {
            if spans {
                // The locks keep other instances from recording these keys meanwhile.
                let recorded = check_keys(transaction, heads, decided).await.map_err(WriteError::BeforeCommit)?;
                if !recorded.is_empty() {
                    return Ok(WriteOutcome::KeysRecorded(recorded));
                }
            }
            write_rows(transaction, heads, decided, !spans).await.map_err(WriteError::BeforeCommit)
        }
        AppendPath::Optimistic(connection, _) if spans => {
            let begin = with_timeout(STATEMENT_TIMEOUT, connection.begin()).await;
            let mut transaction = begin.map_err(|error| WriteError::BeforeCommit(error.into()))?;
            let outcome = write_rows(&mut transaction, heads, decided, true).await.map_err(WriteError::BeforeCommit)?;
            match outcome {
                WriteOutcome::Written(_) => {
                    let committed = with_timeout(STATEMENT_TIMEOUT, transaction.commit()).await;
                    committed.map_err(|error| WriteError::Commit(error.into()))?;
                }
                WriteOutcome::HeadMoved | WriteOutcome::KeysRecorded(_) => {
                    let rolled_back = with_timeout(STATEMENT_TIMEOUT, transaction.rollback()).await;
                    rolled_back.map_err(|error| WriteError::BeforeCommit(error.into()))?;
                }
            }
            Ok(outcome)
        }
        AppendPath::Optimistic(connection, _) => {
            write_rows(connection, heads, decided, true).await.map_err(WriteError::Commit)
        }
    }
}

/// The keys of a batch that are recorded already. Over several locked partitions all keys are checked before the first append, so that
/// no append has to be undone.
async fn check_keys(
    connection: &mut PgConnection,
    heads: &HeadsByPartition,
    decided: &Decided,
) -> Result<RecordedKeys, StorageError> {
    for (partition, append) in decided.appends.iter().filter(|(_, append)| !append.keys_to_check.is_empty()) {
        let (head, decided_at) = (&heads[partition], append.recorded_at);
        let checking = log::check_head_and_keys(connection, *partition, head, decided_at, &append.keys_to_check);
        match with_timeout(STATEMENT_TIMEOUT, checking).await? {
            Outcome::Done(_) => {}
            Outcome::HeadMoved => return Err(StorageError::head_moved_under_lock()),
            Outcome::KeysRecorded(keys) => return Ok(with_partition(*partition, keys)),
        }
    }
    Ok(RecordedKeys::new())
}

/// Appends the rows of each partition. Where there are neither events nor keys, it checks the head instead if `checks_heads`.
async fn write_rows(
    connection: &mut PgConnection,
    heads: &HeadsByPartition,
    decided: &Decided,
    checks_heads: bool,
) -> Result<WriteOutcome, StorageError> {
    debug_assert!(
        decided.appends.keys().eq(heads.keys()),
        "a batch is written to the partitions that it was decided on"
    );
    let mut next = heads.clone();
    for (partition, append) in &decided.appends {
        let head = &heads[partition];
        // A key without events is that of a refusal.
        let has_rows = !append.events.is_empty() || !append.keys.is_empty();
        let outcome = match has_rows {
            true => with_timeout(STATEMENT_TIMEOUT, log::append(connection, *partition, head, append)).await?,
            false if checks_heads => {
                let checking =
                    log::check_head_and_keys(connection, *partition, head, append.recorded_at, &append.keys_to_check);
                with_timeout(STATEMENT_TIMEOUT, checking).await?
            }
            false => continue,
        };
        match outcome {
            Outcome::Done(head) => drop(next.insert(*partition, head)),
            Outcome::HeadMoved => return Ok(WriteOutcome::HeadMoved),
            Outcome::KeysRecorded(keys) => return Ok(WriteOutcome::KeysRecorded(with_partition(*partition, keys))),
        }
    }
    Ok(WriteOutcome::Written(next))
}

pub(super) fn with_partition(partition: i16, keys: Vec<Key>) -> RecordedKeys {
    keys.into_iter().map(|key| ((partition, key.id.clone()), key)).collect()
}
