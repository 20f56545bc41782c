//! The data of earlier events that a batch needs and that the states of its accounts do not contain: which holds were placed, which
//! event a reversal names, and how much of a movement is reversed.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    account_cache::LoadedAccounts,
    pending::Pending,
    storage_error::{STATEMENT_TIMEOUT, StorageError},
};
use passbook_domain::{
    AccountCommand, Command, EventType,
    command::{CaptureHold, ReversedSide},
    holds::hold_version,
};
use passbook_event_store::{
    Partitions, StreamVersion, log,
    reversals::{self, Movement},
    stream::{Member, find_member},
    with_timeout,
};

/// Where the log records the id of a hold.
const HOLD_ID: Member<'static> = Member { event_type: EventType::HoldPlaced.name(), name: "hold_id" };

/// Data of earlier events. It is read on the connection that appends, together with the states of the accounts: on the optimistic
/// path the append fails if the log has changed since, and on the locked path nothing changes.
#[derive(Debug, Default)]
pub(super) struct History {
    /// The holds of the batch that were placed on their account, as account and hold.
    placed: HashSet<(Uuid, Uuid)>,
    /// The events that the batch reverses, each with its last reversal.
    movements: HashMap<StreamVersion, Movement>,
}

impl History {
    /// Reads what the commands of a batch need. Most batches need nothing, and no statement is sent.
    ///
    /// # Errors
    /// The database fails.
    pub(super) async fn load(
        connection: &mut PgConnection,
        partitions: Partitions,
        batch: &[Pending],
        accounts: &LoadedAccounts,
    ) -> Result<Self, StorageError> {
        let mut history = Self::default();
        let mut movements: BTreeMap<i16, BTreeSet<StreamVersion>> = BTreeMap::new();
        let mut missing: BTreeMap<i16, BTreeSet<StreamVersion>> = BTreeMap::new();
        for command in batch.iter().flat_map(Pending::commands).map(|command| &command.command) {
            for (event, _) in reversed_events(command).into_iter().flatten() {
                movements.entry(partitions.partition_of(event.stream_id)).or_default().insert(event);
            }
            if let Some((account_id, hold_id)) = captured_or_voided_hold(command)
                && let Some(Ok(loaded)) = accounts.get(&account_id)
                && let Ok(account) = loaded.account.opened()
            {
                if account.holds.get(hold_id).is_some() {
                    history.placed.insert((account_id, hold_id));
                } else if let Some(version) = hold_version(hold_id).filter(|version| *version <= loaded.version) {
                    let event = StreamVersion { stream_id: account_id, version };
                    missing.entry(partitions.partition_of(account_id)).or_default().insert(event);
                }
            }
        }
        for (partition, events) in missing {
            let events: Vec<StreamVersion> = events.into_iter().collect();
            let finding = find_member(connection, partition, &events, HOLD_ID);
            let found = with_timeout(STATEMENT_TIMEOUT, finding).await?;
            history
                .placed
                .extend(found.into_iter().filter_map(|(event, id)| Some((event.stream_id, id.parse().ok()?))));
        }
        for (partition, movements) in movements {
            let movements: Vec<StreamVersion> = movements.into_iter().collect();
            let reading = reversals::movements(connection, partition, &movements);
            let found = with_timeout(STATEMENT_TIMEOUT, reading).await?;
            history.movements.extend(found.into_iter().map(|movement| (movement.event, movement)));
        }
        Ok(history)
    }

    /// The history of a log in memory.
    #[cfg(test)]
    pub(super) fn of_test(placed: HashSet<(Uuid, Uuid)>, movements: HashMap<StreamVersion, Movement>) -> Self {
        Self { placed, movements }
    }

    /// Whether the account ever placed the hold.
    pub(super) fn was_placed(&self, account_id: Uuid, hold_id: Uuid) -> bool {
        self.placed.contains(&(account_id, hold_id))
    }

    /// The last reversal of a movement before the batch.
    pub(super) fn last_reversal(&self, movement: StreamVersion) -> Option<log::Reversal> {
        self.movements.get(&movement)?.last
    }

    /// Whether the log has the events that the command reverses, as they were read on another connection before. After a failover
    /// that connection may still lead to the former primary, whose log can have other events.
    pub(super) fn confirms(&self, command: &Command) -> bool {
        let mut reversed = reversed_events(command).into_iter().flatten();
        reversed.all(|(event, id)| self.movements.get(&event).and_then(|movement| movement.event_id) == id)
    }
}

/// The account and the hold that a command captures or voids.
pub(super) fn captured_or_voided_hold(command: &Command) -> Option<(Uuid, Uuid)> {
    match command {
        Command::Account { account_id, command } => match command {
            AccountCommand::CaptureHold(CaptureHold { hold_id, .. }) | AccountCommand::VoidHold { hold_id, .. } => {
                Some((*account_id, *hold_id))
            }
            AccountCommand::Open { .. }
            | AccountCommand::Deposit(..)
            | AccountCommand::Withdraw(..)
            | AccountCommand::PlaceHold(_)
            | AccountCommand::ReleaseExpired { .. }
            | AccountCommand::Reverse(_)
            | AccountCommand::SetLimits(_)
            | AccountCommand::Freeze { .. }
            | AccountCommand::Unfreeze { .. }
            | AccountCommand::Close { .. } => None,
        },
        Command::CaptureTo(capture) => Some((capture.from, capture.capture.hold_id)),
        Command::Transfer(_) | Command::ReverseTransfer(_) => None,
    }
}

/// The events that a command reverses, each with the id that was read before; `None` if there was no event. First comes the event
/// against which reversals are counted: for a transfer the side of the sender.
pub(super) fn reversed_events(command: &Command) -> [Option<(StreamVersion, Option<Uuid>)>; 2] {
    match command {
        Command::Account { account_id, command: AccountCommand::Reverse(reverse) } => {
            let event = StreamVersion { stream_id: *account_id, version: reverse.version };
            [Some((event, reverse.event_id)), None]
        }
        Command::ReverseTransfer(reverse) => [reverse.counted_side(), reverse.received].map(|side| {
            let ReversedSide { account_id, version, event_id } = side;
            Some((StreamVersion { stream_id: account_id, version }, Some(event_id)))
        }),
        Command::Account { .. } | Command::Transfer(_) | Command::CaptureTo(_) => [None, None],
    }
}

/// The movement that a command reverses, as its reversals are counted.
pub(super) fn reversed_movement(command: &Command) -> Option<StreamVersion> {
    let [counted, _] = reversed_events(command);
    counted.map(|(movement, _)| movement)
}
