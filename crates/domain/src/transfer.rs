//! Decides on transfers: both accounts change, or neither does.

use crate::{
    account::{Account, Rejection},
    command::Transfer,
    event::{Event, TransferReceived, TransferSent},
};

/// The events of the sender and of the receiver.
///
/// # Errors
/// The refusal that ranks first among those of both accounts.
pub fn decide(from: &Account, to: &Account, transfer: &Transfer) -> Result<(Event, Event), Rejection> {
    let amount = transfer.movement.amount;
    let sender = from.open_for(&transfer.movement);
    let receiver = to.open_for(&transfer.movement);
    let refusals = [
        sender.and_then(|opened| opened.debit(amount)).err(),
        receiver.and_then(|opened| opened.credit(amount)).err(),
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
pub fn decide_hidden_receiver(from: &Account, to: &Account, transfer: &Transfer) -> Result<(Event, Event), Rejection> {
    from.open_for(&transfer.movement)?.debit(transfer.movement.amount)?;
    decide(from, to, transfer).map_err(|_| Rejection::AccountNotFound)
}

fn currencies_differ(from: &Account, to: &Account) -> Option<Rejection> {
    match (from, to) {
        (Account::Opened(from), Account::Opened(to)) if from.currency != to.currency => {
            Some(Rejection::CurrencyMismatch)
        }
        _ => None,
    }
}
