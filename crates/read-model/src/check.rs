//! Whether a generation that was built is what the log makes of it: its sums always, and the rows of a sample of accounts,
//! or all of them.

use std::collections::BTreeSet;

use sqlx::{PgConnection, Result, query_scalar};
use uuid::Uuid;

use super::{
    followers,
    generation::{self, Checkpoint},
    projection::{Applicable, Check, Projection},
};
use passbook_event_store::feed;

/// How many accounts a sample holds, and how many of an account's events are folded for it at the most.
const SAMPLE_ACCOUNTS: i32 = 100;
const SAMPLE_EVENTS_MAX: i64 = 10_000;

/// What is wrong with the generation `built`, as the transaction of `connection` sees it.
pub(super) async fn compare(
    connection: &mut PgConnection,
    built: &Checkpoint,
    projection: &dyn Projection,
) -> Result<Option<String>> {
    let Checkpoint { position, .. } = generation::read(connection, &built.name, built.place).await?;
    if let Some(sentence) = projection.check_sums(connection, built.place, position).await? {
        return Ok(Some(sentence));
    }
    let mut check = projection.check();
    let only = match built.check_all {
        true => {
            fold_all(connection, built, position, check.as_mut()).await?;
            None
        }
        false => Some(fold_sample(connection, built, position, check.as_mut()).await?),
    };
    let flaw = check.compare(connection, built.place, only.as_deref()).await?;
    Ok(flaw.map(|flaw| flaw.sentence))
}

async fn fold_all(connection: &mut PgConnection, built: &Checkpoint, to: i64, check: &mut dyn Check) -> Result<()> {
    let mut position = 0;
    while position < to {
        let events = followers::read(connection, built.place.partition, position).await?;
        if events.is_empty() {
            // The log ends before the view does: the comparison finds what is too much.
            break;
        }
        for applicable in events.iter().take_while(|applicable| applicable.recorded.position <= to) {
            check.apply(applicable);
        }
        position += events.len() as i64;
    }
    Ok(())
}

/// Folds the histories of some accounts, and says which.
async fn fold_sample(
    connection: &mut PgConnection,
    built: &Checkpoint,
    to: i64,
    check: &mut dyn Check,
) -> Result<Vec<Uuid>> {
    let partition = built.place.partition;
    let mut sampled = Vec::new();
    for account_id in some_accounts(connection, partition, to).await? {
        let events = feed::of_stream(connection, partition, account_id, to, SAMPLE_EVENTS_MAX + 1).await?;
        if events.len() as i64 > SAMPLE_EVENTS_MAX {
            continue;
        }
        for recorded in events {
            check.apply(&Applicable::try_from(recorded)?);
        }
        sampled.push(account_id);
    }
    Ok(sampled)
}

/// The accounts of events at random positions up to `to`.
async fn some_accounts(connection: &mut PgConnection, partition: i16, to: i64) -> Result<BTreeSet<Uuid>> {
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
