//! Compares the receipt of every idempotency key with the fold of the log at the receipt's position. A retry of a command returns
//! the stored receipt, so it must be what the events say. A recorded refusal rests on no event; only its form and partition can be
//! checked.

use futures_util::{TryStreamExt, stream::BoxStream};

use super::{log_fold::LogFold, report::Error};
use passbook_bank::{AccountReceipt, Counterparty, Receipt, RecordedFact, RecordedOutcome, TransferReceipt};
use passbook_domain::Event;
use passbook_event_store::{Position, RecordedEvent, scan::RecordedReceipt};

/// The receipts that are not compared yet, in the order of their positions.
pub(super) struct Receipts<'a> {
    stream: BoxStream<'a, sqlx::Result<RecordedReceipt>>,
    next: Option<RecordedReceipt>,
    is_started: bool,
    /// The event before the current one: the sent side of a transfer within a partition.
    previous_event: Option<RecordedEvent>,
    compared: u64,
}

impl<'a> Receipts<'a> {
    pub(super) fn new(stream: BoxStream<'a, sqlx::Result<RecordedReceipt>>) -> Self {
        Self { stream, next: None, is_started: false, previous_event: None, compared: 0 }
    }

    /// Compares the receipts at the position of `event`, which is the last event of their commands.
    pub(super) async fn compare(&mut self, fold: &LogFold, event: &RecordedEvent) -> Result<(), Error> {
        self.read_first().await?;
        while let Some(receipt) = self.next.take_if(|next| next.position <= event.position) {
            if is_refusal(fold, &receipt) {
                self.next = self.stream.try_next().await?;
                continue;
            }
            if receipt.position != event.position || !self.matches(fold, event, &receipt) {
                let RecordedReceipt { caller, key, .. } = receipt;
                let message = format!("the receipt of key {key:?} of caller {caller:?} does not match its events");
                return Err(fold.finding(event.position, message).into());
            }
            // The receipt of a transfer over two partitions is compared in both, but counted only where its key is stored.
            self.compared += u64::from(receipt.kept_in == fold.partition());
            self.next = self.stream.try_next().await?;
        }
        Ok(())
    }

    /// Stores `event` as the event before the next one.
    pub(super) fn advance(&mut self, event: RecordedEvent) {
        self.previous_event = Some(event);
    }

    /// The number of compared receipts. Fails if a receipt has a position beyond the log.
    pub(super) async fn finish(mut self, fold: &LogFold) -> Result<u64, Error> {
        self.read_first().await?;
        while self.next.take_if(|next| is_refusal(fold, next)).is_some() {
            self.next = self.stream.try_next().await?;
        }
        match self.next {
            None => Ok(self.compared),
            Some(RecordedReceipt { caller, key, position, .. }) => {
                let message =
                    format!("the receipt of key {key:?} of caller {caller:?} names an event that does not exist");
                Err(fold.finding(position, message).into())
            }
        }
    }

    async fn read_first(&mut self) -> sqlx::Result<()> {
        if !std::mem::replace(&mut self.is_started, true) {
            self.next = self.stream.try_next().await?;
        }
        Ok(())
    }

    /// Whether a receipt at the position of `event` is the result of its command.
    fn matches(&self, fold: &LogFold, event: &RecordedEvent, stored: &RecordedReceipt) -> bool {
        match serde_json::from_str(&stored.receipt) {
            Ok(Receipt::Transfer(transfer)) if is_in_several_partitions(&transfer.position) => {
                is_same_json(&Receipt::Transfer(transfer.clone()), &stored.receipt)
                    && matches_side(fold, event, &transfer, stored.kept_in).unwrap_or(false)
            }
            Ok(receipt)
                if stored.kept_in == fold.partition() || is_opening_of_other_partition(&receipt, fold, stored) =>
            {
                self.expected(fold, event).is_some_and(|expected| is_same_json(&expected, &stored.receipt))
            }
            Ok(_) | Err(_) => false,
        }
    }

    /// The receipt of a command whose last event is `event`.
    fn expected(&self, fold: &LogFold, event: &RecordedEvent) -> Option<Receipt> {
        let receipt = account_receipt(fold, event)?;
        if event.event_type != "TransferReceived" {
            return Some(Receipt::Account(receipt));
        }
        let received = match Event::decode(&event.event_type, event.schema_version, &event.data) {
            Ok(Event::TransferReceived(received)) => received,
            Ok(_) | Err(_) => return None,
        };
        let from = account_receipt(fold, self.previous_event.as_ref()?)?;
        Some(Receipt::Transfer(Box::new(TransferReceipt {
            transfer_id: received.transfer_id,
            amount: received.amount,
            currency: receipt.currency,
            position: receipt.position.clone(),
            from,
            to: Counterparty::Visible(receipt),
        })))
    }
}

/// Whether it is the receipt of an opening whose key is in the partition that the key determines. `passbook copy` may have moved
/// the account to another partition.
fn is_opening_of_other_partition(receipt: &Receipt, fold: &LogFold, stored: &RecordedReceipt) -> bool {
    let is_opening = matches!(receipt, Receipt::Account(account) if account.version == 1);
    is_opening && fold.partitions().partition_of_key(&stored.caller, &stored.key) == stored.kept_in
}

/// Whether it is a refusal that is recorded in the partition of its account.
fn is_refusal(fold: &LogFold, stored: &RecordedReceipt) -> bool {
    match serde_json::from_str(&stored.receipt) {
        Ok(RecordedOutcome::Refused(refusal)) => fold.partitions().partition_of(refusal.account_id) == stored.kept_in,
        Ok(RecordedOutcome::Succeeded(_)) | Err(_) => false,
    }
}

fn is_in_several_partitions(position: &Position) -> bool {
    matches!(position, Position::PerPartition(positions) if positions.len() > 1)
}

/// Whether `event`, one side of a transfer over two partitions, matches this side of the receipt. `None` if the fold or the event
/// lacks the needed data.
fn matches_side(fold: &LogFold, event: &RecordedEvent, stored: &TransferReceipt, kept_in: i16) -> Option<bool> {
    let expected = account_receipt(fold, event)?;
    let Counterparty::Visible(to) = &stored.to else { return Some(false) };
    let is_position_complete = stored.from.position.clone().merge(to.position.clone()) == stored.position;
    // The key of a transfer is stored in the sender's partition.
    let is_sender = kept_in == fold.partition();
    Some(
        is_position_complete
            && match Event::decode(&event.event_type, event.schema_version, &event.data).ok()? {
                Event::TransferSent(sent) => {
                    is_sender
                        && (sent.transfer_id, sent.to, sent.amount)
                            == (stored.transfer_id, to.account_id, stored.amount)
                        && (expected.currency, &expected) == (stored.currency, &stored.from)
                }
                Event::TransferReceived(received) => {
                    !is_sender
                        && (received.transfer_id, received.from, received.amount)
                            == (stored.transfer_id, stored.from.account_id, stored.amount)
                        && expected == *to
                }
                _ => false,
            },
    )
}

/// The receipt of the account of `event` after this event.
fn account_receipt(fold: &LogFold, event: &RecordedEvent) -> Option<AccountReceipt> {
    let (version, account) = fold.opened_account(event.stream_id)?;
    Some(AccountReceipt {
        account_id: event.stream_id,
        version,
        status: account.status,
        balance: account.balance,
        currency: account.currency,
        position: fold.client_position(event.position),
        events: vec![RecordedFact {
            id: Some(event.id),
            event_type: event.event_type.clone(),
            version: event.version,
            recorded_at: Some(event.recorded_at),
        }],
    })
}

/// Whether the stored JSON equals that of `expected`. The order of members may differ, because previous releases wrote another.
fn is_same_json(expected: &Receipt, stored: &str) -> bool {
    let json = serde_json::to_string(expected).unwrap_or_default();
    let value = |text| serde_json::from_str::<serde_json::Value>(text).ok();
    json == stored || value(&json) == value(stored)
}
