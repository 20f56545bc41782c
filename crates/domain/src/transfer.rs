//! Decides on transfers: both accounts change, or neither does.

use serde::{Deserialize, Serialize};

use crate::{
    account::{Account, Rejection},
    command::Transfer,
    event::{Event, TransferReceived, TransferSent},
};

/// One of the two accounts of a transfer. It is stored with a refusal, so its JSON must stay readable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The account that pays.
    #[default]
    Sender,
    /// The account that is paid.
    Receiver,
}

/// Why the state refuses a transfer, in order of rank: the same refusal of both accounts is the sender's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TransferRejection {
    /// The reason.
    pub rejection: Rejection,
    /// The account that the reason is about.
    pub side: Side,
}

impl Side {
    fn rejects(self, rejection: Rejection) -> TransferRejection {
        TransferRejection { rejection, side: self }
    }
}

/// The events of the sender and of the receiver.
///
/// # Errors
/// The refusal that ranks first among those of both accounts.
pub fn decide(from: &Account, to: &Account, transfer: &Transfer) -> Result<(Event, Event), TransferRejection> {
    let amount = transfer.movement.amount;
    let sender = from.open_for(&transfer.movement);
    let receiver = to.open_for(&transfer.movement);
    let refusals = [
        sender.and_then(|opened| opened.debit(amount)).err().map(|rejection| Side::Sender.rejects(rejection)),
        receiver.and_then(|opened| opened.credit(amount)).err().map(|rejection| Side::Receiver.rejects(rejection)),
        currencies_differ(from, to),
    ];
    if let Some(first) = refusals.into_iter().flatten().min() {
        return Err(first);
    }

    let Transfer { transfer_id, from, to, .. } = *transfer;
    let reference = transfer.movement.reference.clone();
    Ok((
        Event::TransferSent(TransferSent { transfer_id, to, amount, reference: reference.clone() }),
        Event::TransferReceived(TransferReceived { transfer_id, from, amount, reference }),
    ))
}

/// Decides for a caller who may not see the receiver.
///
/// # Errors
/// The sender's refusals come first, so that a caller without the money learns nothing about the receiver. Every refusal of
/// the receiver is [`Rejection::AccountNotFound`].
pub fn decide_hidden_receiver(
    from: &Account,
    to: &Account,
    transfer: &Transfer,
) -> Result<(Event, Event), TransferRejection> {
    let sender = from.open_for(&transfer.movement).and_then(|opened| opened.debit(transfer.movement.amount));
    sender.map_err(|rejection| Side::Sender.rejects(rejection))?;
    decide(from, to, transfer).map_err(|_| Side::Receiver.rejects(Rejection::AccountNotFound))
}

/// A transfer is in the sender's currency.
fn currencies_differ(from: &Account, to: &Account) -> Option<TransferRejection> {
    match (from, to) {
        (Account::Opened(from), Account::Opened(to)) if from.currency != to.currency => {
            Some(Side::Receiver.rejects(Rejection::CurrencyMismatch))
        }
        _ => None,
    }
}
