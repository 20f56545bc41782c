//! Reads the movement that a reversal pays back from the log, before the command is put into a queue: a batch does not wait for
//! it. Events never change, but after a failover this connection may still lead to the former primary. So the executor confirms
//! the ids of the events on its own connection, with [`History`](super::history::History). The sum reversed so far changes; the
//! executor reads it, too.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool, postgres::PgPoolOptions};
use tokio::{sync::Semaphore, time::timeout};
use uuid::Uuid;

use super::{
    QUEUE_COMMANDS_MAX,
    command::Error,
    storage_error::{STATEMENT_TIMEOUT, StorageError},
    unsupported_event::UnsupportedEventGate,
};
use passbook_domain::{
    AccountCommand, Aggregate, Amount, Command, Event, EventType,
    command::{Reverse, ReverseTransfer, ReversedSide},
    reversal::{MovementKind, RecordedMovement},
};
use passbook_event_store::{Partitions, PrimaryConnector, RecordedEvent, reader, with_timeout};

/// How many movements are read at once. A further reversal waits for its turn.
const LOOKUP_CONNECTIONS_MAX: u32 = 2;
/// How many reversals read their movement or wait for that. More are answered [`Error::Overloaded`] at once.
const LOOKUPS_MAX: usize = QUEUE_COMMANDS_MAX;
/// How long a reversal waits for its turn, in milliseconds.
const TURN_MS_MAX: u64 = 2_000;
/// How long opening a connection may take, in milliseconds.
const ACQUIRE_MS_MAX: u64 = 2_000;

/// Pays back a movement, in part or whole.
#[derive(Clone, Debug)]
pub struct Reversal {
    /// The account. A transfer can be named on either of its accounts.
    pub account_id: Uuid,
    /// The version of the movement.
    pub version: i64,
    /// The amount; `None`: all that is left.
    pub amount: Option<Amount>,
    /// The client's text for this reversal.
    pub reason: Option<String>,
}

/// Reads movements from the log.
#[derive(Clone)]
pub(super) struct ReversalLookup {
    pool: PgPool,
    /// One permit for each reversal that may read or wait.
    places: Arc<Semaphore>,
    /// One permit for each connection of the pool, so that only a connection that cannot be opened lets the pool time out.
    turns: Arc<Semaphore>,
    gate: UnsupportedEventGate,
    partitions: Partitions,
}

/// An event.
struct Found {
    event_id: Uuid,
    /// The movement that it records; `None` if it moves no money.
    movement: Option<RecordedMovement>,
    recorded_at: DateTime<Utc>,
}

impl ReversalLookup {
    pub(super) fn new(primary: &PrimaryConnector, gate: UnsupportedEventGate, partitions: Partitions) -> Self {
        let options = PgPoolOptions::new()
            .max_connections(LOOKUP_CONNECTIONS_MAX)
            .acquire_timeout(Duration::from_millis(ACQUIRE_MS_MAX));
        let primary = primary.with_options(|server| server.application_name("passbook lookup"));
        let places = Arc::new(Semaphore::new(LOOKUPS_MAX));
        let turns = Arc::new(Semaphore::new(LOOKUP_CONNECTIONS_MAX as usize));
        Self { pool: primary.pool(options), places, turns, gate, partitions }
    }

    /// The command that pays a movement back. It is refused later if there is no such movement.
    ///
    /// # Errors
    /// Too many reversals wait, the database is unavailable, or an event cannot be read.
    pub(super) async fn command(&self, reversal: Reversal) -> Result<Command, Error> {
        let _place = self.places.try_acquire().map_err(|_| Error::Overloaded)?;
        let turn = timeout(Duration::from_millis(TURN_MS_MAX), self.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(Error::Overloaded) };
        self.find(reversal).await.map_err(|error| match error {
            LookupError::Storage(error) => {
                tracing::warn!(reason = error.reason, "movement to reverse cannot be read");
                Error::StorageUnavailable { reason: error.outage }
            }
            LookupError::Unreadable => Error::Internal,
        })
    }

    /// Closes the connections that are not in use, because they may lead to a former primary.
    pub(super) fn close_connections(&self) {
        while let Some(mut connection) = self.pool.try_acquire() {
            connection.close_on_drop();
        }
    }

    async fn find(&self, reversal: Reversal) -> Result<Command, LookupError> {
        let mut connection = self.pool.acquire().await?;
        let command = self.read(&mut connection, reversal).await;
        if matches!(command, Err(LookupError::Storage(_))) {
            // A statement that timed out may still run.
            connection.close_on_drop();
        }
        command
    }

    async fn read(&self, connection: &mut PgConnection, reversal: Reversal) -> Result<Command, LookupError> {
        let (account_id, version) = (reversal.account_id, reversal.version);
        let found = self.event(connection, account_id, version).await?;
        let mut other = None;
        if let Some(found) = &found
            && let Some(transfer) = found.movement.and_then(transfer_of)
        {
            other = Some(self.other_side(connection, transfer, found.recorded_at).await?);
        }
        Ok(command_of(reversal, found.map(|found| (found.event_id, found.movement)), other))
    }

    /// The event at a version; `None` if there is none.
    async fn event(
        &self,
        connection: &mut PgConnection,
        account_id: Uuid,
        version: i64,
    ) -> Result<Option<Found>, LookupError> {
        let partition = self.partitions.partition_of(account_id);
        let reading = reader::page_of_stream(connection, partition, account_id, version - 1, 1);
        let page = with_timeout(STATEMENT_TIMEOUT, reading).await?;
        match page.into_iter().map(|read| read.event).find(|event| event.version == version) {
            None => Ok(None),
            // It moves no money, as events of accounts that are no movements.
            Some(recorded) if EventType::aggregate_of(&recorded.event_type) != Aggregate::BankAccount => {
                Ok(Some(Found { event_id: recorded.id, movement: None, recorded_at: recorded.recorded_at }))
            }
            Some(recorded) => {
                let movement = RecordedMovement::of_event(&self.decode(&recorded)?, version, recorded.id);
                Ok(Some(Found { event_id: recorded.id, movement, recorded_at: recorded.recorded_at }))
            }
        }
    }

    /// The other side of a transfer. Both sides have the same time.
    async fn other_side(
        &self,
        connection: &mut PgConnection,
        transfer: TransferSide,
        recorded_at: DateTime<Utc>,
    ) -> Result<ReversedSide, LookupError> {
        let account_id = transfer.other;
        let partition = self.partitions.partition_of(account_id);
        let reading = reader::stream_events_at(connection, partition, account_id, recorded_at);
        for recorded in with_timeout(STATEMENT_TIMEOUT, reading).await? {
            let event = self.decode(&recorded)?;
            let movement = RecordedMovement::of_event(&event, recorded.version, recorded.id);
            if movement.and_then(transfer_of).is_some_and(|side| side.is_other_of(transfer)) {
                return Ok(ReversedSide { account_id, version: recorded.version, event_id: recorded.id });
            }
        }
        tracing::error!(transfer_id = %transfer.transfer_id, "the other side of a transfer is not in the log");
        Err(LookupError::Unreadable)
    }

    fn decode(&self, recorded: &RecordedEvent) -> Result<Event, LookupError> {
        let RecordedEvent { stream_id, version, .. } = recorded;
        let decoded = Event::decode(&recorded.event_type, recorded.schema_version, &recorded.data);
        self.gate.check(*stream_id, *version, decoded)?.map_err(|error| {
            tracing::error!(%stream_id, version, %error, "movement to reverse cannot be decoded; the command fails");
            LookupError::Unreadable
        })
    }
}

/// Why a movement cannot be read.
#[derive(Debug)]
enum LookupError {
    /// The database fails, or an event is of a newer release.
    Storage(StorageError),
    /// An event cannot be decoded, or the log has only one side of a transfer.
    Unreadable,
}

impl From<StorageError> for LookupError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl From<sqlx::Error> for LookupError {
    fn from(error: sqlx::Error) -> Self {
        Self::Storage(error.into())
    }
}

/// A transfer as one of its sides records it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TransferSide {
    transfer_id: Uuid,
    /// Whether this side sent the money.
    is_sent: bool,
    /// The account of the other side.
    pub other: Uuid,
}

impl TransferSide {
    /// Whether this is the other side of the same transfer.
    pub(super) fn is_other_of(self, side: Self) -> bool {
        (self.transfer_id, self.is_sent) == (side.transfer_id, !side.is_sent)
    }
}

/// The transfer that a movement is a side of.
pub(super) fn transfer_of(movement: RecordedMovement) -> Option<TransferSide> {
    match movement.kind {
        MovementKind::Sent { transfer_id, to } => Some(TransferSide { transfer_id, is_sent: true, other: to }),
        MovementKind::Received { transfer_id, from } => Some(TransferSide { transfer_id, is_sent: false, other: from }),
        MovementKind::Credit | MovementKind::Debit | MovementKind::Reversal => None,
    }
}

/// The command that reverses an event, which is given with its id and the movement that it records. A transfer needs its other side.
pub(super) fn command_of(
    reversal: Reversal,
    event: Option<(Uuid, Option<RecordedMovement>)>,
    other: Option<ReversedSide>,
) -> Command {
    let original = event.and_then(|(_, movement)| movement);
    if let Some(movement) = original
        && let Some((transfer, other)) = transfer_of(movement).zip(other)
    {
        return Command::ReverseTransfer(reverse_transfer(reversal, transfer, movement, other));
    }
    let Reversal { account_id, version, amount, reason } = reversal;
    let event_id = event.map(|(event_id, _)| event_id);
    let command = AccountCommand::Reverse(Reverse { version, event_id, original, reversed: 0, amount, reason });
    Command::Account { account_id, command }
}

fn reverse_transfer(
    reversal: Reversal,
    transfer: TransferSide,
    movement: RecordedMovement,
    other: ReversedSide,
) -> ReverseTransfer {
    let RecordedMovement { version, event_id, amount: original, .. } = movement;
    let Reversal { account_id, amount, reason, .. } = reversal;
    let named = ReversedSide { account_id, version, event_id };
    let (sent, received) = if transfer.is_sent { (named, other) } else { (other, named) };
    let transfer_id = transfer.transfer_id;
    ReverseTransfer { account_id, transfer_id, sent, received, original, reversed: 0, amount, reason }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sqlx::postgres::PgConnectOptions;
    use tokio::{sync::watch, time::timeout};

    use super::*;

    /// A lookup whose database refuses connections.
    fn without_database() -> ReversalLookup {
        let primary = PrimaryConnector::new(vec![PgConnectOptions::new().host("127.0.0.1").port(1)]);
        let gate = UnsupportedEventGate::new(Arc::new(watch::Sender::new(None)), Partitions::ONE);
        ReversalLookup::new(&primary, gate, Partitions::ONE)
    }

    async fn look_up(lookup: &ReversalLookup) -> Error {
        let reversal = Reversal { account_id: Uuid::nil(), version: 1, amount: None, reason: None };
        let looked_up = timeout(Duration::from_secs(60), lookup.command(reversal)).await;
        looked_up.expect("an answer in time").expect_err("no database")
    }

    #[tokio::test]
    async fn full_lookup_is_overloaded_and_not_an_outage() {
        let lookup = without_database();
        let places = lookup.places.acquire_many(LOOKUPS_MAX as u32).await.expect("all places");
        assert_eq!(look_up(&lookup).await, Error::Overloaded);
        drop(places);
        let turns = lookup.turns.acquire_many(LOOKUP_CONNECTIONS_MAX).await.expect("all turns");
        assert_eq!(look_up(&lookup).await, Error::Overloaded);
        drop(turns);
        assert!(matches!(look_up(&lookup).await, Error::StorageUnavailable { .. }));
    }
}
