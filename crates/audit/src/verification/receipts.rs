//! Compares the receipt of every idempotency key with the fold of the log at the receipt's position. A retry of a command returns
//! the stored receipt, so it must be what the events say. A recorded refusal rests on no event; only its form and partition can be
//! checked. Keys are read in the order of their times, which is that of the log.

use std::collections::VecDeque;

use chrono::{DateTime, Utc};
use futures_util::{TryStreamExt, stream::BoxStream};

use super::{
    log_fold::LogFold,
    report::{Error, Finding},
};
use passbook_bank::{
    AccountReceipt, Counterparty, HoldReceipt, Receipt, RecordedFact, RecordedOutcome, TransferReceipt,
};
use passbook_domain::{Event, EventType, holds::ACTIVE_HOLDS_MAX, reversal::Effect};
use passbook_event_store::{Position, RecordedEvent, scan::RecordedKey};

/// More keys than one batch can record. They would have to be kept in memory at once.
const KEYS_OF_BATCH_MAX: usize = 10_000;

/// How many events one command records at most: the expiries of all its holds, and one more.
const COMMAND_EVENTS_MAX: usize = ACTIVE_HOLDS_MAX + 1;

/// The keys of a partition that are not compared yet.
pub(super) struct Receipts<'a> {
    stream: BoxStream<'a, sqlx::Result<RecordedKey>>,
    next: Option<RecordedKey>,
    is_started: bool,
    /// The keys of the current batch whose receipts have a later position in this partition, in the order of these positions.
    due: VecDeque<(i64, RecordedKey)>,
    /// A key of the current batch that contains the position of the batch's last event.
    positioned: Option<(i64, String)>,
    /// The last events before the current one, oldest first: earlier events of the same command.
    recent: VecDeque<FoldedEvent>,
    compared: u64,
}

/// An event, and the hold that it placed, captured or voided.
pub(super) struct FoldedEvent {
    pub(super) event: RecordedEvent,
    pub(super) hold: Option<HoldReceipt>,
}

impl<'a> Receipts<'a> {
    pub(super) fn new(stream: BoxStream<'a, sqlx::Result<RecordedKey>>) -> Self {
        let due = VecDeque::new();
        Self { stream, next: None, is_started: false, due, positioned: None, recent: VecDeque::new(), compared: 0 }
    }

    /// Compares the receipts at the position of `event`, which is the last event of their commands.
    pub(super) async fn compare(&mut self, fold: &LogFold, event: &RecordedEvent) -> Result<(), Error> {
        if self.recent.back().is_none_or(|previous| previous.event.recorded_at != event.recorded_at) {
            self.finish_batch(fold)?;
            self.read_keys_before(fold, Some(event.recorded_at)).await?;
            self.read_batch(fold, event).await?;
        }
        while let Some((position, key)) = self.due.pop_front_if(|(position, _)| *position <= event.position) {
            if position != event.position || !self.matches(fold, event, &key) {
                return Err(mismatch(fold, event.position, &key).into());
            }
            self.compared += 1;
        }
        Ok(())
    }

    /// Stores `event` as the event before the next one.
    pub(super) fn advance(&mut self, event: FoldedEvent) {
        if self.recent.len() == COMMAND_EVENTS_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(event);
    }

    /// The number of compared receipts. Fails if a receipt has a position beyond the log.
    pub(super) async fn finish(mut self, fold: &LogFold) -> Result<u64, Error> {
        if let Some((position, RecordedKey { caller, key, .. })) = self.due.pop_front() {
            let message = format!("the receipt of key {key:?} of caller {caller:?} names an event that does not exist");
            return Err(fold.finding(position, message).into());
        }
        self.finish_batch(fold)?;
        self.read_keys_before(fold, None).await?;
        Ok(self.compared)
    }

    /// Checks that no receipt of the batch is left, and that its keys contain the position of its last event.
    fn finish_batch(&mut self, fold: &LogFold) -> Result<(), Finding> {
        let last = self.last_position();
        if let Some((_, key)) = self.due.pop_front() {
            return Err(mismatch(fold, last, &key));
        }
        match self.positioned.take() {
            Some((position, key)) if position != last => Err(wrong_position(fold, last, &key)),
            Some(_) | None => Ok(()),
        }
    }

    /// Reads the keys that were recorded before `time`, without events of this partition: refusals, and openings whose accounts are
    /// in other partitions.
    async fn read_keys_before(&mut self, fold: &LogFold, time: Option<DateTime<Utc>>) -> Result<(), Error> {
        let last = self.last_position();
        while let Some(key) = self.next_key_if(|key| time.is_none_or(|time| key.recorded_at < time)).await? {
            if position_here(fold, &key) != Some(0) {
                return Err(mismatch(fold, last, &key).into());
            }
            if key.position.is_some_and(|position| position != last) {
                return Err(wrong_position(fold, last, &key.key).into());
            }
        }
        Ok(())
    }

    /// Reads the keys of the batch that begins with `event`.
    async fn read_batch(&mut self, fold: &LogFold, event: &RecordedEvent) -> Result<(), Error> {
        let mut batch = Vec::new();
        while let Some(key) = self.next_key_if(|key| key.recorded_at == event.recorded_at).await? {
            if batch.len() == KEYS_OF_BATCH_MAX {
                let message = format!("more than {KEYS_OF_BATCH_MAX} idempotency keys have the time of this event");
                return Err(fold.finding(event.position, message).into());
            }
            match (key.position, &self.positioned) {
                (Some(position), Some((other, _))) if position != *other => {
                    return Err(wrong_position(fold, event.position, &key.key).into());
                }
                (Some(position), _) => self.positioned = Some((position, key.key.clone())),
                (None, _) => {}
            }
            match position_here(fold, &key) {
                Some(0) => {}
                Some(position) => batch.push((position, key)),
                None => return Err(mismatch(fold, event.position, &key).into()),
            }
        }
        batch.sort_by_key(|(position, _)| *position);
        self.due = batch.into();
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
        self.recent.back().map_or(0, |previous| previous.event.position)
    }

    /// Whether a receipt at the position of `event` is the result of its command.
    fn matches(&self, fold: &LogFold, event: &RecordedEvent, stored: &RecordedKey) -> bool {
        match serde_json::from_str(&stored.receipt) {
            Ok(Receipt::Transfer(transfer)) if is_in_several_partitions(&transfer.position) => {
                is_same_json(&Receipt::Transfer(transfer.clone()), &stored.receipt)
                    && matches_side(fold, event, &transfer).unwrap_or(false)
            }
            Ok(receipt) => {
                self.expected(fold, event, &receipt).is_some_and(|expected| is_same_json(&expected, &stored.receipt))
            }
            Err(_) => false,
        }
    }

    /// The receipt of a command whose last event is `event`. Like `stored`, it has as many events, and `available` only if the
    /// release wrote it.
    fn expected(&self, fold: &LogFold, event: &RecordedEvent, stored: &Receipt) -> Option<Receipt> {
        match stored {
            Receipt::Account(stored) => self.expected_account(fold, event, stored).map(Receipt::Account),
            Receipt::Transfer(stored) => self.expected_transfer(fold, event, stored),
            Receipt::Batch(_) => None,
        }
    }

    fn expected_account(
        &self,
        fold: &LogFold,
        event: &RecordedEvent,
        stored: &AccountReceipt,
    ) -> Option<AccountReceipt> {
        let earlier = stored.events.len().checked_sub(1)?;
        let first = self.recent.len().checked_sub(earlier)?;
        let mut facts: Vec<RecordedFact> = Vec::with_capacity(stored.events.len());
        for FoldedEvent { event: before, .. } in self.recent.iter().skip(first) {
            // Only expiries of holds precede another event of the same command.
            let is_expiry = before.event_type == EventType::HoldReleased.name();
            if !is_expiry || (before.stream_id, before.recorded_at) != (event.stream_id, event.recorded_at) {
                return None;
            }
            facts.push(recorded_fact(before));
        }
        facts.push(recorded_fact(event));
        let receipt = account_receipt(fold, event)?;
        let available = receipt.available.filter(|_| stored.available.is_some());
        Some(AccountReceipt { available, events: facts, hold: fold.hold(), ..receipt })
    }

    fn expected_transfer(&self, fold: &LogFold, event: &RecordedEvent, stored: &TransferReceipt) -> Option<Receipt> {
        let (transfer_id, amount) = match Event::decode(&event.event_type, event.schema_version, &event.data).ok()? {
            Event::TransferReceived(received) => (received.transfer_id, received.amount),
            Event::MovementReversed(reversed) => (reversed.transfer_id?, reversed.amount),
            Event::AccountOpened(_)
            | Event::MoneyDeposited(_)
            | Event::MoneyWithdrawn(_)
            | Event::TransferSent(_)
            | Event::HoldPlaced(_)
            | Event::HoldCaptured(_)
            | Event::HoldReleased(_)
            | Event::LimitsSet(_)
            | Event::AccountFrozen(_)
            | Event::AccountUnfrozen(_)
            | Event::AccountClosed(_) => return None,
        };
        let previous = self.recent.back()?;
        let side = |event: &RecordedEvent| {
            let receipt = account_receipt(fold, event)?;
            let available = receipt.available.filter(|_| stored.from.available.is_some());
            Some(AccountReceipt { available, ..receipt })
        };
        let (from, to) = (side(&previous.event)?, side(event)?);
        Some(Receipt::Transfer(Box::new(TransferReceipt {
            transfer_id,
            amount,
            currency: to.currency,
            position: to.position.clone(),
            from,
            to: Counterparty::Visible(to),
            hold: previous.hold,
        })))
    }
}

/// The position of the key's receipt in this partition. 0 if it has none there: of a refusal of an account of this partition, and of
/// an opening whose account `passbook copy` has moved to another partition than the key. `None` if the key cannot be stored here.
fn position_here(fold: &LogFold, key: &RecordedKey) -> Option<i64> {
    let receipt = match serde_json::from_str(&key.receipt).ok()? {
        RecordedOutcome::Refused(refusal) => {
            return (fold.partitions().partition_of(refusal.account_id) == fold.partition()).then_some(0);
        }
        RecordedOutcome::Succeeded(receipt) => receipt,
    };
    let position = receipt.position();
    match position.in_partition(fold.partition()) {
        0 => {
            let is_opening = matches!(&receipt, Receipt::Account(account) if account.version == 1);
            let is_of_key = fold.partitions().partition_of_key(&key.caller, &key.key) == fold.partition();
            // `ForeignReceipts` compares the receipt where its event is.
            (is_opening && is_of_key && is_same_json(&receipt, &key.receipt)).then_some(0)
        }
        here => fold.partitions().covers(&position).then_some(here),
    }
}

fn mismatch(fold: &LogFold, position: i64, RecordedKey { caller, key, .. }: &RecordedKey) -> Finding {
    fold.finding(position, format!("the receipt of key {key:?} of caller {caller:?} does not match its events"))
}

fn wrong_position(fold: &LogFold, position: i64, key: &str) -> Finding {
    fold.finding(position, format!("the position of key {key:?} is not that of the log at the key's time"))
}

fn is_in_several_partitions(position: &Position) -> bool {
    matches!(position, Position::PerPartition(positions) if positions.len() > 1)
}

/// Whether `event`, a side of a transfer over two partitions or of its reversal, matches its side of the receipt. `None` if the fold or
/// the event lacks the needed data. [`super::foreign_receipts`] compares the other side.
fn matches_side(fold: &LogFold, event: &RecordedEvent, stored: &TransferReceipt) -> Option<bool> {
    let Counterparty::Visible(to) = &stored.to else { return Some(false) };
    let is_position_complete = stored.from.position.clone().merge(to.position.clone()) == stored.position;
    let (side, is_same_transfer) = match Event::decode(&event.event_type, event.schema_version, &event.data).ok()? {
        Event::TransferSent(sent) => {
            let is_same =
                (sent.transfer_id, sent.to, sent.amount) == (stored.transfer_id, to.account_id, stored.amount);
            (&stored.from, is_same)
        }
        Event::MovementReversed(reversed) => {
            let side = match reversed.effect {
                Effect::Debit => &stored.from,
                Effect::Credit => to,
            };
            (side, (reversed.transfer_id, reversed.amount) == (Some(stored.transfer_id), stored.amount))
        }
        Event::AccountOpened(_)
        | Event::MoneyDeposited(_)
        | Event::MoneyWithdrawn(_)
        | Event::TransferReceived(_)
        | Event::HoldPlaced(_)
        | Event::HoldCaptured(_)
        | Event::HoldReleased(_)
        | Event::LimitsSet(_)
        | Event::AccountFrozen(_)
        | Event::AccountUnfrozen(_)
        | Event::AccountClosed(_) => return Some(false),
    };
    let receipt = account_receipt(fold, event)?;
    let available = receipt.available.filter(|_| side.available.is_some());
    let expected = AccountReceipt { available, ..receipt };
    Some(
        is_position_complete
            && is_same_transfer
            && stored.hold == fold.hold()
            && (expected.currency, &expected) == (stored.currency, side),
    )
}

/// The receipt of the account of `event` after this event.
pub(super) fn account_receipt(fold: &LogFold, event: &RecordedEvent) -> Option<AccountReceipt> {
    let (version, account) = fold.opened_account(event.stream_id)?;
    Some(AccountReceipt {
        account_id: event.stream_id,
        version,
        status: account.status,
        balance: account.balance,
        available: Some(account.available(event.recorded_at)),
        currency: account.currency,
        position: fold.client_position(event.position),
        events: vec![recorded_fact(event)],
        hold: None,
    })
}

fn recorded_fact(event: &RecordedEvent) -> RecordedFact {
    RecordedFact {
        id: Some(event.id),
        event_type: event.event_type.clone(),
        version: event.version,
        recorded_at: Some(event.recorded_at),
    }
}

/// Whether the stored JSON equals that of `expected`. The order of members may differ, because previous releases wrote another.
pub(super) fn is_same_json(expected: &Receipt, stored: &str) -> bool {
    let json = serde_json::to_string(expected).unwrap_or_default();
    let value = |text| serde_json::from_str::<serde_json::Value>(text).ok();
    json == stored || value(&json) == value(stored)
}
