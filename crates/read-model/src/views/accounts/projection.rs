//! Projects events into the view of accounts: folds events into rows and writes each changed row once per batch.

use std::num::NonZeroUsize;

use futures_util::{FutureExt, future::BoxFuture};
use sqlx::{PgConnection, Result, query, query_file, query_file_as, query_scalar};
use uuid::Uuid;

use super::{check::AccountsCheck, view::AccountView};
use crate::{
    decoded_event::{DecodedEvent, cannot_apply},
    projection::{Check, Projection, RowKey, ViewGeneration},
    views::account_cache::AccountCache,
};
use passbook_event_store::locked_read::rows_max;

/// How many rows one statement reads while the checkpoints are locked. Only an owner of the longest name makes a row longer.
const LOCKED_ROWS_MAX: usize = rows_max(512);
/// Limit of rows cached between batches.
const CACHED_ROWS_MAX: NonZeroUsize = NonZeroUsize::new(50_000).expect("is not zero");

/// The projection of the view of accounts.
pub(crate) struct Accounts {
    /// The row of each account; `None` before its opening.
    rows: AccountCache<Option<AccountView>>,
}

impl Default for Accounts {
    fn default() -> Self {
        Self { rows: AccountCache::new(CACHED_ROWS_MAX) }
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
        view: ViewGeneration,
        events: &'a [DecodedEvent],
    ) -> BoxFuture<'a, Result<()>> {
        async move {
            let missing = self.rows.missing(events, |_| true);
            if !missing.is_empty() {
                let rows = read_rows(connection, view, &missing).await?;
                self.rows.extend(rows.into_iter().map(|row| (row.account_id, Some(row))));
            }
            for decoded in events {
                let row = self.rows.state_mut(decoded.recorded.stream_id);
                *row = AccountView::evolve(row.take(), decoded);
                if row.is_none() {
                    let position = decoded.recorded.position;
                    return Err(cannot_apply(format!("the event at position {position} has no opening before it")));
                }
            }
            let mut changed: Vec<Uuid> = events.iter().map(|decoded| decoded.recorded.stream_id).collect();
            changed.sort_unstable();
            changed.dedup();
            let rows: Vec<&AccountView> =
                changed.iter().filter_map(|account_id| self.rows.peek(account_id)?.as_ref()).collect();
            upsert(connection, view, &rows).await
        }
        .boxed()
    }

    fn clear_cache(&mut self) {
        self.rows.clear();
    }

    fn check_sums<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        view: ViewGeneration,
        position: i64,
    ) -> BoxFuture<'a, Result<Option<String>>> {
        async move {
            // Each event increases the version of one account by one.
            let versions = query_scalar!(
                r#"SELECT coalesce(sum(version), 0)::bigint AS "sum!"
                   FROM account_view
                   WHERE partition = $1 AND generation = $2"#,
                view.partition,
                view.generation
            )
            .fetch_one(connection)
            .await?;
            Ok((versions != position)
                .then(|| format!("its account versions add up to {versions}, but the log has {position} events")))
        }
        .boxed()
    }

    fn discard<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        view: ViewGeneration,
        after: RowKey,
        limit: i64,
    ) -> BoxFuture<'a, Result<Option<RowKey>>> {
        async move {
            let last = query_scalar!(
                "SELECT account_id
                 FROM (
                     SELECT account_id FROM account_view WHERE partition = $1 AND generation = $2 AND account_id >= $3
                     ORDER BY account_id LIMIT $4
                 ) AS slice
                 ORDER BY account_id DESC
                 LIMIT 1",
                view.partition,
                view.generation,
                after.account_id,
                limit
            );
            let Some(last) = last.fetch_optional(&mut *connection).await? else { return Ok(None) };
            query!(
                "DELETE FROM account_view
                 WHERE partition = $1 AND generation = $2 AND account_id >= $3 AND account_id <= $4",
                view.partition,
                view.generation,
                after.account_id,
                last
            )
            .execute(connection)
            .await?;
            Ok(Some(RowKey { account_id: last, number: 0 }))
        }
        .boxed()
    }

    fn check(&self) -> Box<dyn Check> {
        Box::<AccountsCheck>::default()
    }
}

async fn read_rows(connection: &mut PgConnection, view: ViewGeneration, ids: &[Uuid]) -> Result<Vec<AccountView>> {
    let mut rows = Vec::with_capacity(ids.len());
    for ids in ids.chunks(LOCKED_ROWS_MAX) {
        let read = query_file_as!(AccountView, "src/views/accounts/by_id.sql", view.partition, view.generation, ids);
        rows.extend(read.fetch_all(&mut *connection).await?);
    }
    Ok(rows)
}

/// Writes rows, which are sorted by id, so that two writers take the row locks in the same order.
async fn upsert(connection: &mut PgConnection, view: ViewGeneration, rows: &[&AccountView]) -> Result<()> {
    query_file!(
        "src/views/accounts/upsert.sql",
        view.partition,
        view.generation,
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
