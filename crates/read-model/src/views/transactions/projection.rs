//! Projects events into the view of transactions: writes one row per event, with the state of the account after it.

use std::num::NonZeroUsize;

use futures_util::{FutureExt, future::BoxFuture};
use sqlx::{PgConnection, Result, query, query_file, query_scalar};
use uuid::Uuid;

use super::{
    check::TransactionsCheck,
    row::{AccountState, Entry},
};
use crate::{
    decoded_event::DecodedEvent,
    projection::{Check, Projection, RowKey, ViewGeneration},
    views::account_cache::AccountCache,
};
use passbook_domain::Status;
use passbook_event_store::locked_read::rows_max;

/// How many states one statement reads while the checkpoints are locked.
const LOCKED_STATES_MAX: usize = rows_max(128);
/// Limit of accounts cached between batches.
const CACHED_ACCOUNTS_MAX: NonZeroUsize = NonZeroUsize::new(100_000).expect("is not zero");

/// The projection of the view of transactions.
pub(crate) struct Transactions {
    accounts: AccountCache<AccountState>,
}

impl Default for Transactions {
    fn default() -> Self {
        Self { accounts: AccountCache::new(CACHED_ACCOUNTS_MAX) }
    }
}

/// A row to be inserted.
struct Row<'a> {
    decoded: &'a DecodedEvent,
    entry: Entry<'a>,
    after: AccountState,
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
        view: ViewGeneration,
        events: &'a [DecodedEvent],
    ) -> BoxFuture<'a, Result<()>> {
        async move {
            let missing = self.accounts.missing(events, |_| true);
            if !missing.is_empty() {
                self.accounts.extend(read_states(connection, view, &missing).await?);
            }
            let mut rows = Vec::with_capacity(events.len());
            for decoded in events {
                let state = self.accounts.state_mut(decoded.recorded.stream_id);
                let entry = Entry::from_event(&decoded.event);
                *state = state.evolve(&decoded.event, &entry);
                // Shape 1 of the view has rows only for events that moved money.
                if entry.moves_money() || view.schema_version >= 2 {
                    rows.push(Row { decoded, entry, after: *state });
                }
            }
            insert(connection, view, &rows).await
        }
        .boxed()
    }

    fn clear_cache(&mut self) {
        self.accounts.clear();
    }

    fn check_sums<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        view: ViewGeneration,
        position: i64,
    ) -> BoxFuture<'a, Result<Option<String>>> {
        async move {
            let rows = query_scalar!(
                r#"SELECT count(*) AS "count!" FROM account_transaction WHERE partition = $1 AND generation = $2"#,
                view.partition,
                view.generation
            )
            .fetch_one(connection)
            .await?;
            Ok((rows != position).then(|| format!("it has {rows} rows, but the log has {position} events")))
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
            let last = query!(
                "SELECT account_id, version
                 FROM (
                     SELECT account_id, version FROM account_transaction
                     WHERE partition = $1 AND generation = $2 AND (account_id, version) >= ($3, $4)
                     ORDER BY account_id, version LIMIT $5
                 ) AS slice
                 ORDER BY account_id DESC, version DESC
                 LIMIT 1",
                view.partition,
                view.generation,
                after.account_id,
                after.number,
                limit
            );
            let Some(last) = last.fetch_optional(&mut *connection).await? else { return Ok(None) };
            query!(
                "DELETE FROM account_transaction
                 WHERE partition = $1 AND generation = $2
                   AND (account_id, version) >= ($3, $4) AND (account_id, version) <= ($5, $6)",
                view.partition,
                view.generation,
                after.account_id,
                after.number,
                last.account_id,
                last.version
            )
            .execute(connection)
            .await?;
            Ok(Some(RowKey { account_id: last.account_id, number: last.version }))
        }
        .boxed()
    }

    fn check(&self) -> Box<dyn Check> {
        Box::<TransactionsCheck>::default()
    }
}

/// Reads the state of accounts from their last rows.
async fn read_states(
    connection: &mut PgConnection,
    view: ViewGeneration,
    ids: &[Uuid],
) -> Result<Vec<(Uuid, AccountState)>> {
    let mut states = Vec::with_capacity(ids.len());
    for ids in ids.chunks(LOCKED_STATES_MAX) {
        let read = query_file!("src/views/transactions/last.sql", view.partition, view.generation, ids).map(|row| {
            let state = AccountState {
                balance: row.balance_after,
                transaction_count: row.transaction_count.unwrap_or_default(),
                status: row.status.as_deref().and_then(Status::from_name).unwrap_or(Status::Open).as_str(),
            };
            (row.account_id, state)
        });
        states.extend(read.fetch_all(&mut *connection).await?);
    }
    Ok(states)
}

/// Inserts rows in the order of their events.
async fn insert(connection: &mut PgConnection, view: ViewGeneration, rows: &[Row<'_>]) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let has_state = view.schema_version >= 2;
    query_file!(
        "src/views/transactions/insert.sql",
        view.partition,
        view.generation,
        &rows.iter().map(|row| row.decoded.recorded.stream_id).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.decoded.recorded.version).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.entry.kind).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| row.entry.balance_change.abs()).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.after.balance).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.entry.transfer_id).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| row.entry.counterparty).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| row.entry.reference).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| row.decoded.recorded.recorded_at).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.decoded.recorded.id).collect::<Vec<_>>(),
        &rows.iter().map(|row| has_state.then_some(row.after.status)).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| has_state.then_some(row.after.transaction_count)).collect::<Vec<_>>() as _,
    )
    .execute(connection)
    .await?;
    Ok(())
}
