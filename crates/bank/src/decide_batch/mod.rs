//! Decides the commands of a batch in order, each on the state that the previous command left. Pure: all data is loaded before,
//! and the caller writes the result.

mod append;
mod execution;
mod in_batch_reversal;
mod keyed;
mod savepoint;
#[cfg(test)]
mod tests;
mod unit;

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use self::{
    savepoint::Savepoint,
    unit::{Failed, Unit},
};
use super::{
    account_cache::{CachedAccount, LoadedAccounts, NotLoaded},
    command::{CommandContext, CommandOutcome, Error, Refusal, Refused},
    history::History,
    pending::{CommandInContext, CommandResult, CommandResults, Pending, Work, reverses_unknown_event},
    receipt::RecordedOutcome,
    storage_error::CHANGED_HISTORY,
};
use passbook_domain::{
    Account, Command, Event, Rejection,
    account::STATE_VERSION,
    transfer::{Side, TransferRejection},
};
use passbook_event_store::{
    Partitions, Position, StreamVersion,
    log::{self, Head, Key, KeyId},
};

/// The head of each partition that a batch belongs to.
pub(super) type HeadsByPartition = BTreeMap<i16, Head>;

/// Idempotency keys that are recorded in the log, with the partition that stores them.
pub(super) type RecordedKeys = HashMap<(i16, KeyId), Key>;

/// The data that a batch is decided on.
#[derive(Debug)]
pub(super) struct Basis {
    /// The heads of all partitions that the batch belongs to.
    pub heads: HeadsByPartition,
    /// All accounts that the commands name.
    pub accounts: LoadedAccounts,
    /// The keys of the batch that are known to be recorded.
    pub recorded_keys: RecordedKeys,
    /// Data of earlier events, which the states do not contain.
    pub history: History,
}

/// A decided batch, ready to be written.
#[derive(Debug)]
pub(super) struct Decided {
    /// One append for each partition of [`Basis::heads`]; it may have no events, or neither events nor keys.
    pub appends: BTreeMap<i16, log::Batch>,
    /// The results to return after the commit.
    pub results: CommandResults,
    /// The accounts that the events change.
    pub changed: HashMap<Uuid, CachedAccount>,
}

/// Decides all commands of `batch`. `now` must be later than the time of every head; `snapshot_every` is in versions.
pub(super) fn decide(
    batch: &[Pending],
    basis: &Basis,
    partitions: Partitions,
    now: DateTime<Utc>,
    snapshot_every: i64,
) -> Decided {
    let empty = || log::Batch { recorded_at: now, state_version: STATE_VERSION, ..log::Batch::default() };
    let mut decision = Decision {
        basis,
        partitions,
        now,
        new_outcomes: HashMap::new(),
        changed: HashMap::new(),
        reversals: HashMap::new(),
        appends: basis.heads.keys().map(|partition| (*partition, empty())).collect(),
        savepoint: None,
        keeps_events: commands(batch).any(reverses_unknown_event),
        recorded: HashMap::new(),
    };
    let results = batch.iter().flat_map(|pending| decision.decide(&pending.work)).collect();
    decision.take_snapshots(snapshot_every);
    Decided { appends: decision.appends, results, changed: decision.changed }
}

fn commands(batch: &[Pending]) -> impl Iterator<Item = &Command> {
    batch.iter().flat_map(Pending::commands).map(|command| &command.command)
}

/// The keys of the batches of which all or none is executed, by the partition that stores them.
pub(super) fn keys_of_batches(batch: &[Pending], partitions: Partitions) -> BTreeMap<i16, Vec<KeyId>> {
    let mut keys: BTreeMap<i16, Vec<KeyId>> = BTreeMap::new();
    for pending in batch.iter().filter(|pending| pending.is_keyed_batch()) {
        if let Work::Atomic(batch, _) = &pending.work
            && let Ok(Some((partition, id))) = Unit::batch(batch).key_id(partitions)
        {
            keys.entry(partition).or_default().push(id);
        }
    }
    keys
}

/// The partition that stores the key of a command, and the second partition of a transfer between two.
pub(super) fn partitions_of(command: &Command, partitions: Partitions) -> (i16, Option<i16>) {
    let mut streams = command.accounts().map(|stream_id| partitions.partition_of(stream_id));
    let home = streams.next().unwrap_or_default();
    (home, streams.next().filter(|other| *other != home))
}

struct Decision<'a> {
    basis: &'a Basis,
    partitions: Partitions,
    now: DateTime<Utc>,
    /// The outcomes and fingerprints of the keys that this batch records.
    new_outcomes: HashMap<(i16, KeyId), (RecordedOutcome, [u8; 32])>,
    changed: HashMap<Uuid, CachedAccount>,
    /// The last reversal of each movement that this batch reverses.
    reversals: HashMap<StreamVersion, log::Reversal>,
    appends: BTreeMap<i16, log::Batch>,
    /// What to undo if the current batch is not executed; `None` outside of batches.
    savepoint: Option<Savepoint>,
    /// Whether a command reverses an event that was not in the log. An earlier command may record it.
    keeps_events: bool,
    /// The events of earlier commands, with their ids, if they are kept.
    recorded: HashMap<StreamVersion, (Uuid, Event)>,
}

impl Decision<'_> {
    /// Decides the work of one entry of the queue: one result for each of its responses.
    fn decide(&mut self, work: &Work) -> Vec<CommandResult> {
        match work {
            Work::Command(command, _) => vec![self.decide_unit(Unit::command(command))],
            Work::Atomic(batch, _) => vec![self.decide_unit(Unit::batch(batch))],
            Work::DryRun(commands, _) => self.decide_dry_run(commands),
        }
    }

    /// Decides one unit. A refusal gets the position of the state that it rests on.
    fn decide_unit(&mut self, unit: Unit<'_>) -> CommandResult {
        let (result, replayed) = self.decide_once(unit);
        if unit.is_batch() {
            self.roll_back();
        }
        let Failed { failure, index } = match result {
            Ok(receipt) => return Ok(CommandOutcome { receipt, replayed }),
            Err(failed) => failed,
        };
        match failure {
            Failure::Refused(reason, about) => {
                let judged = unit.up_to(index);
                let refused = judged.last().ok_or(Error::Internal)?;
                let account_id = (reason != Refusal::KeyReused).then(|| about.account_id(&refused.command));
                let position = self.position_of(judged.iter().map(|judged| &judged.command))?;
                Err(Error::Refused(Box::new(Refused { reason, account_id, position, replayed, index })))
            }
            Failure::ChangedHistory => Err(Error::StorageUnavailable { reason: CHANGED_HISTORY }),
            Failure::Internal => Err(Error::Internal),
        }
    }

    /// Decides the commands of a dry run, each on the state that the earlier ones would leave.
    fn decide_dry_run(&mut self, commands: &[CommandInContext]) -> Vec<CommandResult> {
        self.set_savepoint();
        let results = commands.iter().map(|command| self.decide_unit(Unit::command(command))).collect();
        self.roll_back();
        results
    }

    /// The account, if the caller may see it. An account that does not exist passes; the domain rejects the command.
    fn visible_account(&self, account_id: Uuid, context: &CommandContext) -> Result<CachedAccount, Failure> {
        let current = self.account(account_id)?;
        match current.account {
            Account::Opened(_) if !context.can_see(&current.account) => Err(Refusal::NotVisible.into()),
            Account::Opened(_) | Account::Unopened => Ok(current),
        }
    }

    /// The account after the earlier commands of the batch.
    fn account(&self, account_id: Uuid) -> Result<CachedAccount, Failure> {
        if let Some(changed) = self.changed.get(&account_id) {
            return Ok(changed.clone());
        }
        match self.basis.accounts.get(&account_id) {
            Some(Ok(loaded)) => Ok(loaded.clone()),
            Some(Err(NotLoaded::OtherAggregate)) => Ok(CachedAccount::default()),
            Some(Err(NotLoaded::Undecodable | NotLoaded::TooLong)) | None => Err(Failure::Internal),
        }
    }

    /// Whether the stream with this id is one of another aggregate. No account can be opened with it.
    fn is_other_aggregate(&self, stream_id: Uuid) -> bool {
        matches!(self.basis.accounts.get(&stream_id), Some(Err(NotLoaded::OtherAggregate)))
    }

    /// The head of a partition after the events that are decided so far.
    fn position_in(&self, partition: i16) -> Result<Position, Failure> {
        let (head, append) =
            self.basis.heads.get(&partition).zip(self.appends.get(&partition)).ok_or(Failure::Internal)?;
        Ok(self.partitions.position_in(partition, head.position + append.events.len() as i64))
    }

    /// The heads of all partitions of some commands, after the events that are decided so far.
    fn position_of<'c>(&self, commands: impl Iterator<Item = &'c Command>) -> Result<Position, Error> {
        let mut positions = commands
            .flat_map(Command::accounts)
            .map(|account_id| self.position_in(self.partitions.partition_of(account_id)).map_err(|_| Error::Internal));
        let first = positions.next().ok_or(Error::Internal)??;
        positions.try_fold(first, |merged, position| Ok(merged.merge(position?)))
    }

    fn append_to(&mut self, partition: i16) -> Result<&mut log::Batch, Failure> {
        self.appends.get_mut(&partition).ok_or(Failure::Internal)
    }
}

/// The account that a refusal is about.
#[derive(Clone, Copy, Debug)]
enum About {
    /// The account on this side of the command.
    Side(Side),
    /// An account that the command does not name: its batch contains the transfer that it reverses.
    Account(Uuid),
}

impl About {
    fn account_id(self, command: &Command) -> Uuid {
        match self {
            Self::Side(side) => account_at(side, command),
            Self::Account(account_id) => account_id,
        }
    }
}

/// Why a command has no receipt.
#[derive(Clone, Copy, Debug)]
enum Failure {
    Refused(Refusal, About),
    /// The log does not have the events that the command was made from.
    ChangedHistory,
    Internal,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal, About::Side(Side::Sender))
    }
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        Refusal::from(rejection).into()
    }
}

impl From<TransferRejection> for Failure {
    fn from(TransferRejection { rejection, side }: TransferRejection) -> Self {
        Self::Refused(rejection.into(), About::Side(side))
    }
}

/// The account on this side of a command. A command on one account has it on both sides. The account that pays back is the sender.
fn account_at(side: Side, command: &Command) -> Uuid {
    match (command, side) {
        (Command::Account { account_id, .. }, Side::Sender | Side::Receiver) => *account_id,
        (Command::Transfer(transfer), Side::Sender) => transfer.from,
        (Command::Transfer(transfer), Side::Receiver) => transfer.to,
        (Command::CaptureTo(capture), Side::Sender) => capture.from,
        (Command::CaptureTo(capture), Side::Receiver) => capture.to,
        (Command::ReverseTransfer(reverse), Side::Sender) => reverse.received.account_id,
        (Command::ReverseTransfer(reverse), Side::Receiver) => reverse.sent.account_id,
    }
}
