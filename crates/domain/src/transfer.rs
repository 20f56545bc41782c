//! Decides on transfers, and on captures in favour of another account: both accounts change, or neither does.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    account::{Account, OpenedAccount},
    command::{CaptureTo, Transfer},
    event::{Event, TransferReceived, TransferSent},
    metadata::Metadata,
    rejection::Rejection,
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
    pub(crate) fn rejects(self, rejection: Rejection) -> TransferRejection {
        TransferRejection { rejection, side: self }
    }
}

/// The events of the sender and of the receiver.
///
/// # Errors
/// The refusal that ranks first among those of both accounts.
pub fn decide(
    from: &Account,
    to: &Account,
    transfer: &Transfer,
    now: DateTime<Utc>,
) -> Result<(Event, Event), TransferRejection> {
    let movement = &transfer.movement;
    let amount = movement.amount;
    let sender = from.opened().and_then(|sender| sender.open_for(movement)?.pay_out(amount, now));
    let receiver = to.opened().and_then(|receiver| receiver.open_for(movement)?.credit(amount));
    let refusals = [
        sender.err().map(|rejection| Side::Sender.rejects(rejection)),
        receiver.err().map(|rejection| Side::Receiver.rejects(rejection)),
        currencies_differ(from, to),
    ];
    if let Some(first) = refusals.into_iter().flatten().min() {
        return Err(first);
    }

    let Transfer { transfer_id, from, to, .. } = *transfer;
    let (reference, metadata) = (movement.reference.clone(), movement.metadata.clone());
    Ok((
        Event::TransferSent(TransferSent {
            transfer_id,
            to,
            amount,
            reference: reference.clone(),
            hold_id: None,
            is_final: None,
            metadata: metadata.clone(),
        }),
        Event::TransferReceived(TransferReceived { transfer_id, from, amount, reference, hold_id: None, metadata }),
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
    now: DateTime<Utc>,
) -> Result<(Event, Event), TransferRejection> {
    let movement = &transfer.movement;
    let sender = from.opened().and_then(|sender| sender.open_for(movement)?.pay_out(movement.amount, now));
    sender.map_err(|rejection| Side::Sender.rejects(rejection))?;
    decide(from, to, transfer, now).map_err(|_| Side::Receiver.rejects(Rejection::AccountNotFound))
}

/// The events of a capture in favour of another account: of the account of the hold, and of the receiver.
///
/// # Errors
/// The refusal that ranks first among those of both accounts.
pub fn decide_capture(
    from: &Account,
    to: &Account,
    command: &CaptureTo,
    now: DateTime<Utc>,
) -> Result<(Event, Event), TransferRejection> {
    let CaptureTo { transfer_id, from: from_id, to: to_id, capture } = command;
    let captured = from.opened().and_then(|opened| opened.capture_hold(capture, now));
    // An amount that exceeds the hold is refused for that reason, so the receiver's room for it does not matter.
    let room = captured.map_or(Ok(()), |(amount, _)| to.opened()?.credit(amount));
    let receiver = to.opened().and_then(OpenedAccount::must_be_open);
    let refusals = [
        captured.err().map(|rejection| Side::Sender.rejects(rejection)),
        receiver.err().map(|rejection| Side::Receiver.rejects(rejection)),
        room.err().map(|rejection| Side::Receiver.rejects(rejection)),
        currencies_differ(from, to),
    ];
    if let Some(first) = refusals.into_iter().flatten().min() {
        return Err(first);
    }

    let (amount, is_final) = captured.map_err(|rejection| Side::Sender.rejects(rejection))?;
    let (transfer_id, hold_id, reference) = (*transfer_id, Some(capture.hold_id), capture.reference.clone());
    Ok((
        Event::TransferSent(TransferSent {
            transfer_id,
            to: *to_id,
            amount,
            reference: reference.clone(),
            hold_id,
            is_final: Some(is_final),
            metadata: Metadata::default(),
        }),
        Event::TransferReceived(TransferReceived {
            transfer_id,
            from: *from_id,
            amount,
            reference,
            hold_id,
            metadata: Metadata::default(),
        }),
    ))
}

/// A transfer is in the sender's currency.
pub(crate) fn currencies_differ(from: &Account, to: &Account) -> Option<TransferRejection> {
    match (from, to) {
        (Account::Opened(from), Account::Opened(to)) if from.currency != to.currency => {
            Some(Side::Receiver.rejects(Rejection::CurrencyMismatch))
        }
        _ => None,
    }
}
