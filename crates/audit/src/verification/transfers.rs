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
use passbook_domain::Event;
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
}

/// A side whose other side was not found yet.
struct Unmatched {
    partition: i16,
    position: i64,
    is_sent: bool,
    transfer_id: Uuid,
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
        let mut unmatched: HashMap<u64, Unmatched> = HashMap::new();
        for partition in partitions.all() {
            let mut log = scan::events(connection, partition);
            while let Some(linked) = log.try_next().await? {
                let recorded = &linked.event;
                let Ok(event) = Event::decode(&recorded.event_type, recorded.schema_version, &recorded.data) else {
                    continue;
                };
                let Some((side, is_sent)) = side(recorded.stream_id, &event) else { continue };
                let hash = self.key.hash_one(&side);
                if unmatched.get(&hash).is_some_and(|other| other.is_sent != is_sent) {
                    unmatched.remove(&hash);
                } else {
                    let (position, transfer_id) = (recorded.position, side.transfer_id);
                    unmatched.insert(hash, Unmatched { partition, position, is_sent, transfer_id });
                }
            }
        }
        let first = unmatched.into_values().min_by_key(|side| (side.partition, side.position));
        Ok(first.map(|Unmatched { partition, position, is_sent, transfer_id }| {
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
            Some((Side { transfer_id, from: account_id, to, amount, reference: sent.reference.as_deref() }, true))
        }
        Event::TransferReceived(received) => {
            let (transfer_id, from, amount) = (received.transfer_id, received.from, received.amount.minor_units());
            let reference = received.reference.as_deref();
            Some((Side { transfer_id, from, to: account_id, amount, reference }, false))
        }
        Event::AccountOpened(_)
        | Event::MoneyDeposited(_)
        | Event::MoneyWithdrawn(_)
        | Event::AccountFrozen(_)
        | Event::AccountUnfrozen(_)
        | Event::AccountClosed(_) => None,
    }
}
