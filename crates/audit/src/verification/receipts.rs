//! Compares the receipt of every idempotency key with the fold of the log at the positions of its events. A retry of a command returns
//! the stored receipt, so it must be what the events say. A recorded refusal rests on no event; only its form and partition can be
//! checked. Keys are read in the order of their times, which is that of the log.

use std::{
    collections::{HashMap, VecDeque},
    hash::RandomState,
    sync::Arc,
};

use chrono::{DateTime, Utc};
use futures_util::{TryStreamExt, stream::BoxStream};
use uuid::Uuid;

use super::{
    checked_events::CheckedEvent,
    claims::{Claim, batch_id, claims_of, event_count},
    log_fold::LogFold,
    report::{Error, Finding},
};
use passbook_bank::{ATOMIC_COMMANDS_MAX, Receipt, RecordedOutcome, RecordedRefusal};
use passbook_event_store::{RecordedEvent, scan::RecordedKey};

/// More keys than one batch can record. They would have to be kept in memory at once.
const KEYS_OF_BATCH_MAX: usize = 10_000;
/// More claims than the receipts of one batch can have.
const CLAIMS_OF_BATCH_MAX: usize = 20_000;

/// The keys of a partition that are not compared yet.
pub(super) struct Receipts<'a> {
    stream: BoxStream<'a, sqlx::Result<RecordedKey>>,
    next: Option<RecordedKey>,
    is_started: bool,
    hasher: RandomState,
    /// The claims of the keys of the current batch about later events of this partition, in the order of their positions.
    due: VecDeque<(Claim, Arc<KeyName>)>,
    /// How many events the receipts of client batches name, and how many have the id of the batch.
    batches: HashMap<Uuid, (u32, u32, Arc<KeyName>)>,
    /// A key of the current batch that contains the position of the batch's last event.
    positioned: Option<(i64, String)>,
    /// The position and the time of the event before the current one.
    last: Option<(i64, DateTime<Utc>)>,
    compared: u64,
}

/// A key and its caller, for a finding.
struct KeyName {
    caller: String,
    key: String,
}

impl<'a> Receipts<'a> {
    pub(super) fn new(stream: BoxStream<'a, sqlx::Result<RecordedKey>>) -> Self {
        Self {
            stream,
            next: None,
            is_started: false,
            hasher: RandomState::new(),
            due: VecDeque::new(),
            batches: HashMap::new(),
            positioned: None,
            last: None,
            compared: 0,
        }
    }

    /// Compares the claims about an event.
    pub(super) async fn compare(&mut self, fold: &LogFold, checked: &CheckedEvent) -> Result<(), Error> {
        let event = checked.recorded();
        if self.last.is_none_or(|(_, recorded_at)| recorded_at != event.recorded_at) {
            self.finish_batch(fold)?;
            self.read_keys_before(fold, Some(event.recorded_at)).await?;
            self.read_batch(fold, event).await?;
        }
        self.last = Some((event.position, event.recorded_at));
        if !self.batches.is_empty()
            && let Some((_, found, _)) = batch_id(&checked.metadata).and_then(|id| self.batches.get_mut(&id))
        {
            *found += 1;
        }
        while let Some((claim, key)) = self.due.pop_front_if(|(claim, _)| claim.position <= event.position) {
            if claim.position != event.position {
                return Err(mismatch(fold, event.position, &key).into());
            }
            if !claim.matches(&self.hasher, fold, checked) {
                return Err(mismatch(fold, claim.command_position(), &key).into());
            }
        }
        Ok(())
    }

    /// The number of compared receipts. Fails if a receipt has a position beyond the log.
    pub(super) async fn finish(mut self, fold: &LogFold) -> Result<u64, Error> {
        if let Some((claim, name)) = self.due.pop_front() {
            let KeyName { caller, key } = &*name;
            let message = format!("the receipt of key {key:?} of caller {caller:?} names an event that does not exist");
            return Err(fold.finding(claim.position, message).into());
        }
        self.finish_batch(fold)?;
        self.read_keys_before(fold, None).await?;
        Ok(self.compared)
    }

    /// Checks that no claim of the batch is left, that receipts of client batches name all their events, and that the keys contain
    /// the position of the batch's last event.
    fn finish_batch(&mut self, fold: &LogFold) -> Result<(), Finding> {
        let last = self.last_position();
        if let Some((_, key)) = self.due.pop_front() {
            return Err(mismatch(fold, last, &key));
        }
        for (_, (named, found, key)) in self.batches.drain() {
            if named != found {
                return Err(mismatch(fold, last, &key));
            }
        }
        match self.positioned.take() {
            Some((position, key)) if position != last => Err(wrong_position(fold, last, &key)),
            Some(_) | None => Ok(()),
        }
    }

    /// Reads the keys that were recorded before `time`, without events of this partition: refusals, and keys of openings whose
    /// accounts are in other partitions.
    async fn read_keys_before(&mut self, fold: &LogFold, time: Option<DateTime<Utc>>) -> Result<(), Error> {
        let last = self.last_position();
        while let Some(key) = self.next_key_if(|key| time.is_none_or(|time| key.recorded_at < time)).await? {
            if !claims_here(&self.hasher, fold, &key).is_some_and(|here| here.claims.is_empty()) {
                return Err(mismatch(fold, last, &key.into()).into());
            }
            if key.position.is_some_and(|position| position != last) {
                return Err(wrong_position(fold, last, &key.key).into());
            }
        }
        Ok(())
    }

    /// Reads the keys of the batch that begins with `event`.
    async fn read_batch(&mut self, fold: &LogFold, event: &RecordedEvent) -> Result<(), Error> {
        let (mut keys, mut due) = (0, Vec::new());
        while let Some(key) = self.next_key_if(|key| key.recorded_at == event.recorded_at).await? {
            match (key.position, &self.positioned) {
                (Some(position), Some((other, _))) if position != *other => {
                    return Err(wrong_position(fold, event.position, &key.key).into());
                }
                (Some(position), _) => self.positioned = Some((position, key.key.clone())),
                (None, _) => {}
            }
            let here = claims_here(&self.hasher, fold, &key);
            let key = Arc::new(KeyName::from(key));
            let Some(here) = here else { return Err(mismatch(fold, event.position, &key).into()) };
            self.compared += u64::from(!here.claims.is_empty());
            if let Some(batch_id) = here.batch_id {
                self.batches.insert(batch_id, (event_count(&here.claims), 0, Arc::clone(&key)));
            }
            due.extend(here.claims.into_iter().map(|claim| (claim, Arc::clone(&key))));
            keys += 1;
            if keys > KEYS_OF_BATCH_MAX || due.len() > CLAIMS_OF_BATCH_MAX {
                let message = "the idempotency keys with the time of this event are more than one batch can record";
                return Err(fold.finding(event.position, message.to_owned()).into());
            }
        }
        due.sort_by_key(|(claim, _)| claim.position);
        self.due = due.into();
        Ok(())
    }

    async fn next_key_if(&mut self, wanted: impl Fn(&RecordedKey) -> bool) -> sqlx::Result<Option<RecordedKey>> {
        if !std::mem::replace(&mut self.is_started, true) {
            self.next = self.stream.try_next().await?;
        }
        let key = self.next.take_if(|key| wanted(key));
        if key.is_some() {
            self.next = self.stream.try_next().await?;
        }
        Ok(key)
    }

    /// The position of the last event before the current one; 0 if there is none.
    fn last_position(&self) -> i64 {
        self.last.map_or(0, |(position, _)| position)
    }
}

/// What a key says about this partition.
struct ClaimsHere {
    /// Empty for a refusal, and for a key that `passbook copy` has moved to the partition in which the service looks for it.
    claims: Vec<Claim>,
    /// The id of the client's batch, if the key is that of one.
    batch_id: Option<Uuid>,
}

/// What a key of this partition says about it. `None` if the service does not record such a key here.
fn claims_here(hasher: &RandomState, fold: &LogFold, key: &RecordedKey) -> Option<ClaimsHere> {
    let receipt = match serde_json::from_str(&key.receipt).ok()? {
        RecordedOutcome::Refused(refusal) => {
            let nothing = ClaimsHere { claims: Vec::new(), batch_id: None };
            return is_refused_here(fold, key, &refusal).then_some(nothing);
        }
        RecordedOutcome::Succeeded(receipt) => receipt,
    };
    let (_, mut claims) = claims_of(hasher, &key.receipt)?;
    claims.retain(|claim| claim.partition == fold.partition());
    let batch_id = match &receipt {
        Receipt::Batch(batch) => Some(batch.batch_id),
        Receipt::Account(_) | Receipt::Transfer(_) => None,
    };
    let is_here = fold.partitions().covers(&receipt.position()) && is_stored_here(fold, key, &receipt);
    is_here.then_some(ClaimsHere { claims, batch_id })
}

/// Whether this partition stores the key of a command or batch with this receipt: that of the account which the first command names.
fn is_stored_here(fold: &LogFold, key: &RecordedKey, receipt: &Receipt) -> bool {
    let is_here = |account: &passbook_bank::AccountReceipt| account.position.in_partition(fold.partition()) > 0;
    match receipt {
        // `passbook copy` moves the key of an opening. `ForeignReceipts` compares the receipt where its event is.
        Receipt::Account(account) => is_here(account) || (account.version == 1 && is_partition_of_key(fold, key)),
        // The key of a reversal is stored with the account that the request named: either side of the transfer.
        Receipt::Transfer(transfer) => {
            let receiver = transfer.account(transfer.to.account_id());
            is_here(&transfer.from) || (transfer.is_reversal() && receiver.is_some_and(is_here))
        }
        Receipt::Batch(batch) => batch.results.first().is_some_and(|first| is_stored_here(fold, key, first)),
    }
}

/// Whether this partition stores the key of a refusal. `passbook copy` moves that of a batch, whose first command may be an opening.
fn is_refused_here(fold: &LogFold, key: &RecordedKey, refusal: &RecordedRefusal) -> bool {
    let is_here = fold.partitions().partition_of(refusal.account_id) == fold.partition();
    match refusal.index {
        Some(index) => index < ATOMIC_COMMANDS_MAX && (is_here || is_partition_of_key(fold, key)),
        None => is_here,
    }
}

fn is_partition_of_key(fold: &LogFold, key: &RecordedKey) -> bool {
    fold.partitions().partition_of_key(&key.caller, &key.key) == fold.partition()
}

fn mismatch(fold: &LogFold, position: i64, KeyName { caller, key }: &KeyName) -> Finding {
    fold.finding(position, format!("the receipt of key {key:?} of caller {caller:?} does not match its events"))
}

fn wrong_position(fold: &LogFold, position: i64, key: &str) -> Finding {
    fold.finding(position, format!("the position of key {key:?} is not that of the log at the key's time"))
}

impl From<RecordedKey> for KeyName {
    fn from(RecordedKey { caller, key, .. }: RecordedKey) -> Self {
        Self { caller, key }
    }
}
