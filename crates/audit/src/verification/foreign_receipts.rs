//! Receipts that contain events of another partition than that of their key: transfers and batches over partitions, and openings whose
//! account `passbook copy` has moved. They are read once, before the partitions; 32 bytes of each event stay in memory until its
//! partition is verified, and some 40 of each batch with a key until the end.

use std::{
    collections::{BTreeMap, HashMap},
    hash::RandomState,
    iter::Peekable,
    vec,
};

use futures_util::TryStreamExt;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    checked_events::CheckedEvent,
    claims::{Claim, batch_id, claims_of, event_count},
    log_fold::LogFold,
    report::{Error, Finding},
};
use passbook_bank::Receipt;
use passbook_event_store::{
    Partitions,
    scan::{RecordedKey, keys_of_other_partitions},
};

/// What receipts in other partitions say, by the partition of the events.
#[derive(Default)]
pub(super) struct ForeignReceipts {
    claims: BTreeMap<i16, Vec<ForeignClaim>>,
    batches: BatchCounts,
    hasher: RandomState,
}

/// A claim, and the partition that contains its key.
#[derive(Clone, Copy, Debug)]
struct ForeignClaim {
    claim: Claim,
    kept_in: i16,
}

/// For each batch with a key, how many events its receipt names, and how many events of the log have its id.
#[derive(Default)]
pub(super) struct BatchCounts(HashMap<Uuid, (u32, u32)>);

/// The claims about one partition that are not compared yet, in the order of their positions.
pub(super) struct PartitionClaims {
    claims: Peekable<vec::IntoIter<ForeignClaim>>,
    hasher: RandomState,
}

impl ForeignReceipts {
    /// Reads the receipts of all partitions. A log with one partition needs none.
    pub(super) async fn load(connection: &mut PgConnection, partitions: Partitions) -> sqlx::Result<Self> {
        let mut receipts = Self::default();
        if !partitions.is_partitioned() {
            return Ok(receipts);
        }
        for partition in partitions.all() {
            let mut keys = keys_of_other_partitions(connection, partition);
            while let Some(key) = keys.try_next().await? {
                receipts.add(partition, &key);
            }
        }
        Ok(receipts)
    }

    /// Adds the claims of a key that partition `kept_in` contains. A receipt in another form has none: it is found where its key is
    /// compared.
    fn add(&mut self, kept_in: i16, key: &RecordedKey) {
        let Some((receipt, claims)) = claims_of(&self.hasher, &key.receipt) else { return };
        if let Receipt::Batch(batch) = receipt {
            // After `passbook copy` two partitions may contain the key.
            self.batches.0.insert(batch.batch_id, (event_count(&claims), 0));
        }
        for claim in claims.into_iter().filter(|claim| claim.partition != kept_in) {
            self.claims.entry(claim.partition).or_default().push(ForeignClaim { claim, kept_in });
        }
    }

    /// Takes the claims about a partition.
    pub(super) fn take(&mut self, partition: i16) -> PartitionClaims {
        let mut claims = self.claims.remove(&partition).unwrap_or_default();
        claims.sort_by_key(|foreign| foreign.claim.position);
        PartitionClaims { claims: claims.into_iter().peekable(), hasher: self.hasher.clone() }
    }

    /// Counts an event, if it is that of a batch with a key.
    pub(super) fn count(&mut self, checked: &CheckedEvent) {
        if !self.batches.0.is_empty()
            && let Some((_, found)) = batch_id(&checked.metadata).and_then(|id| self.batches.0.get_mut(&id))
        {
            *found += 1;
        }
    }

    /// A finding for a batch whose receipt does not name all its events.
    pub(super) fn find_unnamed(&self, events: i64) -> Option<Finding> {
        let (batch_id, (named, found)) = self.batches.0.iter().find(|(_, (named, found))| named != found)?;
        let message = format!("the receipt of batch {batch_id} names {named} events, but the log has {found} of it");
        Some(Finding { partition: None, position: events, message })
    }
}

impl PartitionClaims {
    /// Compares the claims about an event. `connection` finds the key of a wrong one.
    pub(super) async fn compare(
        &mut self,
        connection: &mut PgConnection,
        fold: &LogFold,
        checked: &CheckedEvent,
    ) -> Result<(), Error> {
        let position = checked.recorded().position;
        while let Some(foreign) = self.claims.next_if(|foreign| foreign.claim.position <= position) {
            if foreign.claim.position != position || !foreign.claim.matches(&self.hasher, fold, checked) {
                return Err(self.finding(connection, fold, foreign, "does not match its events").await?.into());
            }
        }
        Ok(())
    }

    /// Checks that no claim is about a position beyond the log.
    pub(super) async fn finish(mut self, connection: &mut PgConnection, fold: &LogFold) -> Result<(), Error> {
        match self.claims.next() {
            None => Ok(()),
            Some(foreign) => {
                Err(self.finding(connection, fold, foreign, "names an event that does not exist").await?.into())
            }
        }
    }

    async fn finding(
        &self,
        connection: &mut PgConnection,
        fold: &LogFold,
        wrong: ForeignClaim,
        what: &str,
    ) -> sqlx::Result<Finding> {
        let mut keys = keys_of_other_partitions(connection, wrong.kept_in);
        let mut name = "a key".to_owned();
        while let Some(key) = keys.try_next().await? {
            let claims = claims_of(&self.hasher, &key.receipt).map(|(_, claims)| claims);
            if claims.is_some_and(|claims| claims.contains(&wrong.claim)) {
                name = format!("key {:?} of caller {:?}", key.key, key.caller);
                break;
            }
        }
        Ok(fold.finding(wrong.claim.position, format!("the receipt of {name} {what}")))
    }
}
