//! What the receipt of a key says about events: for each account that a command changed, the state after its last event, and the
//! facts that this event records. The receipt of a batch has a thousand results, so a claim keeps only a keyed hash of them.

use std::hash::{BuildHasher, RandomState};

use chrono::{DateTime, Utc};
use serde::Deserialize;
use uuid::Uuid;

use super::{
    checked_events::{CheckedEvent, Content},
    log_fold::LogFold,
};
use passbook_bank::{AccountReceipt, Counterparty, HoldReceipt, Receipt, RecordedFact, TransferReceipt};
use passbook_domain::{Event, EventType, reversal::Effect};
use passbook_event_store::{Position, RecordedEvent};

/// A claim about the last event that a command recorded of one account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) partition: i16,
    pub(super) position: i64,
    hash: u64,
    /// How many events the command recorded of the account.
    events: u8,
    /// Whether the receipt has `available`; older releases did not write it.
    has_available: bool,
    /// Whether the event must have the batch id of the receipt.
    is_of_batch: bool,
    /// Whether the next event of the partition is the other side of the same transfer.
    is_followed_by_receiver: bool,
}

/// The facts of a command that its event records, besides the receipt of the account.
#[derive(Hash)]
enum Facts {
    /// The command changed no other account.
    Own,
    Sent {
        transfer_id: Uuid,
        to: Uuid,
        amount: i64,
    },
    Received {
        transfer_id: Uuid,
        from: Uuid,
        amount: i64,
    },
    Reversed {
        transfer_id: Uuid,
        amount: i64,
        is_credit: bool,
    },
}

/// The receipt that the JSON of a key contains, and its claims. `None` if the service does not write such a receipt.
pub(super) fn claims_of(hasher: &RandomState, json: &str) -> Option<(Receipt, Vec<Claim>)> {
    let receipt: Receipt = serde_json::from_str(json).ok()?;
    let mut claims = Claims { hasher, batch_id: None, found: Vec::new() };
    (is_same_json(&receipt, json) && claims.add(&receipt).is_some()).then_some((receipt, claims.found))
}

/// The number of events that a receipt names.
pub(super) fn event_count(claims: &[Claim]) -> u32 {
    claims.iter().map(|claim| u32::from(claim.events)).sum()
}

/// The id of the batch that recorded an event, from the event's metadata.
pub(super) fn batch_id(metadata: &str) -> Option<Uuid> {
    #[derive(Deserialize)]
    struct Metadata {
        batch_id: Option<Uuid>,
    }
    serde_json::from_str::<Metadata>(metadata).ok()?.batch_id
}

impl Claim {
    /// The position at which a mismatch is reported: that of the last event of the command in this partition.
    pub(super) fn command_position(&self) -> i64 {
        self.position + i64::from(self.is_followed_by_receiver)
    }

    /// Whether the event at the position of the claim, which is the last event of the fold, is as the receipt says.
    pub(super) fn matches(&self, hasher: &RandomState, fold: &LogFold, checked: &CheckedEvent) -> bool {
        self.expected_hash(hasher, fold, checked) == Some(self.hash)
    }

    fn expected_hash(&self, hasher: &RandomState, fold: &LogFold, checked: &CheckedEvent) -> Option<u64> {
        let Content::Account(decoded) = &checked.content else { return None };
        let event = &decoded.recorded;
        let (version, account) = fold.opened_account(event.stream_id)?;
        let mut receipt = AccountReceipt {
            account_id: event.stream_id,
            version,
            status: account.status,
            balance: account.balance,
            available: self.has_available.then(|| account.available(event.recorded_at)),
            currency: account.currency,
            position: fold.client_position(event.position),
            events: fold.preceding().command_events(event, usize::from(self.events))?,
            hold: None,
        };
        let facts = facts(&decoded.event);
        let hold = match facts {
            Facts::Own => {
                receipt.hold = fold.hold();
                None
            }
            Facts::Sent { .. } | Facts::Received { .. } | Facts::Reversed { .. } => fold.hold(),
        };
        let batch_id = match self.is_of_batch {
            true => Some(batch_id(&checked.metadata)?),
            false => None,
        };
        Some(hash(hasher, &facts, (&receipt, hold), batch_id))
    }
}

/// Collects the claims of a receipt.
struct Claims<'h> {
    hasher: &'h RandomState,
    batch_id: Option<Uuid>,
    found: Vec<Claim>,
}

impl Claims<'_> {
    /// Adds the claims of a receipt; `None` if its members contradict each other.
    fn add(&mut self, receipt: &Receipt) -> Option<()> {
        match receipt {
            Receipt::Account(account) => self.add_account(&Facts::Own, account, None).map(drop),
            Receipt::Transfer(transfer) => self.add_transfer(transfer),
            Receipt::Batch(batch) if self.batch_id.is_none() => {
                self.batch_id = Some(batch.batch_id);
                let position = batch.results.iter().map(Receipt::position).reduce(Position::merge)?;
                batch.results.iter().try_for_each(|result| self.add(result))?;
                (position == batch.position).then_some(())
            }
            // A batch contains no other batch.
            Receipt::Batch(_) => None,
        }
    }

    fn add_transfer(&mut self, transfer: &TransferReceipt) -> Option<()> {
        let TransferReceipt { transfer_id, amount, currency, position, from, to, hold } = transfer;
        let Counterparty::Visible(to) = to else { return None };
        let (transfer_id, amount) = (*transfer_id, amount.minor_units());
        let (sent, received) = match transfer.is_reversal() {
            true => (
                Facts::Reversed { transfer_id, amount, is_credit: false },
                Facts::Reversed { transfer_id, amount, is_credit: true },
            ),
            false => (
                Facts::Sent { transfer_id, to: to.account_id, amount },
                Facts::Received { transfer_id, from: from.account_id, amount },
            ),
        };
        let is_consistent = [from, to].iter().all(|side| side.currency == *currency && side.events.len() == 1)
            && from.available.is_some() == to.available.is_some()
            && from.position.clone().merge(to.position.clone()) == *position;
        let from = self.add_account(&sent, from, *hold)?;
        let to = self.add_account(&received, to, None)?;
        let [.., sender, receiver] = &mut self.found[..] else { return None };
        sender.is_followed_by_receiver = from.0 == to.0;
        // In one partition the receiver's event follows at once.
        (is_consistent && (from.0 != to.0 || receiver.position == sender.position + 1)).then_some(())
    }

    /// Adds the claim about one account, and returns its partition and position.
    fn add_account(
        &mut self,
        facts: &Facts,
        account: &AccountReceipt,
        hold: Option<HoldReceipt>,
    ) -> Option<(i16, i64)> {
        let (partition, position) = match &account.position {
            Position::Single(position) => (0, *position),
            Position::PerPartition(positions) => match positions[..] {
                [position] => position,
                _ => return None,
            },
        };
        let has_available = account.available.is_some();
        let is_of_batch = self.batch_id.is_some();
        // The commands of a batch are executed in order.
        let earlier = self.found.iter().rev().find(|earlier| earlier.partition == partition);
        let is_in_order = earlier.is_none_or(|earlier| earlier.position < position);
        let events = u8::try_from(account.events.len()).ok().filter(|events| *events > 0)?;
        let hash = hash(self.hasher, facts, (account, hold), self.batch_id);
        let claim =
            Claim { partition, position, hash, events, has_available, is_of_batch, is_followed_by_receiver: false };
        self.found.push(claim);
        (is_in_order && (has_available || !is_of_batch)).then_some((partition, position))
    }
}

fn facts(event: &Event) -> Facts {
    match event {
        Event::TransferSent(sent) => {
            Facts::Sent { transfer_id: sent.transfer_id, to: sent.to, amount: sent.amount.minor_units() }
        }
        Event::TransferReceived(received) => {
            let (transfer_id, from, amount) = (received.transfer_id, received.from, received.amount.minor_units());
            Facts::Received { transfer_id, from, amount }
        }
        Event::MovementReversed(reversed) => match reversed.transfer_id {
            Some(transfer_id) => {
                let (amount, is_credit) = (reversed.amount.minor_units(), reversed.effect == Effect::Credit);
                Facts::Reversed { transfer_id, amount, is_credit }
            }
            None => Facts::Own,
        },
        Event::AccountOpened(_)
        | Event::MoneyDeposited(_)
        | Event::MoneyWithdrawn(_)
        | Event::HoldPlaced(_)
        | Event::HoldCaptured(_)
        | Event::HoldReleased(_)
        | Event::LimitsSet(_)
        | Event::AccountFrozen(_)
        | Event::AccountUnfrozen(_)
        | Event::AccountClosed(_) => Facts::Own,
    }
}

fn hash(
    hasher: &RandomState,
    facts: &Facts,
    (account, hold): (&AccountReceipt, Option<HoldReceipt>),
    batch_id: Option<Uuid>,
) -> u64 {
    // Serialization cannot fail: the receipts have no maps.
    let json = serde_json::to_string(&(account, hold)).unwrap_or_default();
    hasher.hash_one((facts, json, batch_id))
}

/// Whether the stored JSON equals that of `expected`. The order of members may differ, because previous releases wrote another.
fn is_same_json(expected: &Receipt, stored: &str) -> bool {
    let json = serde_json::to_string(expected).unwrap_or_default();
    let value = |text| serde_json::from_str::<serde_json::Value>(text).ok();
    json == stored || value(&json) == value(stored)
}

/// The releases of holds directly before the last event, of the same account and time: a command may begin with expiries of holds.
#[derive(Default)]
pub(super) struct Preceding {
    releases: Vec<(Uuid, i64)>,
    last: Option<LastEvent>,
}

#[derive(Clone, Copy)]
struct LastEvent {
    stream_id: Uuid,
    recorded_at: DateTime<Utc>,
    /// Its id and version, if it releases a hold.
    release: Option<(Uuid, i64)>,
}

impl Preceding {
    pub(super) fn advance(&mut self, event: &RecordedEvent) {
        let RecordedEvent { id, stream_id, version, recorded_at, .. } = *event;
        let before = self.last.filter(|last| (last.stream_id, last.recorded_at) == (stream_id, recorded_at));
        match before.and_then(|last| last.release) {
            Some(release) => self.releases.push(release),
            None => self.releases.clear(),
        }
        let release = (event.event_type == EventType::HoldReleased.name()).then_some((id, version));
        self.last = Some(LastEvent { stream_id, recorded_at, release });
    }

    /// The last `count` events of the command whose last event is `event`; `None` if not so many can belong to it.
    fn command_events(&self, event: &RecordedEvent, count: usize) -> Option<Vec<RecordedFact>> {
        let recorded_at = Some(event.recorded_at);
        let first = self.releases.len().checked_sub(count.checked_sub(1)?)?;
        let releases = self.releases.get(first..)?.iter().map(|(id, version)| RecordedFact {
            id: Some(*id),
            event_type: EventType::HoldReleased.name().to_owned(),
            version: *version,
            recorded_at,
        });
        let (id, event_type, version) = (Some(event.id), event.event_type.clone(), event.version);
        Some(releases.chain([RecordedFact { id, event_type, version, recorded_at }]).collect())
    }
}
