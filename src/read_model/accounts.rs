//! The view of accounts: one row an account, as it is now.

use std::{collections::BTreeMap, num::NonZeroUsize};

use chrono::{DateTime, Utc};
use futures_util::{FutureExt, future::BoxFuture};
use lru::LruCache;
use serde::Serialize;
use sqlx::{PgConnection, Result, query_file, query_file_as};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Error, ReadModel, Seen, page,
    projection::{Applicable, Place, Projection, cannot_apply},
};
use crate::{
    domain::{Event, Status},
    event_store::Position,
    timestamp,
};

/// How many rows the projector holds between batches.
const HELD_ROWS_MAX: NonZeroUsize = NonZeroUsize::new(50_000).expect("is not zero");

/// An account as the queries show it.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct AccountView {
    /// The account.
    pub account_id: Uuid,
    /// The customer that it belongs to.
    #[schema(example = "customer-17")]
    pub owner: String,
    /// Its currency (ISO 4217).
    #[schema(example = "EUR")]
    pub currency: String,
    /// Open, frozen or closed.
    #[schema(value_type = Status)]
    pub status: String,
    /// In minor units.
    #[schema(example = 15000, minimum = 0, maximum = 9007199254740991i64)]
    pub balance: i64,
    /// The number of the account's events; with quotes around it, its ETag.
    #[schema(example = 2, minimum = 1)]
    pub version: i64,
    /// How many movements of money it has seen.
    #[schema(example = 2)]
    pub transaction_count: i64,
    /// When it was opened.
    #[serde(with = "timestamp")]
    pub opened_at: DateTime<Utc>,
    /// When anything last happened to it.
    #[serde(with = "timestamp")]
    pub last_activity_at: DateTime<Utc>,
    /// When it was closed.
    #[serde(with = "timestamp::option")]
    pub closed_at: Option<DateTime<Utc>>,
}

impl AccountView {
    /// The row after one more event; `None` before the opening.
    fn evolve(row: Option<Self>, applicable: &Applicable) -> Option<Self> {
        let Applicable { recorded, event } = applicable;
        let mut row = match (row, event) {
            (Some(row), _) => row,
            (None, Event::AccountOpened(opened)) => Self {
                account_id: recorded.stream_id,
                owner: opened.owner.to_string(),
                currency: opened.currency.code().to_owned(),
                status: String::new(),
                balance: 0,
                version: 0,
                transaction_count: 0,
                opened_at: recorded.recorded_at,
                last_activity_at: recorded.recorded_at,
                closed_at: None,
            },
            (None, _) => return None,
        };
        match event {
            Event::AccountOpened(opened) => {
                row.status = Status::Open.as_str().to_owned();
                row.balance = opened.initial_deposit;
                row.transaction_count = i64::from(opened.initial_deposit > 0);
            }
            Event::MoneyDeposited(deposited) => row.moved(deposited.amount.minor_units()),
            Event::MoneyWithdrawn(withdrawn) => row.moved(-withdrawn.amount.minor_units()),
            Event::TransferSent(sent) => row.moved(-sent.amount.minor_units()),
            Event::TransferReceived(received) => row.moved(received.amount.minor_units()),
            Event::AccountFrozen(_) => row.status = Status::Frozen.as_str().to_owned(),
            Event::AccountUnfrozen(_) => row.status = Status::Open.as_str().to_owned(),
            Event::AccountClosed(_) => {
                row.status = Status::Closed.as_str().to_owned();
                row.closed_at = Some(recorded.recorded_at);
            }
        }
        row.version = recorded.version;
        row.last_activity_at = recorded.recorded_at;
        Some(row)
    }

    fn moved(&mut self, minor_units: i64) {
        self.balance += minor_units;
        self.transaction_count += 1;
    }
}

/// Keeps the view.
pub(super) struct Accounts {
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
            let read = query_file_as!(
                AccountView,
                "src/read_model/accounts_by_id.sql",
                place.partition,
                place.generation,
                &missing
            )
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
        "src/read_model/accounts_upsert.sql",
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

/// Which accounts a list holds.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of this owner.
    pub owner: Option<String>,
    /// In this status.
    pub status: Option<Status>,
    /// In this currency.
    pub currency: Option<String>,
}

/// Where a list of accounts goes on: behind the account opened then, with that id.
pub type Mark = (DateTime<Utc>, Uuid);

impl ReadModel {
    /// One account, or `None` where the view knows none.
    pub async fn account(
        &self,
        account_id: Uuid,
        min_position: Option<Position>,
    ) -> Result<Seen<Option<AccountView>>, Error> {
        self.at_least(min_position, || async {
            let rows = query_file_as!(Row, "src/read_model/account.sql", self.partition, account_id)
                .fetch_all(&self.pool)
                .await?;
            Ok(seen(rows).map(|seen| seen.map(|mut accounts| accounts.pop())))
        })
        .await
    }

    /// A page of accounts, newest opening first, and whether there are more.
    pub async fn accounts(
        &self,
        filter: &Filter,
        after: Option<Mark>,
        limit: i64,
        min_position: Option<Position>,
    ) -> Result<Seen<(Vec<AccountView>, bool)>, Error> {
        let status = filter.status.map(Status::as_str);
        let currency = filter.currency.as_deref();
        let (opened_at, account_id) = after.unzip();
        self.at_least(min_position, || async {
            // An owner's accounts are found through an index of their own, so each list is a statement of its own.
            let rows = match &filter.owner {
                Some(owner) => {
                    query_file_as!(
                        Row,
                        "src/read_model/accounts_of_owner.sql",
                        self.partition,
                        status,
                        currency,
                        opened_at,
                        account_id,
                        limit + 1,
                        owner
                    )
                    .fetch_all(&self.pool)
                    .await?
                }
                None => {
                    query_file_as!(
                        Row,
                        "src/read_model/accounts.sql",
                        self.partition,
                        status,
                        currency,
                        opened_at,
                        account_id,
                        limit + 1
                    )
                    .fetch_all(&self.pool)
                    .await?
                }
            };
            Ok(seen(rows).map(|seen| seen.map(|accounts| page(accounts, limit))))
        })
        .await
    }
}

/// A row of the view beside its checkpoint; all but the checkpoint is absent where the view holds nothing that fits.
struct Row {
    position: i64,
    generation: i16,
    account_id: Option<Uuid>,
    owner: Option<String>,
    currency: Option<String>,
    status: Option<String>,
    balance: Option<i64>,
    version: Option<i64>,
    transaction_count: Option<i64>,
    opened_at: Option<DateTime<Utc>>,
    last_activity_at: Option<DateTime<Utc>>,
    closed_at: Option<DateTime<Utc>>,
}

fn seen(rows: Vec<Row>) -> Option<Seen<Vec<AccountView>>> {
    let (position, generation) = rows.first().map(|row| (Position(row.position), row.generation))?;
    Some(Seen { value: rows.into_iter().filter_map(view).collect(), position, generation })
}

fn view(row: Row) -> Option<AccountView> {
    Some(AccountView {
        account_id: row.account_id?,
        owner: row.owner?,
        currency: row.currency?,
        status: row.status?,
        balance: row.balance?,
        version: row.version?,
        transaction_count: row.transaction_count?,
        opened_at: row.opened_at?,
        last_activity_at: row.last_activity_at?,
        closed_at: row.closed_at,
    })
}
