//! Receipts that contain an event of another partition than that of their key: transfers between partitions, and openings whose
//! account `passbook copy` has moved. They are read once, before the partitions; 24 bytes of each stay in memory until the
//! partition of its event is verified.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    iter::Peekable,
    vec,
};

use futures_util::TryStreamExt;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    log_fold::LogFold,
    receipts::{account_receipt, is_same_json},
    report::{Error, Finding},
};
use passbook_bank::{AccountReceipt, Counterparty, Receipt};
use passbook_domain::{Event, reversal::Effect};
use passbook_event_store::{
    Partitions, Position, RecordedEvent,
    scan::{RecordedKey, keys_of_other_partitions},
};

/// The events that receipts in other partitions contain, by the partition of these events.
#[derive(Default)]
pub(super) struct ForeignReceipts {
    claims: BTreeMap<i16, Vec<Claim>>,
    hasher: RandomState,
}

/// What one receipt says about an event: a keyed hash of the facts and of the account's receipt after the event.
#[derive(Clone, Copy, Debug)]
struct Claim {
    position: i64,
    hash: u64,
    kept_in: i16,
    /// Whether the receipt has `available`; older releases did not write it.
    has_available: bool,
}

/// The facts of a command that its event in another partition records, besides the account's receipt.
#[derive(Hash)]
enum Facts {
    Opening,
    Received { transfer_id: Uuid, from: Uuid, amount: i64 },
    Reversed { transfer_id: Uuid, amount: i64, is_credit: bool },
}

/// The claims about one partition that are not compared yet, in the order of their positions.
pub(super) struct PartitionClaims {
    partition: i16,
    claims: Peekable<vec::IntoIter<Claim>>,
    hasher: RandomState,
}

impl ForeignReceipts {
    /// Reads the receipts of all partitions.
    pub(super) async fn load(connection: &mut PgConnection, partitions: Partitions) -> sqlx::Result<Self> {
        let mut receipts = Self::default();
        if !partitions.is_partitioned() {
            return Ok(receipts);
        }
        for partition in partitions.all() {
            let mut keys = keys_of_other_partitions(connection, partition);
            while let Some(key) = keys.try_next().await? {
                for (other, claim) in claims(&receipts.hasher, partition, &key) {
                    receipts.claims.entry(other).or_default().push(claim);
                }
            }
        }
        Ok(receipts)
    }

    /// Takes the claims about a partition.
    pub(super) fn take(&mut self, partition: i16) -> PartitionClaims {
        let mut claims = self.claims.remove(&partition).unwrap_or_default();
        claims.sort_by_key(|claim| claim.position);
        PartitionClaims { partition, claims: claims.into_iter().peekable(), hasher: self.hasher.clone() }
    }
}

impl PartitionClaims {
    /// Compares the claims about `event`. `connection` finds the key of a wrong one.
    pub(super) async fn compare(
        &mut self,
        connection: &mut PgConnection,
        fold: &LogFold,
        event: &RecordedEvent,
    ) -> Result<(), Error> {
        while let Some(claim) = self.claims.next_if(|claim| claim.position <= event.position) {
            let expected = expected(fold, event).map(|(facts, account)| {
                let available = account.available.filter(|_| claim.has_available);
                hash(&self.hasher, &facts, &AccountReceipt { available, ..account })
            });
            if claim.position != event.position || expected != Some(claim.hash) {
                return Err(self.finding(connection, fold, claim, "does not match its events").await?.into());
            }
        }
        Ok(())
    }

    /// Checks that no claim is about a position beyond the log.
    pub(super) async fn finish(mut self, connection: &mut PgConnection, fold: &LogFold) -> Result<(), Error> {
        match self.claims.next() {
            None => Ok(()),
            Some(claim) => {
                Err(self.finding(connection, fold, claim, "names an event that does not exist").await?.into())
            }
        }
    }

    async fn finding(
        &self,
        connection: &mut PgConnection,
        fold: &LogFold,
        wrong: Claim,
        what: &str,
    ) -> sqlx::Result<Finding> {
        let mut keys = keys_of_other_partitions(connection, wrong.kept_in);
        let mut name = "a key".to_owned();
        while let Some(key) = keys.try_next().await? {
            let mut found = claims(&self.hasher, wrong.kept_in, &key).into_iter();
            let is_wrong = |(partition, claim): (i16, Claim)| {
                (partition, claim.position, claim.hash) == (self.partition, wrong.position, wrong.hash)
            };
            if found.any(is_wrong) {
                name = format!("key {:?} of caller {:?}", key.key, key.caller);
                break;
            }
        }
        Ok(fold.finding(wrong.position, format!("the receipt of {name} {what}")))
    }
}

/// The claims of a key that partition `kept_in` contains, each with the partition that it is about. A receipt in another form has
/// none: it is found where its key is compared.
fn claims(hasher: &RandomState, kept_in: i16, key: &RecordedKey) -> Vec<(i16, Claim)> {
    let Ok(receipt) = serde_json::from_str::<Receipt>(&key.receipt) else { return vec![] };
    if !is_same_json(&receipt, &key.receipt) {
        return vec![];
    }
    let Position::PerPartition(positions) = receipt.position() else { return vec![] };
    let (facts, account) = match &receipt {
        Receipt::Account(account) => (Facts::Opening, account),
        Receipt::Batch(_) => return vec![],
        Receipt::Transfer(transfer) => {
            let Counterparty::Visible(to) = &transfer.to else { return vec![] };
            let (transfer_id, amount) = (transfer.transfer_id, transfer.amount.minor_units());
            // The key of a reversal is stored with the account that the request named: either side of the transfer.
            match (transfer.is_reversal(), to.position.in_partition(kept_in) > 0) {
                (true, true) => (Facts::Reversed { transfer_id, amount, is_credit: false }, &transfer.from),
                (true, false) => (Facts::Reversed { transfer_id, amount, is_credit: true }, to),
                (false, _) => (Facts::Received { transfer_id, from: transfer.from.account_id, amount }, to),
            }
        }
    };
    let hash = hash(hasher, &facts, account);
    let has_available = account.available.is_some();
    let others = positions.into_iter().filter(|(partition, _)| *partition != kept_in);
    others.map(|(partition, position)| (partition, Claim { position, hash, kept_in, has_available })).collect()
}

/// The facts and the receipt that `event` determines, if a key of another partition can refer to it.
fn expected(fold: &LogFold, event: &RecordedEvent) -> Option<(Facts, AccountReceipt)> {
    let receipt = account_receipt(fold, event)?;
    match Event::decode(&event.event_type, event.schema_version, &event.data).ok()? {
        Event::AccountOpened(_) => Some((Facts::Opening, receipt)),
        Event::TransferReceived(received) => {
            let (transfer_id, from, amount) = (received.transfer_id, received.from, received.amount.minor_units());
            Some((Facts::Received { transfer_id, from, amount }, receipt))
        }
        Event::MovementReversed(reversed) => {
            let (amount, is_credit) = (reversed.amount.minor_units(), reversed.effect == Effect::Credit);
            Some((Facts::Reversed { transfer_id: reversed.transfer_id?, amount, is_credit }, receipt))
        }
        Event::MoneyDeposited(_)
        | Event::MoneyWithdrawn(_)
        | Event::TransferSent(_)
        | Event::HoldPlaced(_)
        | Event::HoldCaptured(_)
        | Event::HoldReleased(_)
        | Event::LimitsSet(_)
        | Event::AccountFrozen(_)
        | Event::AccountUnfrozen(_)
        | Event::AccountClosed(_) => None,
    }
}

fn hash(hasher: &RandomState, facts: &Facts, account: &AccountReceipt) -> u64 {
    // Serialization cannot fail: the receipt has no maps.
    hasher.hash_one((facts, serde_json::to_string(account).unwrap_or_default()))
}
