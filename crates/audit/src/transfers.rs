//! Both sides of every transfer: what one account sent, another received, in whichever partition. Told without keeping
//! them: the sums of keyed hashes are equal, or a second pass looks for the side that stands alone.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
};

use futures_util::TryStreamExt;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Finding;
use passbook_domain::Event;
use passbook_event_store::{Partitions, whole};

/// The transfers that were seen so far.
#[derive(Default)]
pub(super) struct Transfers {
    key: RandomState,
    sent: u64,
    received: u64,
}

/// What both sides say alike.
#[derive(Hash, PartialEq, Eq)]
struct Side<'a> {
    transfer_id: Uuid,
    from: Uuid,
    to: Uuid,
    amount: i64,
    reference: Option<&'a str>,
}

impl Transfers {
    pub(super) fn record(&mut self, account_id: Uuid, event: &Event) {
        let Some((side, sent)) = side(account_id, event) else { return };
        let hash = self.key.hash_one(&side);
        let sum = if sent { &mut self.sent } else { &mut self.received };
        *sum = sum.wrapping_add(hash);
    }

    /// The first side that stands alone, if one does.
    pub(super) async fn check(
        &self,
        connection: &mut PgConnection,
        partitions: Partitions,
    ) -> sqlx::Result<Option<Finding>> {
        if self.sent == self.received {
            return Ok(None);
        }
        // Only here, where something is wrong, transfers are kept until their other side is met.
        let mut alone: HashMap<u64, (i16, i64, bool, Uuid)> = HashMap::new();
        for partition in partitions.all() {
            let mut log = whole::events(connection, partition);
            while let Some(linked) = log.try_next().await? {
                let recorded = &linked.event;
                let Ok(event) = Event::decode(&recorded.event_type, recorded.schema_version, &recorded.data) else {
                    continue;
                };
                let Some((side, sent)) = side(recorded.stream_id, &event) else { continue };
                let hash = self.key.hash_one(&side);
                if alone.get(&hash).is_some_and(|other| other.2 != sent) {
                    alone.remove(&hash);
                } else {
                    alone.insert(hash, (partition, recorded.position, sent, side.transfer_id));
                }
            }
        }
        let first = alone.into_values().min_by_key(|(partition, position, ..)| (*partition, *position));
        Ok(first.map(|(partition, position, sent, transfer_id)| {
            let (done, other) = if sent { ("sent", "received") } else { ("received", "sent") };
            let sentence = format!("what transfer {transfer_id} {done} here was nowhere {other} so");
            Finding::in_partition(partitions, partition, position, sentence)
        }))
    }
}

/// What an event says of a transfer, and whether it is the side that sent.
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
