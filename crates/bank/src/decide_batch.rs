//! A batch of commands decided in turn, each on the state left by the one before it. Pure: what it needs was loaded,
//! what it decides is yet to be recorded.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{
    CommandOutcome, Error, Pending,
    account_cache::{CachedAccount, Loaded, Undecodable},
    receipt::{AccountReceipt, Receipt, Counterparty, RecordedFact, TransferReceipt},
    command_context::{AccountAccess, CommandContext},
};
use passbook_domain::{Account, Action, Command, Event, Rejection, Transfer, account::STATE_VERSION, transfer};
use passbook_event_store::{
    NewEvent, Partitions, Position,
    log::{self, Head, Key, KeyId},
};

/// What is decided upon: where each partition that the batch touches ends.
pub(super) type HeadsByPartition = BTreeMap<i16, Head>;

/// The answers that are recorded, by the partition that each key lives in.
pub(super) type RecordedKeys = HashMap<(i16, KeyId), Key>;

/// A decided batch: what to write in each of its partitions, and what to answer once it stands.
#[derive(Debug)]
pub(super) struct Decided {
    pub write: BTreeMap<i16, log::Batch>,
    pub answers: Vec<Result<CommandOutcome, Error>>,
    /// The accounts that the events change.
    pub changed: HashMap<Uuid, CachedAccount>,
}

/// Decides all commands of a batch on top of `heads`, which name every partition that it touches. `recorded` are the keys
/// known to stand in the log.
pub(super) fn decide(
    batch: &[Pending],
    loaded: &Loaded,
    recorded: &RecordedKeys,
    partitions: Partitions,
    heads: &HeadsByPartition,
    now: DateTime<Utc>,
    snapshot_every: i64,
) -> Decided {
    let empty = || log::Batch { recorded_at: now, state_version: STATE_VERSION, ..log::Batch::default() };
    let mut decision = Decision {
        loaded,
        recorded,
        partitions,
        heads,
        now,
        first_answers: HashMap::new(),
        changed: HashMap::new(),
        write: heads.keys().map(|partition| (*partition, empty())).collect(),
    };
    let answers = batch.iter().map(|pending| decision.answer(&pending.command, &pending.context)).collect();
    decision.take_snapshots(snapshot_every);
    Decided { write: decision.write, answers, changed: decision.changed }
}

/// The partition of a command: where its key is kept, and the other one if it is over two.
pub(super) fn partitions_of(command: &Command, partitions: Partitions) -> (i16, Option<i16>) {
    let mut streams = command.accounts().map(|stream_id| partitions.of(stream_id));
    let home = streams.next().unwrap_or_default();
    (home, streams.next().filter(|other| *other != home))
}

struct Decision<'a> {
    loaded: &'a Loaded,
    recorded: &'a RecordedKeys,
    partitions: Partitions,
    heads: &'a HeadsByPartition,
    now: DateTime<Utc>,
    /// What this batch answers to the keys that it records.
    first_answers: HashMap<(i16, KeyId), (Receipt, [u8; 32])>,
    changed: HashMap<Uuid, CachedAccount>,
    write: BTreeMap<i16, log::Batch>,
}

impl Decision<'_> {
    /// A key comes before the state and `If-Match`: a retry is a replay, whatever has become of the account.
    fn answer(&mut self, command: &Command, context: &CommandContext) -> Result<CommandOutcome, Error> {
        let Some((id, key)) = context.key().zip(context.idempotency_key.as_ref()) else {
            let receipt = self.carry_out(command, context)?;
            return Ok(CommandOutcome { receipt: self.told(receipt, command, context)?, replayed: false });
        };
        let (home, _) = partitions_of(command, self.partitions);
        let id = (home, id);
        let recorded = self.recorded.get(&id).map(|first| recorded_receipt(first, &key.fingerprint)).transpose()?;
        if let Some(first) =
            recorded.map_or_else(|| self.first_answer(&id, &key.fingerprint), |first| Ok(Some(first)))?
        {
            return Ok(CommandOutcome { receipt: self.told(first, command, context)?, replayed: true });
        }

        // Asked whatever the decision: a refusal, too, stands only if the key is not recorded.
        self.write_in(home)?.asked.push(id.1.clone());
        let receipt = self.carry_out(command, context)?;
        let json = serde_json::to_string(&receipt).map_err(|_| Error::Internal)?;
        let fingerprint = key.fingerprint.to_vec();
        self.write_in(home)?.keys.push(Key { id: id.1.clone(), fingerprint, receipt: json });
        self.first_answers.insert(id, (receipt.clone(), key.fingerprint));
        Ok(CommandOutcome { receipt: self.told(receipt, command, context)?, replayed: false })
    }

    /// What this batch answered to the same context.
    fn first_answer(&self, id: &(i16, KeyId), fingerprint: &[u8; 32]) -> Result<Option<Receipt>, Error> {
        match self.first_answers.get(id) {
            Some((receipt, first)) if first == fingerprint => Ok(Some(receipt.clone())),
            Some(_) => Err(Error::KeyReused),
            None => Ok(None),
        }
    }

    /// The receipt as the caller may see it today, whatever they could see when it was recorded.
    fn told(&self, receipt: Receipt, command: &Command, context: &CommandContext) -> Result<Receipt, Error> {
        if context.access == AccountAccess::Any {
            return Ok(receipt);
        }
        match command {
            // Only the owner of a new account, or somebody who may open it for others, comes so far.
            Command::Account { action: Action::Open { .. }, .. } => Ok(receipt),
            Command::Account { account_id, .. } => self.seen(*account_id, context).map(|_| receipt),
            Command::Transfer(transfer) => {
                self.seen(transfer.from, context)?;
                let receiver_is_seen = context.can_see(&self.held(transfer.to)?.account);
                Ok(if receiver_is_seen { receipt } else { receipt.without_receiver() })
            }
        }
    }

    /// The account, if the caller may see it. That there is none is judged where it matters.
    fn seen(&self, account_id: Uuid, context: &CommandContext) -> Result<CachedAccount, Error> {
        let held = self.held(account_id)?;
        match held.account {
            Account::Opened(_) if !context.can_see(&held.account) => Err(Error::NotVisible),
            Account::Opened(_) | Account::Unopened => Ok(held),
        }
    }

    fn carry_out(&mut self, command: &Command, context: &CommandContext) -> Result<Receipt, Error> {
        match command {
            Command::Account { account_id, action } => self.act(*account_id, action, context).map(Receipt::Account),
            Command::Transfer(transfer) => {
                self.transfer(transfer, context).map(|receipt| Receipt::Transfer(Box::new(receipt)))
            }
        }
    }

    fn act(&mut self, account_id: Uuid, action: &Action, context: &CommandContext) -> Result<AccountReceipt, Error> {
        let held = match action {
            Action::Open { .. } => self.held(account_id)?,
            Action::Deposit(..)
            | Action::Withdraw(..)
            | Action::Freeze { .. }
            | Action::Unfreeze { .. }
            | Action::Close { .. } => self.seen(account_id, context)?,
        };
        if let Some(condition) = &context.if_match
            && held.version > 0
            && !condition.holds(held.version)
        {
            return Err(Error::VersionMismatch { current: held.version });
        }
        let event = held.account.decide(action)?;
        self.record(account_id, &event, context)
    }

    fn transfer(&mut self, transfer: &Transfer, context: &CommandContext) -> Result<TransferReceipt, Error> {
        let sender = self.seen(transfer.from, context)?;
        let receiver = self.held(transfer.to)?;
        let currency = sender.account.book()?.currency;
        let decide = if context.can_see(&receiver.account) { transfer::decide } else { transfer::decide_unseen };
        let (sent, received) = decide(&sender.account, &receiver.account, transfer)?;
        // Before the first side is put down: there is no half of a transfer.
        self.write_in(self.partitions.of(transfer.to))?;
        let from = self.record(transfer.from, &sent, context)?;
        let to = self.record(transfer.to, &received, context)?;
        Ok(TransferReceipt {
            transfer_id: transfer.transfer_id,
            amount: transfer.movement.amount,
            currency,
            position: from.position.clone().and(to.position.clone()),
            from,
            to: Counterparty::Visible(to),
        })
    }

    fn held(&self, account_id: Uuid) -> Result<CachedAccount, Error> {
        if let Some(held) = self.changed.get(&account_id) {
            return Ok(held.clone());
        }
        match self.loaded.get(&account_id) {
            Some(Ok(held)) => Ok(held.clone()),
            Some(Err(Undecodable)) | None => Err(Error::Internal),
        }
    }

    /// Folds `event` into the account and puts it down to be written, unless this is a dry run.
    fn record(&mut self, account_id: Uuid, event: &Event, context: &CommandContext) -> Result<AccountReceipt, Error> {
        let before = self.held(account_id)?;
        let held = CachedAccount { version: before.version + 1, account: before.account.evolve(event) };
        let mut fact =
            RecordedFact { id: None, event_type: event.name().to_owned(), version: held.version, recorded_at: None };
        let partition = self.partitions.of(account_id);
        if !context.dry_run {
            let id = Uuid::now_v7();
            (fact.id, fact.recorded_at) = (Some(id), Some(self.now));
            let event = NewEvent {
                id,
                stream_id: account_id,
                version: held.version,
                event_type: event.name(),
                schema_version: event.schema_version(),
                data: serde_json::to_string(event).map_err(|_| Error::Internal)?,
                metadata: context.metadata().map_err(|_| Error::Internal)?,
            };
            self.write_in(partition)?.events.push(event);
            self.changed.insert(account_id, held.clone());
        }
        let book = held.account.book().map_err(|_: Rejection| Error::Internal)?;
        Ok(AccountReceipt {
            account_id,
            version: held.version,
            status: book.status,
            balance: book.balance,
            currency: book.currency,
            position: self.position(partition)?,
            events: vec![fact],
        })
    }

    /// Where a partition ends with what was decided so far.
    fn position(&self, partition: i16) -> Result<Position, Error> {
        let (head, write) = self.heads.get(&partition).zip(self.write.get(&partition)).ok_or(Error::Internal)?;
        Ok(self.partitions.position(partition, head.position + write.events.len() as i64))
    }

    /// What is written in a partition. All that the batch touches have their heads.
    fn write_in(&mut self, partition: i16) -> Result<&mut log::Batch, Error> {
        self.write.get_mut(&partition).ok_or(Error::Internal)
    }

    /// A snapshot for each account that passed a multiple of `every` versions.
    fn take_snapshots(&mut self, every: i64) {
        for (stream_id, held) in &self.changed {
            let before = match self.loaded.get(stream_id) {
                Some(Ok(before)) => before.version,
                Some(Err(Undecodable)) | None => 0,
            };
            if before / every < held.version / every
                && let Ok(state) = serde_json::to_string(&held.account)
            {
                let snapshot = log::Snapshot { stream_id: *stream_id, version: held.version, state };
                self.write.entry(self.partitions.of(*stream_id)).or_default().snapshots.push(snapshot);
            }
        }
        // Two writers of the same snapshots take the row locks in the same order.
        for write in self.write.values_mut() {
            write.snapshots.sort_unstable_by_key(|snapshot| snapshot.stream_id);
        }
    }
}

fn recorded_receipt(first: &Key, fingerprint: &[u8; 32]) -> Result<Receipt, Error> {
    if first.fingerprint != fingerprint {
        return Err(Error::KeyReused);
    }
    serde_json::from_str(&first.receipt).map_err(|error| {
        tracing::error!(%error, "a recorded receipt cannot be read");
        Error::Internal
    })
}
