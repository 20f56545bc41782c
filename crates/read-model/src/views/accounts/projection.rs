//! Projects events into the view of accounts: folds events into rows and writes each changed row once per batch.

use std::collections::{BTreeMap, HashMap};

use futures_util::{FutureExt, future::BoxFuture};
use sqlx::{PgConnection, Result, query, query_file, query_scalar, types::Json};
use uuid::Uuid;

use super::{
    check::AccountsCheck,
    row::{AccountRow, Columns, SCHEMA_VERSION},
};
use crate::{
    decoded_event::{DecodedEvent, cannot_apply},
    projection::{Check, Detail, Projection, RowKey, ViewGeneration},
    views::{
        RowWrites,
        account_cache::{AccountCache, CachedAccounts, PRELOADED_ACCOUNTS_MAX, Purpose},
        columns::{WRITTEN_ROWS_MAX, json, json_unless_default, sparse},
    },
};
use passbook_domain::{Holds, Limits, Usage};
use passbook_event_store::locked_read::{rows_max, slices_by_bytes};

/// How many rows without holds one statement reads while the checkpoints are locked. Only an owner of the longest name makes a row
/// longer.
const LOCKED_ROWS_MAX: usize = rows_max(512);
/// Limit of rows cached between batches; some 330 bytes each.
const CACHED_ROWS_MAX: CachedAccounts = CachedAccounts::new(50_000, 150_000);

/// The projection of the view of accounts.
pub(crate) struct Accounts {
    /// The row of each account; `None` before its opening.
    rows: AccountCache<Option<AccountRow>>,
    writes: RowWrites,
}

impl Accounts {
    pub(in crate::views) fn new(purpose: Purpose, writes: RowWrites) -> Self {
        Self { rows: AccountCache::new(CACHED_ROWS_MAX.of(purpose)), writes }
    }

    /// Caches the rows of the accounts of a batch. Each statement reads up to `rows_max` rows.
    async fn load(
        &mut self,
        connection: &mut PgConnection,
        view: ViewGeneration,
        events: &[DecodedEvent],
        rows_max: usize,
    ) -> Result<()> {
        let missing = self.rows.missing(events, |_| true);
        for ids in missing.chunks(rows_max) {
            let rows = read_rows(connection, view, ids).await?;
            self.rows.extend(rows.into_iter().map(|row| (row.account_id, Some(row))));
        }
        Ok(())
    }
}

impl Projection for Accounts {
    fn name(&self) -> &'static str {
        "accounts"
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
            self.load(connection, view, events, LOCKED_ROWS_MAX).await?;
            for decoded in events {
                let row = self.rows.state_mut(decoded.recorded.stream_id);
                *row = AccountRow::evolve(row.take(), decoded);
                if row.is_none() {
                    let position = decoded.recorded.position;
                    return Err(cannot_apply(format!("the event at position {position} has no opening before it")));
                }
            }
            // Sorted by id, so that two writers take the row locks in the same order.
            let mut changed: BTreeMap<Uuid, bool> = BTreeMap::new();
            for DecodedEvent { recorded, event, .. } in events {
                *changed.entry(recorded.stream_id).or_default() |= event.own_hold().is_some();
            }
            let row = |(account_id, has_new_holds): (&Uuid, &bool)| {
                Some(ChangedRow { row: self.rows.peek(account_id)?.as_ref()?, has_new_holds: *has_new_holds })
            };
            let rows: Vec<ChangedRow<'_>> = changed.iter().filter_map(row).collect();
            for rows in rows.chunks(WRITTEN_ROWS_MAX) {
                upsert(connection, self.writes, view, rows).await?;
            }
            Ok(())
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
        events: i64,
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
            Ok((versions != events)
                .then(|| format!("its account versions add up to {versions}, but the log has {events} events")))
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

    fn check(&self, detail: Detail) -> Box<dyn Check> {
        Box::new(AccountsCheck::new(detail))
    }
}

/// A row to be written.
struct ChangedRow<'a> {
    row: &'a AccountRow,
    /// Whether a hold has changed. Otherwise the holds are not written again.
    has_new_holds: bool,
}

/// Reads rows without their metadata, which no event changes.
async fn read_rows(connection: &mut PgConnection, view: ViewGeneration, ids: &[Uuid]) -> Result<Vec<AccountRow>> {
    let mut rows = Vec::with_capacity(ids.len());
    let mut with_holds = Vec::new();
    let read = query_file!("src/views/accounts/by_id.sql", view.partition, view.generation, ids);
    for row in read.fetch_all(&mut *connection).await? {
        with_holds.extend(row.holds_bytes.map(|bytes| (row.account_id, bytes)));
        rows.push(Columns {
            account_id: row.account_id,
            owner: row.owner,
            currency: row.currency,
            status: row.status,
            balance: row.balance,
            limits: row.limits,
            usage: row.usage,
            holds: None,
            metadata: None,
            version: row.version,
            transaction_count: row.transaction_count,
            opened_at: row.opened_at,
            last_activity_at: row.last_activity_at,
            closed_at: row.closed_at,
        });
    }
    let mut holds = read_holds(connection, view, &with_holds).await?;
    rows.into_iter().map(|columns| Columns { holds: holds.remove(&columns.account_id), ..columns }.row()).collect()
}

/// Reads the holds of accounts, of which the number of bytes is known.
async fn read_holds(
    connection: &mut PgConnection,
    view: ViewGeneration,
    accounts: &[(Uuid, i32)],
) -> Result<HashMap<Uuid, Json<Holds>>> {
    let mut holds = HashMap::with_capacity(accounts.len());
    for accounts in slices_by_bytes(accounts, |(_, bytes)| i64::from(*bytes)) {
        let ids: Vec<Uuid> = accounts.iter().map(|(account_id, _)| *account_id).collect();
        let read = query_file!("src/views/accounts/holds.sql", view.partition, view.generation, &ids);
        holds.extend(read.fetch_all(&mut *connection).await?.into_iter().map(|row| (row.account_id, row.holds)));
    }
    Ok(holds)
}

/// Writes rows in the order of their ids.
async fn upsert(
    connection: &mut PgConnection,
    writes: RowWrites,
    view: ViewGeneration,
    changed: &[ChangedRow<'_>],
) -> Result<()> {
    let rows: Vec<&AccountRow> = changed.iter().map(|changed| changed.row).collect();
    let has_usage = view.schema_version >= SCHEMA_VERSION;
    let usage = |row: &&AccountRow| if has_usage { json_unless_default(&row.state.usage) } else { None };
    let holds = |changed: &ChangedRow<'_>| changed.has_new_holds.then(|| json(&changed.row.state.holds));
    macro_rules! statement {
        ($file:literal $(, $updated:expr)*) => {
            query_file!(
                $file,
                view.partition,
                view.generation,
                &rows.iter().map(|row| row.account_id).collect::<Vec<_>>(),
                &rows.iter().map(|row| &*row.state.owner).collect::<Vec<_>>() as _,
                &rows.iter().map(|row| row.state.currency.code()).collect::<Vec<_>>() as _,
                &rows.iter().map(|row| row.state.status.as_str()).collect::<Vec<_>>() as _,
                &rows.iter().map(|row| row.state.balance).collect::<Vec<_>>(),
                &rows.iter().map(|row| row.state.version).collect::<Vec<_>>(),
                &rows.iter().map(|row| row.transaction_count).collect::<Vec<_>>(),
                &rows.iter().map(|row| row.opened_at).collect::<Vec<_>>(),
                &rows.iter().map(|row| row.last_activity_at).collect::<Vec<_>>(),
                &sparse(rows.iter().map(|row| row.closed_at)) as _,
                &sparse(rows.iter().map(|row| json_unless_default(&row.state.limits))) as _,
                &sparse(rows.iter().map(usage)) as _,
                &sparse(rows.iter().map(|row| json_unless_default(&row.metadata))) as _,
                &sparse(changed.iter().map(holds)) as _,
                $($updated,)*
            )
        };
    }
    match writes {
        RowWrites::Upsert => statement!("src/views/accounts/upsert.sql").execute(connection).await.map(drop),
        RowWrites::UpdateThenInsert => {
            let updated = statement!("src/views/accounts/update.sql").fetch_all(&mut *connection).await?;
            if updated.len() == rows.len() {
                return Ok(());
            }
            let updated: Vec<Uuid> = updated.into_iter().map(|row| row.account_id).collect();
            statement!("src/views/accounts/insert.sql", &updated).execute(connection).await.map(drop)
        }
    }
}
