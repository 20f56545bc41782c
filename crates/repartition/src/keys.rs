//! Copies idempotency keys, so that a retry after the move gets its first outcome. The positions in a receipt are replaced by those
//! of the new log. A recorded refusal has no position and is copied as it is.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{
    error::Error,
    session::{PAGE_ROWS_MAX, Session},
};
use passbook_bank::{AccountReceipt, Counterparty, Receipt, RecordedOutcome};
use passbook_event_store::{
    EventWithHash, Partitions, Position, StreamVersion,
    import::{self, ImportProgress},
    log::{Key, KeyId},
};

impl Session {
    /// Copies the keys of a source partition that were recorded up to `until` and not copied before, in the order of their times.
    /// The target must contain the events of these keys. Later calls skip the keys that were recorded up to `checkpoint`.
    pub(super) async fn copy_keys(
        &mut self,
        partition: i16,
        until: DateTime<Utc>,
        checkpoint: DateTime<Utc>,
    ) -> Result<(), Error> {
        let mut since = self.progress_of(partition).keys_at;
        if since >= until {
            return Ok(());
        }
        loop {
            let page = import::read_keys(&mut self.source, partition, (since, until), PAGE_ROWS_MAX).await?;
            let Some((_, last)) = page.last() else { break };
            since = *last;
            self.copy_key_page(partition, page).await?;
            // An interrupted copy continues here.
            self.store_keys_at(partition, since.min(checkpoint)).await?;
        }
        self.store_keys_at(partition, checkpoint).await
    }

    async fn store_keys_at(&mut self, partition: i16, keys_at: DateTime<Utc>) -> Result<(), Error> {
        let progress = self.progress_of(partition).clone();
        match keys_at > progress.keys_at {
            true => self.store_progress(ImportProgress { keys_at, ..progress }).await,
            false => Ok(()),
        }
    }

    async fn copy_key_page(&mut self, partition: i16, page: Vec<(Key, DateTime<Utc>)>) -> Result<(), Error> {
        let mut receipts = Vec::new();
        let mut groups: BTreeMap<i16, Vec<(Key, DateTime<Utc>)>> = BTreeMap::new();
        for (key, recorded_at) in page {
            match serde_json::from_str(&key.receipt).map_err(|_| receipt_error(&key, "it is not a valid receipt"))? {
                RecordedOutcome::Succeeded(receipt) => receipts.push((key, receipt, recorded_at)),
                RecordedOutcome::Refused(refusal) => {
                    // The first command of a batch may be an opening; the refusal does not show it.
                    let (account_id, may_open) = (refusal.account_id, refusal.index.is_some());
                    for target in key_partitions(&key.id, (account_id, may_open), partition, (self.from, self.to)) {
                        groups.entry(target).or_default().push((key.clone(), recorded_at));
                    }
                }
            }
        }
        let events = self.find_target_events(receipts.iter().flat_map(|(_, receipt, _)| events_of(receipt))).await?;
        for (key, receipt, recorded_at) in receipts {
            let partitions = target_partitions(&key.id, &receipt, partition, (self.from, self.to));
            let receipt = with_new_positions(receipt, self.to, &events);
            let receipt = receipt.ok_or_else(|| receipt_error(&key, "its events are not in the new log"))?;
            let receipt = serde_json::to_string(&receipt);
            let receipt = receipt.map_err(|_| receipt_error(&key, "it cannot be written as JSON"))?;
            let key = Key { receipt, ..key };
            for partition in partitions {
                groups.entry(partition).or_default().push((key.clone(), recorded_at));
            }
        }
        for (partition, keys) in groups {
            import::write_keys(&mut self.target, partition, &keys).await?;
        }
        Ok(())
    }
}

/// The target partitions in which the service looks for the key of a receipt.
fn target_partitions(
    id: &KeyId,
    receipt: &Receipt,
    source_partition: i16,
    (from, to): (Partitions, Partitions),
) -> Vec<i16> {
    let (account_id, is_opening) = match receipt {
        Receipt::Transfer(transfer) => {
            if let Counterparty::Visible(payee) = &transfer.to
                && transfer.is_reversal()
            {
                return reversal_partitions([transfer.from.account_id, payee.account_id], source_partition, (from, to));
            }
            (transfer.from.account_id, false)
        }
        Receipt::Account(account) => (account.account_id, account.version == 1),
        // The key of a batch is stored where that of its first command would be.
        Receipt::Batch(batch) => match batch.results.first() {
            Some(first) => return target_partitions(id, first, source_partition, (from, to)),
            None => return vec![],
        },
    };
    key_partitions(id, (account_id, is_opening), source_partition, (from, to))
}

/// The target partitions in which the service looks for a key: the partition of its account, and for some openings a second one.
///
/// The service looks for an opening without an account id in a partition that it derives from the caller and the key. A receipt
/// does not show whether its request had an account id. An opening whose key was stored in that derived partition of the old log
/// is therefore copied into both.
fn key_partitions(
    id: &KeyId,
    (account_id, may_open): (Uuid, bool),
    source_partition: i16,
    (from, to): (Partitions, Partitions),
) -> Vec<i16> {
    let of_account = to.partition_of(account_id);
    let of_key = to.partition_of_key(&id.caller, &id.key);
    let needs_both = may_open && of_key != of_account && from.partition_of_key(&id.caller, &id.key) == source_partition;
    std::iter::once(of_account).chain(needs_both.then_some(of_key)).collect()
}

/// The target partitions of the key of a transfer's reversal. The key was stored with the account that the request named, and the receipt
/// does not show which of the two that was. If the old log had both in one partition, the key is copied for both.
fn reversal_partitions(accounts: [Uuid; 2], source_partition: i16, (from, to): (Partitions, Partitions)) -> Vec<i16> {
    let named = accounts.into_iter().filter(|account_id| from.partition_of(*account_id) == source_partition);
    let partitions: BTreeSet<i16> = named.map(|account_id| to.partition_of(account_id)).collect();
    partitions.into_iter().collect()
}

/// The events that a receipt refers to.
fn events_of(receipt: &Receipt) -> Vec<StreamVersion> {
    let event = |account: &AccountReceipt| StreamVersion { stream_id: account.account_id, version: account.version };
    match receipt {
        Receipt::Account(account) => vec![event(account)],
        Receipt::Transfer(transfer) => match &transfer.to {
            Counterparty::Visible(to) => vec![event(&transfer.from), event(to)],
            Counterparty::Hidden(_) => vec![event(&transfer.from)],
        },
        Receipt::Batch(batch) => batch.results.iter().flat_map(events_of).collect(),
    }
}

/// Replaces the positions in a receipt. Returns `None` if one of its events is not in the target.
fn with_new_positions(
    mut receipt: Receipt,
    to: Partitions,
    events: &HashMap<(Uuid, i64), EventWithHash>,
) -> Option<Receipt> {
    let new_position = |account: &AccountReceipt| -> Option<Position> {
        let recorded = events.get(&(account.account_id, account.version))?;
        Some(to.position_in(to.partition_of(account.account_id), recorded.event.position))
    };
    match &mut receipt {
        Receipt::Account(account) => account.position = new_position(account)?,
        Receipt::Transfer(transfer) => {
            transfer.from.position = new_position(&transfer.from)?;
            transfer.position = transfer.from.position.clone();
            if let Counterparty::Visible(to) = &mut transfer.to {
                to.position = new_position(to)?;
                transfer.position = transfer.position.clone().merge(to.position.clone());
            }
        }
        Receipt::Batch(batch) => {
            let results = mem::take(&mut batch.results).into_iter();
            let results: Option<Vec<Receipt>> =
                results.map(|receipt| with_new_positions(receipt, to, events)).collect();
            batch.results = results?;
            batch.position = batch.results.iter().map(Receipt::position).reduce(Position::merge)?;
        }
    }
    Some(receipt)
}

fn receipt_error(key: &Key, reason: &'static str) -> Error {
    Error::Receipt { caller: key.id.caller.to_string(), key: key.id.key.clone(), reason }
}
