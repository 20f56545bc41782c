//! Idempotency keys on their way: a retry that comes after the move is answered as before, and the positions that it is
//! told are those of the log that answers.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Copy, Error, PAGE_ROWS_MAX, Progress, copied};
use passbook_bank::{AccountReceipt, Counterparty, Receipt};
use passbook_event_store::{
    Partitions, Position, StreamVersion,
    log::{Key, KeyId},
    whole::LinkedEvent,
};

impl Copy {
    /// The keys that were recorded up to `until`, behind those that were copied before. Their events are all here. Up to `noted`
    /// they are not looked for again.
    pub(super) async fn copy_keys(
        &mut self,
        partition: i16,
        until: DateTime<Utc>,
        noted: DateTime<Utc>,
    ) -> Result<(), Error> {
        let since = self.of(partition).keys_at;
        if since >= until {
            return Ok(());
        }
        let mut after: Option<KeyId> = None;
        loop {
            let page = copied::keys(&mut self.source, partition, after.as_ref(), (since, until), PAGE_ROWS_MAX).await?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.id.clone());
            self.copy_page_of_keys(partition, page).await?;
        }
        let copied = Progress { keys_at: noted.max(since), ..self.of(partition).clone() };
        if !copied::advance(&mut self.target, copied.position, &copied).await? {
            return Err(Error::Contended);
        }
        self.set(copied);
        Ok(())
    }

    async fn copy_page_of_keys(&mut self, partition: i16, page: Vec<(Key, DateTime<Utc>)>) -> Result<(), Error> {
        let mut receipts = Vec::new();
        for (key, recorded_at) in page {
            let receipt: Receipt = serde_json::from_str(&key.receipt).map_err(|_| unreadable(&key, "it is none"))?;
            receipts.push((key, receipt, recorded_at));
        }
        let found = self.find(receipts.iter().flat_map(|(_, receipt, _)| named(receipt))).await?;
        let mut lanes: BTreeMap<i16, Vec<(Key, DateTime<Utc>)>> = BTreeMap::new();
        for (key, receipt, recorded_at) in receipts {
            let homes = homes(&key.id, &receipt, partition, (self.from, self.to));
            let receipt = moved(receipt, self.to, &found);
            let receipt = receipt.ok_or_else(|| unreadable(&key, "its events are not in the log"))?;
            let receipt = serde_json::to_string(&receipt).map_err(|_| unreadable(&key, "it cannot be written"))?;
            let key = Key { receipt, ..key };
            for home in homes {
                lanes.entry(home).or_default().push((key.clone(), recorded_at));
            }
        }
        for (lane, keys) in lanes {
            copied::write_keys(&mut self.target, lane, &keys).await?;
        }
        Ok(())
    }
}

/// Where a key will be looked for: with its account. An opening is also looked for where one without an id goes, which its
/// receipt does not say, but then its old place was chosen in the same way.
fn homes(id: &KeyId, receipt: &Receipt, kept_in: i16, (from, to): (Partitions, Partitions)) -> Vec<i16> {
    let (account_id, is_opening) = match receipt {
        Receipt::Transfer(transfer) => (transfer.from.account_id, false),
        Receipt::Account(account) => (account.account_id, account.version == 1),
    };
    let home = to.of(account_id);
    let chosen = to.of_key(&id.caller, &id.key);
    let is_elsewhere = is_opening && chosen != home && from.of_key(&id.caller, &id.key) == kept_in;
    std::iter::once(home).chain(is_elsewhere.then_some(chosen)).collect()
}

/// The events that a receipt is of.
fn named(receipt: &Receipt) -> Vec<StreamVersion> {
    let of = |account: &AccountReceipt| StreamVersion { stream_id: account.account_id, version: account.version };
    match receipt {
        Receipt::Account(account) => vec![of(account)],
        Receipt::Transfer(transfer) => match &transfer.to {
            Counterparty::Visible(to) => vec![of(&transfer.from), of(to)],
            Counterparty::Hidden(_) => vec![of(&transfer.from)],
        },
    }
}

/// The same receipt with the positions of the new log.
fn moved(mut receipt: Receipt, to: Partitions, found: &HashMap<(Uuid, i64), LinkedEvent>) -> Option<Receipt> {
    let place = |account: &AccountReceipt| -> Option<Position> {
        let linked = found.get(&(account.account_id, account.version))?;
        Some(to.position(to.of(account.account_id), linked.event.position))
    };
    match &mut receipt {
        Receipt::Account(account) => account.position = place(account)?,
        Receipt::Transfer(transfer) => {
            transfer.from.position = place(&transfer.from)?;
            transfer.position = transfer.from.position.clone();
            if let Counterparty::Visible(received) = &mut transfer.to {
                received.position = place(received)?;
                transfer.position = transfer.position.clone().and(received.position.clone());
            }
        }
    }
    Some(receipt)
}

fn unreadable(key: &Key, reason: &'static str) -> Error {
    Error::Receipt { caller: key.id.caller.to_string(), key: key.id.key.clone(), reason }
}
