//! Checks that every transfer was sent and received alike, also across partitions. Memory does not grow with transfers. The sums
//! of keyed hashes of both sides must be equal; if not, a second pass over the log finds the unmatched side.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
};

use futures_util::TryStreamExt;
use sqlx::PgConnection;
use uuid::Uuid;

use super::report::Finding;
use passbook_domain::{Event, Metadata, reversal::Effect};
use passbook_event_store::{Partitions, scan};

/// The sums of the hashes of all sent and all received sides.
#[derive(Default)]
pub(super) struct Transfers {
    key: RandomState,
    sent: u64,
    received: u64,
}

/// The facts that both sides of a transfer record.
#[derive(Hash, PartialEq, Eq)]
struct Side<'a> {
    transfer_id: Uuid,
    from: Uuid,
    to: Uuid,
    amount: i64,
    reference: Option<&'a str>,
    hold_id: Option<Uuid>,
    /// `None` for a reversal.
    metadata: Option<&'a Metadata>,
    /// Whether the side is that of a reversal, which records no other account: `from` and `to` are the nil UUID.
    is_reversal: bool,
}

/// A side whose other side was not found yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Unmatched {
    partition: i16,
    position: i64,
    is_sent: bool,
    transfer_id: Uuid,
}

/// The unmatched sides by the hash of their facts. Reversals of one transfer can record the same facts, so a hash can have several
/// sides. They are all sent or all received.
#[derive(Default)]
struct UnmatchedSides(HashMap<u64, Vec<Unmatched>>);

impl UnmatchedSides {
    /// Adds a side, or removes one that it matches.
    fn add(&mut self, hash: u64, side: Unmatched) {
        let sides = self.0.entry(hash).or_default();
        if sides.last().is_some_and(|other| other.is_sent != side.is_sent) {
            sides.pop();
        } else {
            sides.push(side);
        }
        if sides.is_empty() {
            self.0.remove(&hash);
        }
    }

    fn first(self) -> Option<Unmatched> {
        self.0.into_values().flatten().min_by_key(|side| (side.partition, side.position))
    }
}

impl Transfers {
    /// Adds an event, if it is a side of a transfer.
    pub(super) fn add(&mut self, account_id: Uuid, event: &Event) {
        let Some((side, is_sent)) = side(account_id, event) else { return };
        let hash = self.key.hash_one(&side);
        let sum = if is_sent { &mut self.sent } else { &mut self.received };
        *sum = sum.wrapping_add(hash);
    }

    /// A finding for the first side without the other side; `None` if all sides match.
    pub(super) async fn find_unmatched(
        &self,
        connection: &mut PgConnection,
        partitions: Partitions,
    ) -> sqlx::Result<Option<Finding>> {
        if self.sent == self.received {
            return Ok(None);
        }
        let mut unmatched = UnmatchedSides::default();
        for partition in partitions.all() {
            let mut log = scan::events(connection, partition);
            while let Some(linked) = log.try_next().await? {
                let recorded = &linked.event;
                let Ok(event) = Event::decode(&recorded.event_type, recorded.schema_version, &recorded.data) else {
                    continue;
                };
                let Some((side, is_sent)) = side(recorded.stream_id, &event) else { continue };
                let hash = self.key.hash_one(&side);
                let (position, transfer_id) = (recorded.position, side.transfer_id);
                unmatched.add(hash, Unmatched { partition, position, is_sent, transfer_id });
            }
        }
        Ok(unmatched.first().map(|Unmatched { partition, position, is_sent, transfer_id }| {
            let (this, other) = if is_sent { ("sent", "received") } else { ("received", "sent") };
            let message = format!("the {this} side of transfer {transfer_id} has no matching {other} side");
            Finding::in_partition(partitions, partition, position, message)
        }))
    }
}

/// The side of a transfer that an event records, and whether it is the sent side.
fn side(account_id: Uuid, event: &Event) -> Option<(Side<'_>, bool)> {
    match event {
        Event::TransferSent(sent) => {
            let (transfer_id, to, amount) = (sent.transfer_id, sent.to, sent.amount.minor_units());
            let (from, reference, hold_id) = (account_id, sent.reference.as_deref(), sent.hold_id);
            let metadata = Some(&sent.metadata);
            Some((Side { transfer_id, from, to, amount, reference, hold_id, metadata, is_reversal: false }, true))
        }
        Event::TransferReceived(received) => {
            let (transfer_id, from, amount) = (received.transfer_id, received.from, received.amount.minor_units());
            let (to, reference, hold_id) = (account_id, received.reference.as_deref(), received.hold_id);
            let metadata = Some(&received.metadata);
            Some((Side { transfer_id, from, to, amount, reference, hold_id, metadata, is_reversal: false }, false))
        }
        Event::MovementReversed(reversed) => {
            let (transfer_id, amount) = (reversed.transfer_id?, reversed.amount.minor_units());
            let (from, to, reference) = (Uuid::nil(), Uuid::nil(), reversed.reason.as_deref());
            let (hold_id, metadata) = (None, None);
            let side = Side { transfer_id, from, to, amount, reference, hold_id, metadata, is_reversal: true };
            Some((side, reversed.effect == Effect::Debit))
        }
        Event::AccountOpened(_)
        | Event::MoneyDeposited(_)
        | Event::MoneyWithdrawn(_)
        | Event::HoldPlaced(_)
        | Event::HoldCaptured(_)
        | Event::HoldReleased(_)
        | Event::LimitsSet(_)
        | Event::AccountFrozen(_)
        | Event::AccountUnfrozen(_)
        | Event::AccountClosed(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use passbook_domain::{Amount, event::TransferSent};

    use super::*;

    #[test]
    fn equal_sides_match_as_often_as_they_are_recorded() {
        let side = |position, is_sent| Unmatched { partition: 0, position, is_sent, transfer_id: Uuid::nil() };
        let mut unmatched = UnmatchedSides::default();
        for (hash, side) in [(7, side(1, true)), (7, side(2, true)), (8, side(3, true)), (7, side(4, false))] {
            unmatched.add(hash, side);
        }
        unmatched.add(7, side(5, false));
        assert_eq!(unmatched.first(), Some(side(3, true)));
    }

    #[test]
    fn sides_differ_in_each_fact_that_both_record() {
        let amount = Amount::try_from(5).expect("an amount");
        let (reference, hold_id, is_final) = (Some("rent".to_owned()), Some(Uuid::max()), Some(true));
        let metadata = Metadata::new([("order".to_owned(), "1".to_owned())].into()).expect("metadata");
        let sent =
            TransferSent { transfer_id: Uuid::nil(), to: Uuid::nil(), amount, reference, hold_id, is_final, metadata };
        let changed = [
            TransferSent { transfer_id: Uuid::max(), ..sent.clone() },
            TransferSent { to: Uuid::max(), ..sent.clone() },
            TransferSent { amount: Amount::try_from(6).expect("an amount"), ..sent.clone() },
            TransferSent { reference: None, ..sent.clone() },
            TransferSent { hold_id: None, ..sent.clone() },
            TransferSent { metadata: Metadata::default(), ..sent.clone() },
        ];
        let sum = |sent: TransferSent, transfers: &Transfers| {
            let event = Event::TransferSent(sent);
            side(Uuid::nil(), &event).map(|(side, _)| transfers.key.hash_one(&side))
        };
        let transfers = Transfers::default();
        let original = sum(sent, &transfers);
        for changed in changed {
            assert_ne!(sum(changed, &transfers), original);
        }
    }
}
