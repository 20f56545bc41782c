//! The view of accounts: one row an account, as it is now.

pub mod as_of;
mod check;
mod lookup;
mod projection;

use std::cmp::Reverse;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgExecutor, query_file_as};
use utoipa::ToSchema;
use uuid::Uuid;

pub(super) use lookup::Lookups;
pub(super) use projection::Accounts;

use super::{Error, ReadModel, Seen, page, projection::Applicable};
use passbook_domain::{Event, Status};
use passbook_event_store::timestamp;
use passbook_event_store::{Partitions, Position};

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
    pub fn evolve(row: Option<Self>, applicable: &Applicable) -> Option<Self> {
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
            Event::AccountOpened(_) | Event::AccountUnfrozen(_) => row.status = Status::Open.as_str().to_owned(),
            Event::AccountFrozen(_) => row.status = Status::Frozen.as_str().to_owned(),
            Event::AccountClosed(_) => {
                row.status = Status::Closed.as_str().to_owned();
                row.closed_at = Some(recorded.recorded_at);
            }
            Event::MoneyDeposited(_)
            | Event::MoneyWithdrawn(_)
            | Event::TransferSent(_)
            | Event::TransferReceived(_) => {}
        }
        row.balance += event.gain();
        row.transaction_count += i64::from(event.gain() != 0);
        row.version = recorded.version;
        row.last_activity_at = recorded.recorded_at;
        Some(row)
    }
}

/// Those of the accounts that the live generation knows; `None` while there is none.
pub async fn live(
    executor: impl PgExecutor<'_>,
    partitions: Partitions,
    partition: i16,
    ids: &[Uuid],
) -> sqlx::Result<Option<Seen<Vec<AccountView>>>> {
    let rows = query_file_as!(Row, "src/accounts/live.sql", partition, ids).fetch_all(executor).await?;
    Ok(seen(rows, partitions, partition))
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
        min_position: Option<&Position>,
    ) -> Result<Seen<Option<AccountView>>, Error> {
        let partition = self.partitions.of(account_id);
        let lookups = &self.lane(partition).ok_or(Error::Behind)?.lookups;
        self.at_least(partition, min_position, |pool| async move {
            // Who waits for a position may be led past the replica, which those who share a statement are not.
            let shares = self.source.shares(min_position.is_some());
            let shared = if shares { lookups.get(account_id).await } else { None };
            match shared {
                Some(answer) => Ok(answer),
                None => Ok(live(&pool, self.partitions, partition, &[account_id]).await?.map(only)),
            }
        })
        .await
    }

    /// A page of accounts, newest opening first, and whether there are more: the newest of each partition's, merged.
    pub async fn accounts(
        &self,
        filter: &Filter,
        after: Option<Mark>,
        limit: i64,
        min_position: Option<&Position>,
    ) -> Result<Seen<(Vec<AccountView>, bool)>, Error> {
        let status = filter.status.map(Status::as_str);
        let currency = filter.currency.as_deref();
        let (opened_at, account_id) = after.unzip();
        let seen = self.of_all(min_position, |partition, pool| async move {
            // An owner's accounts are found through an index of their own, so each list is a statement of its own.
            let rows = match &filter.owner {
                Some(owner) => {
                    query_file_as!(
                        Row,
                        "src/accounts/of_owner.sql",
                        partition,
                        status,
                        currency,
                        opened_at,
                        account_id,
                        limit + 1,
                        owner
                    )
                    .fetch_all(&pool)
                    .await?
                }
                None => {
                    query_file_as!(
                        Row,
                        "src/accounts/list.sql",
                        partition,
                        status,
                        currency,
                        opened_at,
                        account_id,
                        limit + 1
                    )
                    .fetch_all(&pool)
                    .await?
                }
            };
            Ok(seen(rows, self.partitions, partition))
        });
        Ok(seen.await?.map(|newest| {
            let mut accounts: Vec<AccountView> = newest.into_iter().flatten().collect();
            if self.partitions.are_several() {
                accounts.sort_unstable_by_key(|account| Reverse((account.opened_at, account.account_id)));
            }
            page(accounts, limit)
        }))
    }
}

/// What was seen of the one account that was asked for.
pub fn only(seen: Seen<Vec<AccountView>>) -> Seen<Option<AccountView>> {
    seen.map(|mut accounts| accounts.pop())
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

fn seen(rows: Vec<Row>, partitions: Partitions, partition: i16) -> Option<Seen<Vec<AccountView>>> {
    let (position, generation) =
        rows.first().map(|row| (partitions.position(partition, row.position), row.generation))?;
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
