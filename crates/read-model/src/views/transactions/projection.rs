//! Projects events into the view of transactions: writes one row per event, with the state of the account after it.

use std::collections::{BTreeMap, HashMap};

use futures_util::{FutureExt, future::BoxFuture};
use sqlx::{PgConnection, Result, query, query_file, query_scalar, types::Json};
use uuid::Uuid;

use super::{
    check::TransactionsCheck,
    row::{AccountState, Entry, RowState},
};
use crate::{
    decoded_event::DecodedEvent,
    projection::{Check, Detail, Projection, RowKey, ViewGeneration},
    views::{
        RowWrites,
        account_cache::{AccountCache, CachedAccounts, PRELOADED_ACCOUNTS_MAX, Purpose},
        columns::{WRITTEN_ROWS_MAX, json_unless_default, sparse},
    },
};
use passbook_domain::{Channel, Event, Holds, Status};
use passbook_event_store::{
    StreamVersion,
    locked_read::{rows_max, slices_by_bytes},
};

/// How many states without holds one statement reads while the checkpoints are locked.
const LOCKED_STATES_MAX: usize = rows_max(128);
/// Limit of accounts cached between batches; some 90 bytes each.
const CACHED_ACCOUNTS_MAX: CachedAccounts = CachedAccounts::new(100_000, 500_000);

/// Rows are inserted before the end of a batch once their holds have this many bytes: an event of a hold can have 30 KB of them.
const INSERT_HOLDS_BYTES_MAX: usize = 16 << 20;

/// The version of the shape since which there is a row for each event.
const HISTORY_VERSION: i16 = 2;
/// The version of the shape since which rows have the channel, the overdraft and the holds. An older release can write into a live
/// generation of an older shape. It has no channel, and its rows do not repeat the overdraft and the version of the holds.
const SCHEMA_VERSION: i16 = 3;

/// The projection of the view of transactions.
pub(crate) struct Transactions {
    accounts: AccountCache<AccountState>,
    writes: RowWrites,
}

impl Transactions {
    pub(in crate::views) fn new(purpose: Purpose, writes: RowWrites) -> Self {
        Self { accounts: AccountCache::new(CACHED_ACCOUNTS_MAX.of(purpose)), writes }
    }

    /// Caches the states of the accounts of a batch. Each statement reads up to `states_max` states.
    async fn load(
        &mut self,
        connection: &mut PgConnection,
        view: ViewGeneration,
        events: &[DecodedEvent],
        states_max: usize,
    ) -> Result<()> {
        let missing = self.accounts.missing(events, |_| true);
        for ids in missing.chunks(states_max) {
            self.accounts.extend(read_states(connection, view, ids).await?);
        }
        Ok(())
    }
}

/// A row to be inserted.
struct Row<'a> {
    decoded: &'a DecodedEvent,
    entry: Entry<'a>,
    after: RowState,
    /// The holds after the event, if it changes them.
    holds: Option<String>,
}

impl Projection for Transactions {
    fn name(&self) -> &'static str {
        "transactions"
    }

    fn schema_version(&self) -> i16 {
        SCHEMA_VERSION
    }

    fn preload<'a>(
        &'a mut self,
        connection: &'a mut PgConnection,
        view: ViewGeneration,
        events: &'a [DecodedEvent],
    ) -> BoxFuture<'a, Result<()>> {
        self.load(connection, view, events, PRELOADED_ACCOUNTS_MAX).boxed()
    }

    fn apply<'a>(
        &'a mut self,
        connection: &'a mut PgConnection,
        view: ViewGeneration,
        events: &'a [DecodedEvent],
    ) -> BoxFuture<'a, Result<()>> {
        async move {
            self.load(connection, view, events, LOCKED_STATES_MAX).await?;
            let (mut rows, mut holds_bytes) = (Vec::with_capacity(events.len()), 0);
            for decoded in events {
                let state = self.accounts.state_mut(decoded.recorded.stream_id);
                let entry = Entry::from_event(&decoded.event);
                let holds = state.evolve(decoded, &entry);
                // An older shape has rows only for events that moved money.
                if entry.moves_money() || view.schema_version >= HISTORY_VERSION {
                    holds_bytes += holds.as_ref().map_or(0, String::len);
                    rows.push(Row { decoded, entry, after: state.row, holds });
                }
                if holds_bytes >= INSERT_HOLDS_BYTES_MAX {
                    insert(connection, view, &mut rows).await?;
                    rows.clear();
                    holds_bytes = 0;
                }
            }
            insert(connection, view, &mut rows).await?;
            add_reversed(connection, self.writes, view, events).await
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
        events: i64,
    ) -> BoxFuture<'a, Result<Option<String>>> {
        async move {
            let rows = query_scalar!(
                r#"SELECT count(*) AS "count!" FROM account_transaction WHERE partition = $1 AND generation = $2"#,
                view.partition,
                view.generation
            )
            .fetch_one(&mut *connection)
            .await?;
            if rows != events {
                return Ok(Some(format!("it has {rows} rows, but the log has {events} events")));
            }
            let over = query_file!("src/views/transactions/over_reversed.sql", view.partition, view.generation);
            let over = over.fetch_optional(connection).await?;
            Ok(over.map(|row| {
                format!("more was reversed of version {} of account {} than its amount", row.version, row.account_id)
            }))
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
            .execute(&mut *connection)
            .await?;
            // Each of these rows belongs to a row of the same key.
            query!(
                "DELETE FROM reversed_movement
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

    fn check(&self, detail: Detail) -> Box<dyn Check> {
        Box::new(TransactionsCheck::new(detail))
    }
}

/// Reads the state of accounts from their last rows.
async fn read_states(
    connection: &mut PgConnection,
    view: ViewGeneration,
    ids: &[Uuid],
) -> Result<HashMap<Uuid, AccountState>> {
    let mut states: HashMap<Uuid, AccountState> = HashMap::with_capacity(ids.len());
    let mut with_holds = Vec::new();
    let read = query_file!("src/views/transactions/last.sql", view.partition, view.generation, ids);
    for row in read.fetch_all(&mut *connection).await? {
        let state = RowState {
            balance: row.balance_after,
            transaction_count: row.transaction_count.unwrap_or_default(),
            status: row.status.as_deref().and_then(Status::from_name).unwrap_or(Status::Open).as_str(),
            overdraft: row.overdraft.unwrap_or_default(),
            holds_version: row.holds_version,
        };
        let stream_id = row.account_id;
        let held = row.holds_version.zip(row.holds_bytes);
        with_holds.extend(held.map(|(version, bytes)| (StreamVersion { stream_id, version }, bytes)));
        states.insert(stream_id, AccountState { row: state, holds: Holds::default() });
    }
    for rows in slices_by_bytes(&with_holds, |(_, bytes)| i64::from(*bytes)) {
        let read = query_file!(
            "src/views/transactions/holds.sql",
            view.partition,
            view.generation,
            &rows.iter().map(|(row, _)| row.stream_id).collect::<Vec<_>>(),
            &rows.iter().map(|(row, _)| row.version).collect::<Vec<_>>(),
        );
        for row in read.fetch_all(&mut *connection).await? {
            let Json(holds) = row.holds;
            if let Some(state) = states.get_mut(&row.account_id) {
                state.holds = holds;
            }
        }
    }
    Ok(states)
}

/// Inserts rows in the order of their keys, so that neighbours in the index follow each other. This saves a seventh of the time.
async fn insert(connection: &mut PgConnection, view: ViewGeneration, rows: &mut [Row<'_>]) -> Result<()> {
    rows.sort_unstable_by_key(|row| (row.decoded.recorded.stream_id, row.decoded.recorded.version));
    for rows in rows.chunks(WRITTEN_ROWS_MAX) {
        insert_sorted(connection, view, rows).await?;
    }
    Ok(())
}

async fn insert_sorted(connection: &mut PgConnection, view: ViewGeneration, rows: &[Row<'_>]) -> Result<()> {
    let has_state = view.schema_version >= HISTORY_VERSION;
    let is_complete = view.schema_version >= SCHEMA_VERSION;
    let channel = |row: &Row<'_>| row.entry.details.channel.filter(|_| is_complete).map(Channel::as_str);
    let metadata = |row: &Row<'_>| row.entry.details.metadata.and_then(json_unless_default);
    let overdraft = |row: &Row<'_>| Some(row.after.overdraft).filter(|overdraft| is_complete && *overdraft != 0);
    let holds_version = |row: &Row<'_>| row.after.holds_version.filter(|_| is_complete);
    query_file!(
        "src/views/transactions/insert.sql",
        view.partition,
        view.generation,
        &rows.iter().map(|row| row.decoded.recorded.stream_id).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.decoded.recorded.version).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.entry.kind).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| row.entry.balance_change.abs()).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.after.balance).collect::<Vec<_>>(),
        &sparse(rows.iter().map(|row| row.entry.details.transfer_id)) as _,
        &sparse(rows.iter().map(|row| row.entry.details.counterparty)) as _,
        &sparse(rows.iter().map(|row| row.entry.details.reference)) as _,
        &rows.iter().map(|row| row.decoded.recorded.recorded_at).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.decoded.recorded.id).collect::<Vec<_>>(),
        &rows.iter().map(|row| has_state.then_some(row.after.status)).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| has_state.then_some(row.after.transaction_count)).collect::<Vec<_>>() as _,
        &sparse(rows.iter().map(|row| row.entry.details.hold_id)) as _,
        &sparse(rows.iter().map(|row| row.entry.details.reverses_version)) as _,
        &sparse(rows.iter().map(channel)) as _,
        &sparse(rows.iter().map(metadata)) as _,
        &sparse(rows.iter().map(overdraft)) as _,
        &sparse(rows.iter().map(holds_version)) as _,
        &sparse(rows.iter().map(|row| row.holds.as_deref().filter(|_| is_complete))) as _,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Adds what the events reverse to their originals, in the order of the keys, so that two writers take the row locks in the same
/// order.
async fn add_reversed(
    connection: &mut PgConnection,
    writes: RowWrites,
    view: ViewGeneration,
    events: &[DecodedEvent],
) -> Result<()> {
    let mut amounts: BTreeMap<(Uuid, i64), i64> = BTreeMap::new();
    for DecodedEvent { recorded, event, .. } in events {
        if let Event::MovementReversed(reversed) = event {
            *amounts.entry((recorded.stream_id, reversed.reverses_version)).or_default() +=
                reversed.amount.minor_units();
        }
    }
    if amounts.is_empty() {
        return Ok(());
    }
    macro_rules! statement {
        ($file:literal $(, $updated:expr)*) => {
            query_file!(
                $file,
                view.partition,
                view.generation,
                &amounts.keys().map(|(account_id, _)| *account_id).collect::<Vec<_>>(),
                &amounts.keys().map(|(_, version)| *version).collect::<Vec<_>>(),
                &amounts.values().copied().collect::<Vec<_>>(),
                $($updated,)*
            )
        };
    }
    match writes {
        RowWrites::Upsert => statement!("src/views/transactions/add_reversed.sql").execute(connection).await.map(drop),
        RowWrites::UpdateThenInsert => {
            let updated = statement!("src/views/transactions/add_to_reversed.sql").fetch_all(&mut *connection).await?;
            if updated.len() == amounts.len() {
                return Ok(());
            }
            let (ids, versions): (Vec<Uuid>, Vec<i64>) =
                updated.into_iter().map(|row| (row.account_id, row.version)).unzip();
            statement!("src/views/transactions/insert_reversed.sql", &ids, &versions)
                .execute(connection)
                .await
                .map(drop)
        }
    }
}
