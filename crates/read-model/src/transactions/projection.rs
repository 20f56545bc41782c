//! Keeps the view of movements: one row for each event of an account, with what the account was after it.

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroUsize,
};

use futures_util::{FutureExt, future::BoxFuture};
use lru::LruCache;
use sqlx::{PgConnection, Result, query, query_file, query_scalar};
use uuid::Uuid;

use super::{
    super::projection::{Applicable, Check, Place, Projection},
    check::TransactionsCheck,
    entry::{Entry, Standing},
};
use passbook_domain::Status;

/// How many accounts the projector holds between batches.
const HELD_ACCOUNTS_MAX: NonZeroUsize = NonZeroUsize::new(100_000).expect("is not zero");

/// Keeps the view.
pub(crate) struct Transactions {
    held: LruCache<Uuid, Standing>,
}

impl Default for Transactions {
    fn default() -> Self {
        Self { held: LruCache::new(HELD_ACCOUNTS_MAX) }
    }
}

/// A row on its way into the view.
struct Row<'a> {
    applicable: &'a Applicable,
    entry: Entry<'a>,
    after: Standing,
}

impl Projection for Transactions {
    fn name(&self) -> &'static str {
        "transactions"
    }

    fn schema_version(&self) -> i16 {
        2
    }

    fn apply<'a>(
        &'a mut self,
        connection: &'a mut PgConnection,
        place: Place,
        events: &'a [Applicable],
    ) -> BoxFuture<'a, Result<()>> {
        async move {
            let mut standings = self.standings_of(connection, place, events).await?;
            let mut rows = Vec::with_capacity(events.len());
            for applicable in events {
                let standing = standings.entry(applicable.recorded.stream_id).or_default();
                let entry = Entry::of(&applicable.event);
                let after = standing.after(&applicable.event, &entry);
                *standing = after;
                // Version 1 of the view has rows for movements only.
                if entry.moves_money() || place.schema_version >= 2 {
                    rows.push(Row { applicable, entry, after });
                }
            }
            insert(connection, place, &rows).await?;
            for (account_id, standing) in standings {
                self.held.put(account_id, standing);
            }
            Ok(())
        }
        .boxed()
    }

    fn forget(&mut self) {
        self.held.clear();
    }

    fn check_sums<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        place: Place,
        position: i64,
    ) -> BoxFuture<'a, Result<Option<String>>> {
        async move {
            let rows = query_scalar!(
                r#"SELECT count(*) AS "count!" FROM account_transaction WHERE partition = $1 AND generation = $2"#,
                place.partition,
                place.generation
            )
            .fetch_one(connection)
            .await?;
            Ok((rows != position).then(|| format!("it has {rows} rows for {position} events")))
        }
        .boxed()
    }

    fn discard<'a>(&'a self, connection: &'a mut PgConnection, place: Place, limit: i64) -> BoxFuture<'a, Result<u64>> {
        async move {
            let deleted = query!(
                "DELETE FROM account_transaction
                 WHERE partition = $1 AND generation = $2 AND (account_id, version) IN (
                     SELECT account_id, version FROM account_transaction WHERE partition = $1 AND generation = $2
                     ORDER BY account_id, version LIMIT $3
                 )",
                place.partition,
                place.generation,
                limit
            );
            Ok(deleted.execute(connection).await?.rows_affected())
        }
        .boxed()
    }

    fn check(&self) -> Box<dyn Check> {
        Box::<TransactionsCheck>::default()
    }
}

impl Transactions {
    /// What the accounts of `events` were before: those held, and the others in one statement.
    async fn standings_of(
        &mut self,
        connection: &mut PgConnection,
        place: Place,
        events: &[Applicable],
    ) -> Result<HashMap<Uuid, Standing>> {
        let mut standings = HashMap::new();
        let mut missing = HashSet::new();
        for Applicable { recorded, .. } in events {
            match self.held.get(&recorded.stream_id) {
                Some(standing) => drop(standings.insert(recorded.stream_id, *standing)),
                // An account that is opened here was nothing before.
                None if recorded.version == 1 => drop(standings.insert(recorded.stream_id, Standing::default())),
                None if standings.contains_key(&recorded.stream_id) => {}
                None => drop(missing.insert(recorded.stream_id)),
            }
        }
        if !missing.is_empty() {
            let missing: Vec<Uuid> = missing.into_iter().collect();
            let read = query_file!("src/transactions/last.sql", place.partition, place.generation, &missing);
            standings.extend(read.fetch_all(connection).await?.into_iter().map(|row| {
                let standing = Standing {
                    balance: row.balance_after,
                    transaction_count: row.transaction_count.unwrap_or_default(),
                    status: row.status.as_deref().and_then(Status::from_name).unwrap_or(Status::Open).as_str(),
                };
                (row.account_id, standing)
            }));
        }
        Ok(standings)
    }
}

async fn insert(connection: &mut PgConnection, place: Place, rows: &[Row<'_>]) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let full = place.schema_version >= 2;
    query_file!(
        "src/transactions/insert.sql",
        place.partition,
        place.generation,
        &rows.iter().map(|row| row.applicable.recorded.stream_id).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.applicable.recorded.version).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.entry.kind).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| row.entry.gain.abs()).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.after.balance).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.entry.transfer_id).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| row.entry.counterparty).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| row.entry.reference).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| row.applicable.recorded.recorded_at).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.applicable.recorded.id).collect::<Vec<_>>(),
        &rows.iter().map(|row| full.then_some(row.after.status)).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| full.then_some(row.after.transaction_count)).collect::<Vec<_>>() as _,
    )
    .execute(connection)
    .await?;
    Ok(())
}
