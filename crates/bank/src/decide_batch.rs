//! Decides the commands of a batch in order, each on the state that the previous command left. Pure: all data is loaded before,
//! and the caller writes the result.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{
    account_cache::{CachedAccount, LoadedAccounts},
    command::{AccountAccess, CommandContext, CommandOutcome, CommandResults, Error, PendingCommand, Refusal, Refused},
    receipt::{
        AccountReceipt, Counterparty, Receipt, RecordedFact, RecordedOutcome, RecordedRefusal, RefusedBecause,
        TransferReceipt,
    },
};
use passbook_domain::{
    Account, AccountCommand, Command, Event, Rejection, Transfer,
    account::STATE_VERSION,
    transfer::{self, Side, TransferRejection},
};
use passbook_event_store::{
    NewEvent, Partitions, Position,
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
    batch: &[PendingCommand],
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
        appends: basis.heads.keys().map(|partition| (*partition, empty())).collect(),
    };
    let results = batch.iter().map(|pending| decision.decide(&pending.command, &pending.context)).collect();
    decision.take_snapshots(snapshot_every);
    Decided { appends: decision.appends, results, changed: decision.changed }
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
    appends: BTreeMap<i16, log::Batch>,
}

impl Decision<'_> {
    /// Decides one command. A refusal gets the position of the state that it rests on.
    fn decide(&mut self, command: &Command, context: &CommandContext) -> Result<CommandOutcome, Error> {
        let (result, replayed) = self.decide_once(command, context);
        match result {
            Ok(receipt) => Ok(CommandOutcome { receipt, replayed }),
            Err(Failure::Refused(reason, side)) => {
                let account_id = (reason != Refusal::KeyReused).then(|| account_at(side, command));
                let position = self.position_of(command)?;
                Err(Error::Refused(Box::new(Refused { reason, account_id, position, replayed })))
            }
            Err(Failure::Internal) => Err(Error::Internal),
        }
    }

    /// Decides a command unless its key has an outcome already; the flag is `true` if it has. The key is checked before the state
    /// and `If-Match`: a retry is a replay in every state of the account.
    fn decide_once(&mut self, command: &Command, context: &CommandContext) -> (Result<Receipt, Failure>, bool) {
        let Some((id, key)) = context.key().zip(context.idempotency_key.as_ref()) else {
            let result = self.execute(command, context);
            return (result.and_then(|receipt| self.redact_receipt(receipt, command, context)), false);
        };
        let (home, _) = partitions_of(command, self.partitions);
        let id = (home, id);
        match self.first_outcome(&id, &key.fingerprint) {
            Ok(Some(outcome)) => (self.replay(outcome, command, context), true),
            Ok(None) => (self.execute_once(id, key.fingerprint, command, context), false),
            Err(failure) => (Err(failure), false),
        }
    }

    /// Executes a command and records its outcome, a receipt or a refusal, under its key.
    fn execute_once(
        &mut self,
        id: (i16, KeyId),
        fingerprint: [u8; 32],
        command: &Command,
        context: &CommandContext,
    ) -> Result<Receipt, Failure> {
        let result = self.execute(command, context);
        let outcome = match &result {
            Ok(receipt) => RecordedOutcome::Succeeded(receipt.clone()),
            Err(Failure::Refused(reason, side)) => {
                let refusal = self.recorded_refusal((*reason, *side), command, context);
                RecordedOutcome::Refused(refusal.ok_or(Failure::Internal)?)
            }
            Err(Failure::Internal) => return Err(Failure::Internal),
        };
        let receipt = serde_json::to_string(&outcome).map_err(|_| Failure::Internal)?;
        let append = self.append_to(id.0)?;
        append.keys_to_check.push(id.1.clone());
        append.keys.push(Key { id: id.1.clone(), fingerprint: fingerprint.to_vec(), receipt });
        self.new_outcomes.insert(id, (outcome, fingerprint));
        result.and_then(|receipt| self.redact_receipt(receipt, command, context))
    }

    /// The recorded form of a refusal. `None` for a reused key, which belongs to another request.
    fn recorded_refusal(
        &self,
        (reason, side): (Refusal, Side),
        command: &Command,
        context: &CommandContext,
    ) -> Option<RecordedRefusal> {
        let refused = match reason {
            Refusal::Rejected(rejection) => RefusedBecause::Rejected(rejection),
            Refusal::NotVisible => RefusedBecause::Rejected(Rejection::AccountNotFound),
            Refusal::VersionMismatch { current } => RefusedBecause::VersionMismatch { current },
            Refusal::KeyReused => return None,
        };
        let saw_receiver = match command {
            Command::Account { .. } => false,
            Command::Transfer(transfer) => self.can_see(transfer.to, context).ok()?,
        };
        Some(RecordedRefusal { account_id: account_at(Side::Sender, command), refused, saw_receiver, side })
    }

    /// The outcome under this key, from the log or from an earlier command of the batch.
    fn first_outcome(&self, id: &(i16, KeyId), fingerprint: &[u8; 32]) -> Result<Option<RecordedOutcome>, Failure> {
        if let Some(recorded) = self.basis.recorded_keys.get(id) {
            return recorded_outcome(recorded, fingerprint).map(Some);
        }
        match self.new_outcomes.get(id) {
            Some((outcome, first)) if first == fingerprint => Ok(Some(outcome.clone())),
            Some(_) => Err(Refusal::KeyReused.into()),
            None => Ok(None),
        }
    }

    /// A recorded outcome, as far as the caller may see the accounts now.
    fn replay(
        &self,
        outcome: RecordedOutcome,
        command: &Command,
        context: &CommandContext,
    ) -> Result<Receipt, Failure> {
        let refusal = match outcome {
            RecordedOutcome::Succeeded(receipt) => return self.redact_receipt(receipt, command, context),
            RecordedOutcome::Refused(refusal) => refusal,
        };
        match command {
            // The HTTP layer has checked that the caller may choose the id of an account.
            Command::Account { command: AccountCommand::Open { .. }, .. } => {}
            Command::Account { account_id, .. } => drop(self.visible_account(*account_id, context)?),
            Command::Transfer(transfer) => {
                self.visible_account(transfer.from, context)?;
                if refusal.saw_receiver && !self.can_see(transfer.to, context)? {
                    return Err(Failure::Refused(Rejection::AccountNotFound.into(), Side::Receiver));
                }
            }
        }
        let reason = match refusal.refused {
            RefusedBecause::Rejected(rejection) => Refusal::Rejected(rejection),
            RefusedBecause::VersionMismatch { current } => Refusal::VersionMismatch { current },
        };
        Err(Failure::Refused(reason, refusal.side))
    }

    fn can_see(&self, account_id: Uuid, context: &CommandContext) -> Result<bool, Failure> {
        Ok(context.can_see(&self.account(account_id)?.account))
    }

    /// The receipt as far as the caller may see the accounts now; the caller's access may have changed since the recording.
    fn redact_receipt(
        &self,
        receipt: Receipt,
        command: &Command,
        context: &CommandContext,
    ) -> Result<Receipt, Failure> {
        if context.access == AccountAccess::Any {
            return Ok(receipt);
        }
        match command {
            // The HTTP layer has checked that the caller may open accounts for this owner.
            Command::Account { command: AccountCommand::Open { .. }, .. } => Ok(receipt),
            Command::Account { account_id, .. } => self.visible_account(*account_id, context).map(|_| receipt),
            Command::Transfer(transfer) => {
                self.visible_account(transfer.from, context)?;
                Ok(if self.can_see(transfer.to, context)? { receipt } else { receipt.without_counterparty() })
            }
        }
    }

    /// The account, if the caller may see it. An account that does not exist passes; the domain rejects the command.
    fn visible_account(&self, account_id: Uuid, context: &CommandContext) -> Result<CachedAccount, Failure> {
        let current = self.account(account_id)?;
        match current.account {
            Account::Opened(_) if !context.can_see(&current.account) => Err(Refusal::NotVisible.into()),
            Account::Opened(_) | Account::Unopened => Ok(current),
        }
    }

    fn execute(&mut self, command: &Command, context: &CommandContext) -> Result<Receipt, Failure> {
        match command {
            Command::Account { account_id, command } => {
                self.execute_account_command(*account_id, command, context).map(Receipt::Account)
            }
            Command::Transfer(transfer) => {
                self.execute_transfer(transfer, context).map(|receipt| Receipt::Transfer(Box::new(receipt)))
            }
        }
    }

    fn execute_account_command(
        &mut self,
        account_id: Uuid,
        command: &AccountCommand,
        context: &CommandContext,
    ) -> Result<AccountReceipt, Failure> {
        let current = match command {
            AccountCommand::Open { .. } => self.account(account_id)?,
            AccountCommand::Deposit(..)
            | AccountCommand::Withdraw(..)
            | AccountCommand::Freeze { .. }
            | AccountCommand::Unfreeze { .. }
            | AccountCommand::Close { .. } => self.visible_account(account_id, context)?,
        };
        if let Some(condition) = &context.if_match
            && current.version > 0
            && !condition.holds(current.version)
        {
            return Err(Refusal::VersionMismatch { current: current.version }.into());
        }
        let event = current.account.decide(command)?;
        self.record(account_id, &event, context)
    }

    fn execute_transfer(&mut self, transfer: &Transfer, context: &CommandContext) -> Result<TransferReceipt, Failure> {
        let sender = self.visible_account(transfer.from, context)?;
        let receiver = self.account(transfer.to)?;
        let currency = sender.account.opened()?.currency;
        let decide =
            if context.can_see(&receiver.account) { transfer::decide } else { transfer::decide_hidden_receiver };
        let (sent, received) = decide(&sender.account, &receiver.account, transfer)?;
        // Fail before the first side is recorded, so that a batch never contains half a transfer.
        self.append_to(self.partitions.partition_of(transfer.to))?;
        let from = self.record(transfer.from, &sent, context)?;
        let to = self.record(transfer.to, &received, context)?;
        Ok(TransferReceipt {
            transfer_id: transfer.transfer_id,
            amount: transfer.movement.amount,
            currency,
            position: from.position.clone().merge(to.position.clone()),
            from,
            to: Counterparty::Visible(to),
        })
    }

    /// The account after the earlier commands of the batch.
    fn account(&self, account_id: Uuid) -> Result<CachedAccount, Failure> {
        if let Some(changed) = self.changed.get(&account_id) {
            return Ok(changed.clone());
        }
        match self.basis.accounts.get(&account_id) {
            Some(Ok(loaded)) => Ok(loaded.clone()),
            Some(Err(_)) | None => Err(Failure::Internal),
        }
    }

    /// Folds `event` into the account, and adds it to the append unless this is a dry run.
    fn record(&mut self, account_id: Uuid, event: &Event, context: &CommandContext) -> Result<AccountReceipt, Failure> {
        let before = self.account(account_id)?;
        let after = CachedAccount { version: before.version + 1, account: before.account.evolve(event) };
        let mut fact =
            RecordedFact { id: None, event_type: event.name().to_owned(), version: after.version, recorded_at: None };
        let partition = self.partitions.partition_of(account_id);
        if !context.dry_run {
            let id = Uuid::now_v7();
            (fact.id, fact.recorded_at) = (Some(id), Some(self.now));
            let event = NewEvent {
                id,
                stream_id: account_id,
                version: after.version,
                event_type: event.name(),
                schema_version: event.schema_version(),
                data: serde_json::to_string(event).map_err(|_| Failure::Internal)?,
                metadata: context.metadata().map_err(|_| Failure::Internal)?,
            };
            self.append_to(partition)?.events.push(event);
            self.changed.insert(account_id, after.clone());
        }
        let account = after.account.opened().map_err(|_: Rejection| Failure::Internal)?;
        Ok(AccountReceipt {
            account_id,
            version: after.version,
            status: account.status,
            balance: account.balance,
            currency: account.currency,
            position: self.position_in(partition)?,
            events: vec![fact],
        })
    }

    /// The head of a partition after the events that are decided so far.
    fn position_in(&self, partition: i16) -> Result<Position, Failure> {
        let (head, append) =
            self.basis.heads.get(&partition).zip(self.appends.get(&partition)).ok_or(Failure::Internal)?;
        Ok(self.partitions.position_in(partition, head.position + append.events.len() as i64))
    }

    /// The heads of all partitions of a command, after the events that are decided so far.
    fn position_of(&self, command: &Command) -> Result<Position, Error> {
        let mut positions = command
            .accounts()
            .map(|account_id| self.position_in(self.partitions.partition_of(account_id)).map_err(|_| Error::Internal));
        let first = positions.next().ok_or(Error::Internal)??;
        positions.try_fold(first, |merged, position| Ok(merged.merge(position?)))
    }

    fn append_to(&mut self, partition: i16) -> Result<&mut log::Batch, Failure> {
        self.appends.get_mut(&partition).ok_or(Failure::Internal)
    }

    /// Adds a snapshot of each account that passed a multiple of `every` versions.
    fn take_snapshots(&mut self, every: i64) {
        for (stream_id, changed) in &self.changed {
            let version_before = match self.basis.accounts.get(stream_id) {
                Some(Ok(loaded)) => loaded.version,
                Some(Err(_)) | None => 0,
            };
            if version_before / every < changed.version / every
                && let Ok(state) = serde_json::to_string(&changed.account)
                && let Some(append) = self.appends.get_mut(&self.partitions.partition_of(*stream_id))
            {
                append.snapshots.push(log::Snapshot { stream_id: *stream_id, version: changed.version, state });
            }
        }
        // Two instances that write the same snapshots lock the rows in the same order.
        for append in self.appends.values_mut() {
            append.snapshots.sort_unstable_by_key(|snapshot| snapshot.stream_id);
        }
    }
}

/// Why a command has no receipt.
#[derive(Clone, Copy, Debug)]
enum Failure {
    /// With the account that the reason is about.
    Refused(Refusal, Side),
    Internal,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal, Side::Sender)
    }
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        Refusal::from(rejection).into()
    }
}

impl From<TransferRejection> for Failure {
    fn from(TransferRejection { rejection, side }: TransferRejection) -> Self {
        Self::Refused(rejection.into(), side)
    }
}

/// The account on this side of a command. A command on one account has it on both sides.
fn account_at(side: Side, command: &Command) -> Uuid {
    match (command, side) {
        (Command::Account { account_id, .. }, Side::Sender | Side::Receiver) => *account_id,
        (Command::Transfer(transfer), Side::Sender) => transfer.from,
        (Command::Transfer(transfer), Side::Receiver) => transfer.to,
    }
}

fn recorded_outcome(recorded: &Key, fingerprint: &[u8; 32]) -> Result<RecordedOutcome, Failure> {
    if recorded.fingerprint != fingerprint {
        return Err(Refusal::KeyReused.into());
    }
    serde_json::from_str(&recorded.receipt).map_err(|error| {
        tracing::error!(%error, "recorded outcome cannot be parsed; the command fails");
        Failure::Internal
    })
}
