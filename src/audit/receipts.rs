//! Every key's receipt against the fold, in step with the pass over the log.

use futures_util::{TryStreamExt, stream::BoxStream};

use super::{Finding, books::Books, verify::Error};
use crate::{
    application::{AccountReceipt, Receipt, Receiver, RecordedFact, TransferReceipt},
    domain::Event,
    event_store::{Position, RecordedEvent, whole::RecordedReceipt},
};

/// The receipts that are still to come, and the event before the one that the pass is at.
pub(super) struct Receipts<'a> {
    coming: BoxStream<'a, sqlx::Result<RecordedReceipt>>,
    next: Option<RecordedReceipt>,
    begun: bool,
    before: Option<RecordedEvent>,
    compared: u64,
}

impl<'a> Receipts<'a> {
    pub(super) fn new(coming: BoxStream<'a, sqlx::Result<RecordedReceipt>>) -> Self {
        Self { coming, next: None, begun: false, before: None, compared: 0 }
    }

    /// Compares those that name the position of `last`, which is the last event of their commands.
    pub(super) async fn compare(&mut self, books: &Books, last: &RecordedEvent) -> Result<(), Error> {
        if !std::mem::replace(&mut self.begun, true) {
            self.next = self.coming.try_next().await?;
        }
        while let Some(receipt) = self.next.take_if(|next| next.position <= last.position) {
            let expected = self.expected(books, last).filter(|_| receipt.position == last.position);
            if expected.is_none_or(|expected| !same(&expected, &receipt.receipt)) {
                let RecordedReceipt { caller, key, .. } = receipt;
                let sentence = format!("the receipt kept for the key {key:?} of {caller:?} is not what its events say");
                return Err(Finding { position: last.position, sentence }.into());
            }
            self.compared += 1;
            self.next = self.coming.try_next().await?;
        }
        Ok(())
    }

    /// The pass goes on behind `event`.
    pub(super) fn pass(&mut self, event: RecordedEvent) {
        self.before = Some(event);
    }

    /// How many were compared, if the log has reached all of them.
    pub(super) async fn end(mut self) -> Result<u64, Error> {
        if !self.begun {
            self.next = self.coming.try_next().await?;
        }
        match self.next {
            None => Ok(self.compared),
            Some(RecordedReceipt { caller, key, position, .. }) => {
                let sentence =
                    format!("the receipt kept for the key {key:?} of {caller:?} is of an event that is not there");
                Err(Finding { position, sentence }.into())
            }
        }
    }

    /// What a command whose last event is `last` was answered.
    fn expected(&self, books: &Books, last: &RecordedEvent) -> Option<Receipt> {
        let receipt = account_receipt(books, last)?;
        if last.event_type != "TransferReceived" {
            return Some(Receipt::Account(receipt));
        }
        let received = match Event::decode(&last.event_type, last.schema_version, &last.data) {
            Ok(Event::TransferReceived(received)) => received,
            Ok(_) | Err(_) => return None,
        };
        let from = account_receipt(books, self.before.as_ref()?)?;
        Some(Receipt::Transfer(Box::new(TransferReceipt {
            transfer_id: received.transfer_id,
            amount: received.amount,
            currency: receipt.currency,
            position: receipt.position,
            from,
            to: Receiver::Seen(receipt),
        })))
    }
}

/// The state that `event` left its account in.
fn account_receipt(books: &Books, event: &RecordedEvent) -> Option<AccountReceipt> {
    let (version, book) = books.book(event.stream_id)?;
    Some(AccountReceipt {
        account_id: event.stream_id,
        version,
        status: book.status,
        balance: book.balance,
        currency: book.currency,
        position: Position(event.position),
        events: vec![RecordedFact {
            id: Some(event.id),
            event_type: event.event_type.clone(),
            version: event.version,
            recorded_at: Some(event.recorded_at),
        }],
    })
}

/// Byte for byte, or at least in meaning: a release before may have written the members in another order.
fn same(expected: &Receipt, kept: &str) -> bool {
    let json = serde_json::to_string(expected).unwrap_or_default();
    let value = |text| serde_json::from_str::<serde_json::Value>(text).ok();
    json == kept || value(&json) == value(kept)
}
