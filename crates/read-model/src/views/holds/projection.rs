//! Projects events into the view of holds: writes each changed hold once per batch, and adds what a batch changes to the totals.

use std::collections::{BTreeMap, HashMap};

use futures_util::{FutureExt, future::BoxFuture};
use sqlx::{PgConnection, Result, query, query_file, query_file_as, types::Json};
use uuid::Uuid;

use super::{
    check::HoldsCheck,
    row::{AccountHolds, Columns, HoldRow, HoldTexts},
};
use crate::{
    decoded_event::{DecodedEvent, cannot_apply},
    money_sum::MoneySum,
    projection::{Check, Detail, Projection, RowKey, ViewGeneration},
    views::{
        RowWrites,
        account_cache::{AccountCache, CachedAccounts, Purpose},
        bank_totals::read_currencies,
        columns::{WRITTEN_ROWS_MAX, json_unless_default},
    },
};
use passbook_domain::{Metadata, holds::ACTIVE_HOLDS_MAX};
use passbook_event_store::locked_read::rows_max;

/// How many holds one statement reads while the checkpoints are locked.
const LOCKED_HOLDS_MAX: usize = rows_max(160);
/// The holds of how many accounts one statement looks up.
const LOOKED_UP_ACCOUNTS_MAX: usize = 16;
/// Limit of accounts cached between batches; some 60 bytes each without holds.
const CACHED_ACCOUNTS_MAX: CachedAccounts = CachedAccounts::new(50_000, 150_000);

/// A row to be written by account and version, with the texts if it is new.
type ChangedRow = ((Uuid, i64), (HoldRow, Option<HoldTexts>));

/// The projection of the view of holds.
pub(crate) struct Holds {
    accounts: AccountCache<AccountHolds>,
    writes: RowWrites,
}

impl Holds {
    pub(in crate::views) fn new(purpose: Purpose, writes: RowWrites) -> Self {
        Self { accounts: AccountCache::new(CACHED_ACCOUNTS_MAX.of(purpose)), writes }
    }
}

impl Projection for Holds {
    fn name(&self) -> &'static str {
        "holds"
    }

    fn schema_version(&self) -> i16 {
        1
    }

    fn preload<'a>(
        &'a mut self,
        connection: &'a mut PgConnection,
        view: ViewGeneration,
        events: &'a [DecodedEvent],
    ) -> BoxFuture<'a, Result<()>> {
        async move {
            let missing = self.accounts.missing(events, |event| event.own_hold().is_some());
            self.accounts.extend(read_states(connection, view, &missing).await?);
            Ok(())
        }
        .boxed()
    }

    fn apply<'a>(
        &'a mut self,
        connection: &'a mut PgConnection,
        view: ViewGeneration,
        events: &'a [DecodedEvent],
    ) -> BoxFuture<'a, Result<()>> {
        async move {
            self.preload(connection, view, events).await?;
            let mut rows: BTreeMap<(Uuid, i64), (HoldRow, Option<HoldTexts>)> = BTreeMap::new();
            let mut totals: BTreeMap<&str, MoneySum> = BTreeMap::new();
            for decoded in events {
                let account_id = decoded.recorded.stream_id;
                if decoded.recorded.version > 1 && decoded.event.own_hold().is_none() {
                    continue;
                }
                if let Some(change) = self.accounts.state_mut(account_id).evolve(decoded)? {
                    *totals.entry(change.row.currency.code()).or_default() += change.held_change;
                    let (row, texts) = rows.entry((account_id, change.row.version)).or_insert((change.row, None));
                    *row = change.row;
                    *texts = change.texts.or_else(|| texts.take());
                }
            }
            if rows.is_empty() {
                return Ok(());
            }
            let rows: Vec<_> = rows.into_iter().collect();
            for rows in rows.chunks(WRITTEN_ROWS_MAX) {
                upsert(connection, self.writes, view, rows).await?;
            }
            add_totals(connection, self.writes, view, &totals).await
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
        _: i64,
    ) -> BoxFuture<'a, Result<Option<String>>> {
        async move {
            let broken = query_file!("src/views/holds/broken.sql", view.partition, view.generation);
            let broken = broken.fetch_optional(connection).await?;
            Ok(broken.map(|row| format!("the total of {} is not the sum of its holds", row.currency)))
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
            // One row per currency: the first slice deletes them all.
            query!("DELETE FROM held_total WHERE partition = $1 AND generation = $2", view.partition, view.generation)
                .execute(&mut *connection)
                .await?;
            let last = query!(
                "SELECT account_id, version
                 FROM (
                     SELECT account_id, version FROM account_hold
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
                "DELETE FROM account_hold
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
        Box::new(HoldsCheck::new(detail))
    }
}

/// Reads the holds of accounts that have no recorded end, and the currencies of the accounts from their openings in the log.
async fn read_states(
    connection: &mut PgConnection,
    view: ViewGeneration,
    ids: &[Uuid],
) -> Result<HashMap<Uuid, AccountHolds>> {
    let mut states = HashMap::with_capacity(ids.len());
    for (account_id, currency) in read_currencies(connection, view.partition, ids).await? {
        states.insert(account_id, currency.map_or_else(AccountHolds::default, AccountHolds::new));
    }
    for ids in ids.chunks(LOOKED_UP_ACCOUNTS_MAX) {
        let mut after = (Uuid::nil(), 0);
        loop {
            let rows = read_active(connection, view, ids, after).await?;
            let is_last = rows.len() < LOCKED_HOLDS_MAX;
            for columns in rows {
                let account_id = columns.account_id;
                let (row, _) = columns.row()?;
                let unopened = || cannot_apply(format!("the account {account_id} has a hold and no opening"));
                states.get_mut(&account_id).ok_or_else(unopened)?.add(row);
                after = (account_id, row.version);
            }
            if is_last {
                break;
            }
        }
    }
    Ok(states)
}

/// Reads the next holds of accounts, up to [`LOCKED_HOLDS_MAX`], after the hold of this account and version.
async fn read_active(
    connection: &mut PgConnection,
    view: ViewGeneration,
    ids: &[Uuid],
    (account_id, version): (Uuid, i64),
) -> Result<Vec<Columns>> {
    query_file_as!(
        Columns,
        "src/views/holds/active.sql",
        view.partition,
        view.generation,
        ids,
        ACTIVE_HOLDS_MAX as i64,
        account_id,
        version,
        LOCKED_HOLDS_MAX as i64
    )
    .fetch_all(connection)
    .await
}

/// Writes rows in the order of their keys, so that two writers take the row locks in the same order.
async fn upsert(
    connection: &mut PgConnection,
    writes: RowWrites,
    view: ViewGeneration,
    rows: &[ChangedRow],
) -> Result<()> {
    let holds = || rows.iter().map(|(_, (row, _))| row.hold);
    let texts = || rows.iter().map(|(_, (_, texts))| texts.as_ref());
    let reference = |texts: Option<&HoldTexts>| texts.and_then(|texts| texts.reference.clone());
    let metadata = |texts: Option<&HoldTexts>| texts.and_then(|texts| json_unless_default(&texts.metadata));
    macro_rules! statement {
        ($file:literal $(, $updated:expr)*) => {
            query_file!(
                $file,
                view.partition,
                view.generation,
                &rows.iter().map(|((account_id, _), _)| *account_id).collect::<Vec<_>>(),
                &rows.iter().map(|((_, version), _)| *version).collect::<Vec<_>>(),
                &holds().map(|hold| hold.hold_id).collect::<Vec<_>>(),
                &rows.iter().map(|(_, (row, _))| row.currency.code()).collect::<Vec<_>>() as _,
                &rows.iter().map(|(_, (row, _))| row.status.as_str()).collect::<Vec<_>>() as _,
                &holds().map(|hold| hold.amount.minor_units()).collect::<Vec<_>>(),
                &holds().map(|hold| hold.captured).collect::<Vec<_>>(),
                &holds().map(|hold| hold.placed_at).collect::<Vec<_>>(),
                &holds().map(|hold| hold.expires_at).collect::<Vec<_>>(),
                &texts().map(reference).collect::<Vec<_>>() as _,
                &texts().map(metadata).collect::<Vec<_>>() as _,
                $($updated,)*
            )
        };
    }
    match writes {
        RowWrites::Upsert => statement!("src/views/holds/upsert.sql").execute(connection).await.map(drop),
        RowWrites::UpdateThenInsert => {
            let updated = statement!("src/views/holds/update.sql").fetch_all(&mut *connection).await?;
            if updated.len() == rows.len() {
                return Ok(());
            }
            let (ids, versions): (Vec<Uuid>, Vec<i64>) =
                updated.into_iter().map(|row| (row.account_id, row.version)).unzip();
            statement!("src/views/holds/insert.sql", &ids, &versions).execute(connection).await.map(drop)
        }
    }
}

async fn add_totals(
    connection: &mut PgConnection,
    writes: RowWrites,
    view: ViewGeneration,
    totals: &BTreeMap<&str, MoneySum>,
) -> Result<()> {
    macro_rules! statement {
        ($file:literal $(, $updated:expr)*) => {
            query_file!(
                $file,
                view.partition,
                view.generation,
                &totals.keys().copied().collect::<Vec<_>>() as _,
                &totals.values().map(ToString::to_string).collect::<Vec<_>>(),
                $($updated,)*
            )
        };
    }
    match writes {
        RowWrites::Upsert => statement!("src/views/holds/add_total.sql").execute(connection).await.map(drop),
        RowWrites::UpdateThenInsert => {
            let updated = statement!("src/views/holds/add_to_total.sql").fetch_all(&mut *connection).await?;
            if updated.len() == totals.len() {
                return Ok(());
            }
            let updated: Vec<String> = updated.into_iter().map(|row| row.currency).collect();
            statement!("src/views/holds/insert_total.sql", &updated).execute(connection).await.map(drop)
        }
    }
}
