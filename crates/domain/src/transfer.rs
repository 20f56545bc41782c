//! The one decision that two accounts take together: money leaves one and reaches the other, or neither changes.

use super::{
    account::{Account, Rejection},
    command::Transfer,
    event::{Event, TransferReceived, TransferSent},
};

/// The facts for the sender and for the receiver, or the refusal of the highest rank among both accounts'.
pub fn decide(from: &Account, to: &Account, transfer: &Transfer) -> Result<(Event, Event), Rejection> {
    let amount = transfer.movement.amount;
    let sender = from.open_for(&transfer.movement);
    let receiver = to.open_for(&transfer.movement);
    let refusals = [
        sender.and_then(|book| book.debit(amount)).err(),
        receiver.and_then(|book| book.credit(amount)).err(),
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

/// The same for somebody who may not see the receiver. The sender's own refusals come first, so that nobody without the
/// money finds out anything about the other account; and whatever that one refuses, it is as if it were not there.
pub fn decide_unseen(from: &Account, to: &Account, transfer: &Transfer) -> Result<(Event, Event), Rejection> {
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
