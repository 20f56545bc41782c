//! Decides the commands of a batch in order, each on the state that the previous command left. Pure: all data is loaded before,
//! and the caller writes the result.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{
    account_cache::{CachedAccount, LoadedAccounts, Undecodable},
    command::{AccountAccess, CommandContext, CommandOutcome, CommandResults, Error, PendingCommand},
    receipt::{AccountReceipt, Counterparty, Receipt, RecordedFact, TransferReceipt},
};
use passbook_domain::{Account, AccountCommand, Command, Event, Rejection, Transfer, account::STATE_VERSION, transfer};
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
    /// One append for each partition of [`Basis::heads`]; it may have no events.
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
        new_receipts: HashMap::new(),
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
    /// The receipts and fingerprints of the keys that this batch records.
    new_receipts: HashMap<(i16, KeyId), (Receipt, [u8; 32])>,
    changed: HashMap<Uuid, CachedAccount>,
    appends: BTreeMap<i16, log::Batch>,
}

impl Decision<'_> {
    /// The key is checked before the state and `If-Match`: a retry is a replay in every state of the account.
    fn decide(&mut self, command: &Command, context: &CommandContext) -> Result<CommandOutcome, Error> {
        let Some((id, key)) = context.key().zip(context.idempotency_key.as_ref()) else {
            let receipt = self.execute(command, context)?;
            return Ok(CommandOutcome { receipt: self.redact_receipt(receipt, command, context)?, replayed: false });
        };
        let (home, _) = partitions_of(command, self.partitions);
        let id = (home, id);
        if let Some(receipt) = self.first_receipt(&id, &key.fingerprint)? {
            return Ok(CommandOutcome { receipt: self.redact_receipt(receipt, command, context)?, replayed: true });
        }

        // The append checks the key of every command: a rejection, too, is valid only if the key is not recorded.
        self.append_to(home)?.keys_to_check.push(id.1.clone());
        let receipt = self.execute(command, context)?;
        let json = serde_json::to_string(&receipt).map_err(|_| Error::Internal)?;
        let fingerprint = key.fingerprint.to_vec();
        self.append_to(home)?.keys.push(Key { id: id.1.clone(), fingerprint, receipt: json });
        self.new_receipts.insert(id, (receipt.clone(), key.fingerprint));
        Ok(CommandOutcome { receipt: self.redact_receipt(receipt, command, context)?, replayed: false })
    }

    /// The receipt under this key, from the log or from an earlier command of the batch.
    fn first_receipt(&self, id: &(i16, KeyId), fingerprint: &[u8; 32]) -> Result<Option<Receipt>, Error> {
        if let Some(recorded) = self.basis.recorded_keys.get(id) {
            return recorded_receipt(recorded, fingerprint).map(Some);
        }
        match self.new_receipts.get(id) {
            Some((receipt, first)) if first == fingerprint => Ok(Some(receipt.clone())),
            Some(_) => Err(Error::KeyReused),
            None => Ok(None),
        }
    }

    /// The receipt as far as the caller may see the accounts now; the caller's access may have changed since the recording.
    fn redact_receipt(&self, receipt: Receipt, command: &Command, context: &CommandContext) -> Result<Receipt, Error> {
        if context.access == AccountAccess::Any {
            return Ok(receipt);
        }
        match command {
            // The HTTP layer has checked that the caller may open accounts for this owner.
            Command::Account { command: AccountCommand::Open { .. }, .. } => Ok(receipt),
            Command::Account { account_id, .. } => self.visible_account(*account_id, context).map(|_| receipt),
            Command::Transfer(transfer) => {
                self.visible_account(transfer.from, context)?;
                let can_see_receiver = context.can_see(&self.account(transfer.to)?.account);
                Ok(if can_see_receiver { receipt } else { receipt.without_counterparty() })
            }
        }
    }

    /// The account, if the caller may see it. An account that does not exist passes; the domain rejects the command.
    fn visible_account(&self, account_id: Uuid, context: &CommandContext) -> Result<CachedAccount, Error> {
        let current = self.account(account_id)?;
        match current.account {
            Account::Opened(_) if !context.can_see(&current.account) => Err(Error::NotVisible),
            Account::Opened(_) | Account::Unopened => Ok(current),
        }
    }

    fn execute(&mut self, command: &Command, context: &CommandContext) -> Result<Receipt, Error> {
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
    ) -> Result<AccountReceipt, Error> {
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
            return Err(Error::VersionMismatch { current: current.version });
        }
        let event = current.account.decide(command)?;
        self.record(account_id, &event, context)
    }

    fn execute_transfer(&mut self, transfer: &Transfer, context: &CommandContext) -> Result<TransferReceipt, Error> {
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
    fn account(&self, account_id: Uuid) -> Result<CachedAccount, Error> {
        if let Some(changed) = self.changed.get(&account_id) {
            return Ok(changed.clone());
        }
        match self.basis.accounts.get(&account_id) {
            Some(Ok(loaded)) => Ok(loaded.clone()),
            Some(Err(Undecodable)) | None => Err(Error::Internal),
        }
    }

    /// Folds `event` into the account, and adds it to the append unless this is a dry run.
    fn record(&mut self, account_id: Uuid, event: &Event, context: &CommandContext) -> Result<AccountReceipt, Error> {
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
                data: serde_json::to_string(event).map_err(|_| Error::Internal)?,
                metadata: context.metadata().map_err(|_| Error::Internal)?,
            };
            self.append_to(partition)?.events.push(event);
            self.changed.insert(account_id, after.clone());
        }
        let account = after.account.opened().map_err(|_: Rejection| Error::Internal)?;
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
    fn position_in(&self, partition: i16) -> Result<Position, Error> {
        let (head, append) =
            self.basis.heads.get(&partition).zip(self.appends.get(&partition)).ok_or(Error::Internal)?;
        Ok(self.partitions.position_in(partition, head.position + append.events.len() as i64))
    }

    fn append_to(&mut self, partition: i16) -> Result<&mut log::Batch, Error> {
        self.appends.get_mut(&partition).ok_or(Error::Internal)
    }

    /// Adds a snapshot of each account that passed a multiple of `every` versions.
    fn take_snapshots(&mut self, every: i64) {
        for (stream_id, changed) in &self.changed {
            let version_before = match self.basis.accounts.get(stream_id) {
                Some(Ok(loaded)) => loaded.version,
                Some(Err(Undecodable)) | None => 0,
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

fn recorded_receipt(recorded: &Key, fingerprint: &[u8; 32]) -> Result<Receipt, Error> {
    if recorded.fingerprint != fingerprint {
        return Err(Error::KeyReused);
    }
    serde_json::from_str(&recorded.receipt).map_err(|error| {
        tracing::error!(%error, "recorded receipt cannot be parsed; the command fails");
        Error::Internal
    })
}
