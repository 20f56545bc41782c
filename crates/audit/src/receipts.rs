//! Every key's receipt against the fold, in step with the pass over the log.

use futures_util::{TryStreamExt, stream::BoxStream};

use super::{books::Books, verify::Error};
use passbook_bank::{AccountReceipt, Counterparty, Receipt, RecordedFact, TransferReceipt};
use passbook_domain::Event;
use passbook_event_store::{Position, RecordedEvent, whole::RecordedReceipt};

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
            if receipt.position != last.position || !self.agrees(books, last, &receipt) {
                let RecordedReceipt { caller, key, .. } = receipt;
                let sentence = format!("the receipt kept for the key {key:?} of {caller:?} is not what its events say");
                return Err(books.finding(last.position, sentence).into());
            }
            // One over several partitions is compared in each, and counted where it is kept.
            self.compared += u64::from(receipt.kept_in == books.partition());
            self.next = self.coming.try_next().await?;
        }
        Ok(())
    }

    /// The pass goes on behind `event`.
    pub(super) fn pass(&mut self, event: RecordedEvent) {
        self.before = Some(event);
    }

    /// How many were compared, if the log has reached all of them.
    pub(super) async fn end(mut self, books: &Books) -> Result<u64, Error> {
        if !self.begun {
            self.next = self.coming.try_next().await?;
        }
        match self.next {
            None => Ok(self.compared),
            Some(RecordedReceipt { caller, key, position, .. }) => {
                let sentence =
                    format!("the receipt kept for the key {key:?} of {caller:?} is of an event that is not there");
                Err(books.finding(position, sentence).into())
            }
        }
    }

    /// Whether a receipt that names the position of `last` is what its command was answered.
    fn agrees(&self, books: &Books, last: &RecordedEvent, kept: &RecordedReceipt) -> bool {
        match serde_json::from_str(&kept.receipt) {
            Ok(Receipt::Transfer(transfer)) if is_across(&transfer.position) => {
                same(&Receipt::Transfer(transfer.clone()), &kept.receipt)
                    && half_agrees(books, last, &transfer, kept.kept_in).unwrap_or(false)
            }
            Ok(receipt) if kept.kept_in == books.partition() || is_chosen(&receipt, books, kept) => {
                self.expected(books, last).is_some_and(|expected| same(&expected, &kept.receipt))
            }
            Ok(_) | Err(_) => false,
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
            position: receipt.position.clone(),
            from,
            to: Counterparty::Visible(receipt),
        })))
    }
}

/// Whether it is an opening whose key is kept where one without an id is looked for: in a log that was copied, the account may
/// be elsewhere.
fn is_chosen(receipt: &Receipt, books: &Books, kept: &RecordedReceipt) -> bool {
    let is_opening = matches!(receipt, Receipt::Account(account) if account.version == 1);
    is_opening && books.partitions().of_key(&kept.caller, &kept.key) == kept.kept_in
}

/// Whether it is a place in several partitions.
fn is_across(position: &Position) -> bool {
    matches!(position, Position::Over(places) if places.len() > 1)
}

/// Whether `event`, one side of a transfer over two partitions, is what the receipt says of its side.
fn half_agrees(books: &Books, event: &RecordedEvent, kept: &TransferReceipt, kept_in: i16) -> Option<bool> {
    let here = account_receipt(books, event)?;
    let Counterparty::Visible(to) = &kept.to else { return Some(false) };
    let whole = kept.from.position.clone().and(to.position.clone()) == kept.position;
    let is_home = kept_in == books.partition();
    Some(
        whole
            && match Event::decode(&event.event_type, event.schema_version, &event.data).ok()? {
                Event::TransferSent(sent) => {
                    is_home
                        && (sent.transfer_id, sent.to, sent.amount) == (kept.transfer_id, to.account_id, kept.amount)
                        && (here.currency, &here) == (kept.currency, &kept.from)
                }
                Event::TransferReceived(received) => {
                    !is_home
                        && (received.transfer_id, received.from, received.amount)
                            == (kept.transfer_id, kept.from.account_id, kept.amount)
                        && here == *to
                }
                _ => false,
            },
    )
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
        position: books.place(event.position),
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
