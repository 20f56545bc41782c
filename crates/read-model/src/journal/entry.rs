//! An entry of the journal: what the books have of an event that moves money.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    decoded_event::{DecodedEvent, cannot_apply},
    views::{
        bank_totals::read_currencies,
        ledger_totals::{originals::read_originals, projection::reversed_movement},
        transactions::{Details, Kind, kind},
    },
};
use passbook_domain::{
    Channel, Currency,
    books::{self, Posting},
};
use passbook_event_store::{Partitions, Position, StreamVersion, timestamp};

/// A movement of money as the books have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct JournalEntry {
    /// The day in UTC on which the event was recorded.
    pub date: NaiveDate,
    /// When the event was recorded.
    #[serde(with = "timestamp")]
    pub recorded_at: DateTime<Utc>,
    /// The position of the event in the log.
    #[schema(value_type = String)]
    pub position: Position,
    /// The event that moved the money.
    pub event_id: Uuid,
    /// The customer's account.
    pub account_id: Uuid,
    /// The version of the account after the event.
    #[schema(example = 2, minimum = 1)]
    pub version: i64,
    /// Why money moved.
    #[schema(value_type = Kind)]
    pub kind: &'static str,
    /// The currency (ISO 4217).
    #[schema(value_type = String, example = "EUR", pattern = "^[A-Z]{3}$")]
    pub currency: Currency,
    /// One debit and one credit of the same amount.
    #[schema(value_type = Vec<JournalPosting>)]
    pub postings: [JournalPosting; 2],
    /// The transfer that the event is a side of.
    #[schema(required = true)]
    pub transfer_id: Option<Uuid>,
    /// The other account of the transfer; `null` for the reversal of one.
    #[schema(required = true)]
    pub counterparty_account_id: Option<Uuid>,
    /// The hold that was captured. That of a received transfer is the sender's.
    #[schema(required = true)]
    pub hold_id: Option<Uuid>,
    /// The version of the transaction of this account that a reversal pays back.
    #[schema(required = true, example = json!(null))]
    pub reverses_version: Option<i64>,
    /// The text that the caller supplied.
    #[schema(required = true, example = "invoice 2026-17")]
    pub reference: Option<String>,
    /// Where the money was deposited or withdrawn.
    #[schema(required = true, example = json!(null))]
    pub channel: Option<Channel>,
}

/// One side of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct JournalPosting {
    /// The ledger account.
    #[schema(example = "assets:cash:branch")]
    pub ledger_account: &'static str,
    /// The debited amount in minor units; 0 for a credit.
    #[schema(example = 500, minimum = 0, maximum = 9007199254740991i64)]
    pub debit: i64,
    /// The credited amount in minor units; 0 for a debit.
    #[schema(example = 0, minimum = 0, maximum = 9007199254740991i64)]
    pub credit: i64,
}

impl From<Posting> for JournalPosting {
    fn from(posting: Posting) -> Self {
        Self { ledger_account: posting.account.name(), debit: posting.debit(), credit: posting.credit() }
    }
}

/// The entries of the events that move money.
pub(super) async fn entries_of(
    connection: &mut PgConnection,
    partitions: Partitions,
    partition: i16,
    events: &[DecodedEvent],
) -> sqlx::Result<Vec<JournalEntry>> {
    let events: Vec<&DecodedEvent> = events.iter().filter(|decoded| decoded.event.balance_change() != 0).collect();
    let accounts: BTreeSet<Uuid> = events.iter().map(|decoded| decoded.recorded.stream_id).collect();
    let accounts: Vec<Uuid> = accounts.into_iter().collect();
    let currencies: HashMap<Uuid, Option<Currency>> =
        read_currencies(connection, partition, &accounts).await?.into_iter().collect();
    let reversed: BTreeSet<StreamVersion> = events.iter().filter_map(|decoded| reversed_movement(decoded)).collect();
    let reversed: Vec<StreamVersion> = reversed.into_iter().collect();
    let originals = read_originals(connection, partition, &reversed).await?;
    let entry = |decoded: &DecodedEvent| {
        let DecodedEvent { recorded, event, .. } = decoded;
        let failed = |reason: &str| cannot_apply(format!("the event at position {} {reason}", recorded.position));
        let currency = currencies.get(&recorded.stream_id).copied().flatten();
        let currency = currency.ok_or_else(|| failed("has no opening before it"))?;
        let original = reversed_movement(decoded).and_then(|movement| originals.get(&movement).copied());
        let postings =
            books::postings(event, original).map_err(|error| failed(&format!("cannot be posted: {error}")))?;
        let postings = postings.ok_or_else(|| failed("moves no money"))?;
        let details = Details::from_event(event);
        Ok(JournalEntry {
            date: recorded.recorded_at.date_naive(),
            recorded_at: recorded.recorded_at,
            position: partitions.position_in(partition, recorded.position),
            event_id: recorded.id,
            account_id: recorded.stream_id,
            version: recorded.version,
            kind: kind(event),
            currency,
            postings: postings.map(JournalPosting::from),
            transfer_id: details.transfer_id,
            counterparty_account_id: details.counterparty,
            hold_id: details.hold_id,
            reverses_version: details.reverses_version,
            reference: details.reference.map(ToOwned::to_owned),
            channel: details.channel,
        })
    };
    events.into_iter().map(entry).collect()
}
