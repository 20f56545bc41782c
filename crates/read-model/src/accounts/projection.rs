//! Keeps the view of accounts: folds events into rows, and writes each changed row once a batch.

use std::{collections::BTreeMap, num::NonZeroUsize};

use futures_util::{FutureExt, future::BoxFuture};
use lru::LruCache;
use sqlx::{PgConnection, Result, query, query_file, query_file_as, query_scalar};
use uuid::Uuid;

use super::{
    super::projection::{Applicable, Check, Place, Projection, cannot_apply},
    AccountView,
    check::AccountsCheck,
};

/// How many rows the projector holds between batches.
const HELD_ROWS_MAX: NonZeroUsize = NonZeroUsize::new(50_000).expect("is not zero");

/// Keeps the view.
pub(crate) struct Accounts {
    held: LruCache<Uuid, AccountView>,
}

impl Default for Accounts {
    fn default() -> Self {
        Self { held: LruCache::new(HELD_ROWS_MAX) }
    }
}

impl Projection for Accounts {
    fn name(&self) -> &'static str {
        "accounts"
    }

    fn schema_version(&self) -> i16 {
        1
    }

    fn apply<'a>(
        &'a mut self,
        connection: &'a mut PgConnection,
        place: Place,
        events: &'a [Applicable],
    ) -> BoxFuture<'a, Result<()>> {
        async move {
            let mut rows = self.rows_of(connection, place, events).await?;
            for applicable in events {
                let row = rows.entry(applicable.recorded.stream_id).or_default();
                *row = AccountView::evolve(row.take(), applicable);
                if row.as_ref().is_none_or(|row| row.version != applicable.recorded.version) {
                    return Err(cannot_apply(format!("position {} has no opening", applicable.recorded.position)));
                }
            }
            let rows: Vec<AccountView> = rows.into_values().flatten().collect();
            upsert(connection, place, &rows).await?;
            for row in rows {
                self.held.put(row.account_id, row);
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
            // Each event counts one version of one account.
            let versions = query_scalar!(
                r#"SELECT coalesce(sum(version), 0)::bigint AS "sum!"
                   FROM account_view
                   WHERE partition = $1 AND generation = $2"#,
                place.partition,
                place.generation
            )
            .fetch_one(connection)
            .await?;
            Ok((versions != position).then(|| format!("its accounts count {versions} events of {position}")))
        }
        .boxed()
    }

    fn discard<'a>(&'a self, connection: &'a mut PgConnection, place: Place, limit: i64) -> BoxFuture<'a, Result<u64>> {
        async move {
            let deleted = query!(
                "DELETE FROM account_view
                 WHERE partition = $1 AND generation = $2 AND account_id IN (
                     SELECT account_id FROM account_view WHERE partition = $1 AND generation = $2
                     ORDER BY account_id LIMIT $3
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
        Box::<AccountsCheck>::default()
    }
}

impl Accounts {
    /// The rows that `events` change, by id: those held, and the others in one statement.
    async fn rows_of(
        &mut self,
        connection: &mut PgConnection,
        place: Place,
        events: &[Applicable],
    ) -> Result<BTreeMap<Uuid, Option<AccountView>>> {
        let mut rows = BTreeMap::new();
        let mut missing = Vec::new();
        for applicable in events {
            let account_id = applicable.recorded.stream_id;
            rows.entry(account_id).or_insert_with(|| {
                let held = self.held.get(&account_id).cloned();
                if held.is_none() && applicable.recorded.version > 1 {
                    missing.push(account_id);
                }
                held
            });
        }
        if !missing.is_empty() {
            let read =
                query_file_as!(AccountView, "src/accounts/by_id.sql", place.partition, place.generation, &missing)
                    .fetch_all(connection)
                    .await?;
            rows.extend(read.into_iter().map(|row| (row.account_id, Some(row))));
        }
        Ok(rows)
    }
}

/// Writes rows in the order of their ids, so that two writers take the row locks in the same order.
async fn upsert(connection: &mut PgConnection, place: Place, rows: &[AccountView]) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    query_file!(
        "src/accounts/upsert.sql",
        place.partition,
        place.generation,
        &rows.iter().map(|row| row.account_id).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.owner.as_str()).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| row.currency.as_str()).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| row.status.as_str()).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| row.balance).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.version).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.transaction_count).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.opened_at).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.last_activity_at).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.closed_at).collect::<Vec<_>>() as _,
    )
    .execute(connection)
    .await?;
    Ok(())
}
