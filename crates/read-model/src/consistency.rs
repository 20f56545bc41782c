//! Compares a new generation of a view with the log before it goes live. It always compares the sums, and then either all rows or
//! those of a sample of accounts.

use std::collections::BTreeSet;

use sqlx::{PgConnection, Result, query_scalar};
use uuid::Uuid;

use crate::{
    decoded_event::{BATCH_EVENTS_MAX, DecodedBatch, DecodedEvent, is_of_account, read_batch},
    generation::{self, Checkpoint},
    projection::{Check, Detail, Projection},
};
use passbook_domain::EventType;
use passbook_event_store::reader;

/// Number of events drawn for the sample, which is the limit of its accounts.
const SAMPLE_ACCOUNTS: i32 = 100;
/// Accounts with more events than this are left out of the sample.
const SAMPLE_EVENTS_MAX: i64 = 10_000;

/// Compares the generation `built` with the log, both in the snapshot of `connection`. Returns what is wrong, or `None`.
pub(crate) async fn compare(
    connection: &mut PgConnection,
    built: &Checkpoint,
    projection: &dyn Projection,
) -> Result<Option<String>> {
    let Checkpoint { position, .. } = generation::read_checkpoint(connection, &built.name, built.view).await?;
    let others: Vec<&str> = EventType::of_other_aggregates().map(EventType::name).collect();
    let others = reader::count_of_rare_types(connection, built.view.partition, &others, position).await?;
    if let Some(message) = projection.check_sums(connection, built.view, position - others).await? {
        return Ok(Some(message));
    }
    let mut check = projection.check(Detail::ByAccount);
    let only = match built.check_all {
        true => {
            fold_all(connection, built, position, check.as_mut()).await?;
            None
        }
        false => Some(fold_sample(connection, built, position, check.as_mut()).await?),
    };
    let mismatch = check.compare(connection, built.view, only.as_deref()).await?;
    Ok(mismatch.map(|mismatch| mismatch.message))
}

/// Folds all events up to `to`.
async fn fold_all(connection: &mut PgConnection, built: &Checkpoint, to: i64, check: &mut dyn Check) -> Result<()> {
    let mut position = 0;
    while position < to {
        let DecodedBatch { events, count } =
            read_batch(connection, built.view.partition, position, BATCH_EVENTS_MAX).await?;
        if count == 0 {
            // The log ends before the checkpoint: the comparison finds the surplus rows.
            break;
        }
        for decoded in events.iter().take_while(|decoded| decoded.recorded.position <= to) {
            check.fold(decoded);
        }
        position += count;
    }
    Ok(())
}

/// Folds the events up to `to` of a sample of accounts, and returns these accounts.
async fn fold_sample(
    connection: &mut PgConnection,
    built: &Checkpoint,
    to: i64,
    check: &mut dyn Check,
) -> Result<Vec<Uuid>> {
    let partition = built.view.partition;
    let mut sampled = Vec::new();
    for account_id in draw_accounts(connection, partition, to).await? {
        let events = reader::stream_events_up_to(connection, partition, account_id, to, SAMPLE_EVENTS_MAX + 1).await?;
        if events.len() as i64 > SAMPLE_EVENTS_MAX {
            continue;
        }
        for recorded in events.into_iter().filter(is_of_account) {
            check.fold(&DecodedEvent::try_from(recorded)?);
        }
        sampled.push(account_id);
    }
    Ok(sampled)
}

/// The accounts of events at random positions up to `to`.
async fn draw_accounts(connection: &mut PgConnection, partition: i16, to: i64) -> Result<BTreeSet<Uuid>> {
    let ids = query_scalar!(
        r#"SELECT event.stream_id
           FROM (SELECT 1 + floor(random() * $2)::bigint AS position FROM generate_series(1, $3)) AS drawn
           CROSS JOIN LATERAL (
               SELECT stream_id FROM event WHERE partition = $1 AND position = drawn.position LIMIT 1
           ) AS event"#,
        partition,
        to as f64,
        SAMPLE_ACCOUNTS
    );
    Ok(ids.fetch_all(connection).await?.into_iter().collect())
}
