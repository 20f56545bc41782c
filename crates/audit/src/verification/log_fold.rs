//! Folds the events of a partition in memory, and checks each event: its position, time, hash, version and effect on the
//! account. It also compares snapshots and the pinned heads when it reaches their events.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{
    acceptance::{check_acceptance, check_status},
    checked_events::{CheckedEvent, Content, Undecodable},
    claims::Preceding,
    hold_arithmetic::HoldArithmetic,
    pinned_head::PinnedHead,
    report::{Finding, Money, Report},
};
use passbook_bank::HoldReceipt;
use passbook_domain::{Account, Event, OpenedAccount};
use passbook_event_store::{Hash, Partitions, Position, RecordedEvent, log::Head, scan::RecordedSnapshot};
use passbook_read_model::AccountTable;

/// The state of a partition after the events so far.
pub(super) struct LogFold {
    partitions: Partitions,
    partition: i16,
    position: i64,
    hash: Hash,
    recorded_at: DateTime<Utc>,
    accounts: AccountTable<AccountEntry>,
    /// The versions of the streams of other aggregates. There are few.
    others: HashMap<Uuid, i64>,
    money: BTreeMap<&'static str, Money>,
    /// Snapshots whose version was not reached yet, by stream.
    snapshots: HashMap<Uuid, RecordedSnapshot>,
    snapshots_compared: u64,
    /// The pinned heads whose positions are not reached yet, the next one last.
    pinned_heads: Vec<PinnedHead>,
    holds: HoldArithmetic,
    /// The hold that the last event placed, captured or voided.
    hold: Option<HoldReceipt>,
    preceding: Preceding,
}

/// An account after its events so far.
#[derive(Default)]
struct AccountEntry {
    version: i64,
    account: Account,
}

impl LogFold {
    pub(super) fn new(
        partitions: Partitions,
        partition: i16,
        snapshots: Vec<RecordedSnapshot>,
        mut pinned_heads: Vec<PinnedHead>,
    ) -> Self {
        pinned_heads.sort_by_key(|pinned| Reverse(pinned.position));
        Self {
            partitions,
            partition,
            position: 0,
            hash: [0; 32],
            recorded_at: DateTime::UNIX_EPOCH,
            accounts: AccountTable::default(),
            others: HashMap::new(),
            money: BTreeMap::new(),
            snapshots: snapshots.into_iter().map(|snapshot| (snapshot.stream_id, snapshot)).collect(),
            snapshots_compared: 0,
            pinned_heads,
            holds: HoldArithmetic::default(),
            hold: None,
            preceding: Preceding::default(),
        }
    }

    /// The events before the last one that can belong to the same command.
    pub(super) fn preceding(&self) -> &Preceding {
        &self.preceding
    }

    /// The hold that the last event placed, captured or voided.
    pub(super) fn hold(&self) -> Option<HoldReceipt> {
        self.hold
    }

    /// A finding at a position of this partition.
    pub(super) fn finding(&self, position: i64, message: String) -> Finding {
        Finding::in_partition(self.partitions, self.partition, position, message)
    }

    /// A position in this partition, as clients see it.
    pub(super) fn client_position(&self, position: i64) -> Position {
        self.partitions.position_in(self.partition, position)
    }

    /// How many partitions the log has.
    pub(super) fn partitions(&self) -> Partitions {
        self.partitions
    }

    /// The partition.
    pub(super) fn partition(&self) -> i16 {
        self.partition
    }

    /// The version and state of an account; `None` if it is not opened.
    pub(super) fn opened_account(&self, account_id: Uuid) -> Option<(i64, &OpenedAccount)> {
        let entry = self.accounts.get(&account_id)?;
        Some((entry.version, entry.account.opened().ok()?))
    }

    /// The position of the last event.
    pub(super) fn position(&self) -> i64 {
        self.position
    }

    /// Checks and folds the next event, and sets the place of its account.
    pub(super) fn apply(&mut self, checked: &mut CheckedEvent) -> Result<(), Finding> {
        let position = self.position + 1;
        let (partitions, partition) = (self.partitions, self.partition);
        let finding = |message: String| Finding::in_partition(partitions, partition, position, message);
        let hash = checked.hashes.computed;
        self.check_link(checked.recorded(), &checked.hashes.recorded, &hash)?;
        match &mut checked.content {
            Content::Account(decoded) => {
                let place = self.accounts.place_or_default(decoded.recorded.stream_id);
                decoded.place = Some(place);
                self.evolve(place, &decoded.recorded, &decoded.event).map_err(finding)?;
                self.compare_snapshot(&decoded.recorded).map_err(finding)?;
            }
            Content::Other(recorded) => self.advance_other(recorded).map_err(finding)?,
        }
        let recorded = checked.recorded();
        while let Some(pinned) = self.pinned_heads.pop_if(|pinned| pinned.position == position) {
            if !pinned.matches(&hash) {
                let source = pinned.source();
                return Err(finding(format!("the event's hash differs from {source}: the log was rewritten")));
            }
        }
        self.preceding.advance(recorded);
        (self.position, self.hash, self.recorded_at) = (position, hash, recorded.recorded_at);
        Ok(())
    }

    /// The finding of an event that cannot be decoded: it may also be in the wrong place.
    pub(super) fn undecodable(&self, Undecodable { event, computed, error }: &Undecodable) -> Finding {
        match self.check_link(&event.event, &event.hash, computed) {
            Err(finding) => finding,
            Ok(()) => self.finding(self.position + 1, error.to_string()),
        }
    }

    /// Checks that an event follows the last one.
    fn check_link(&self, recorded: &RecordedEvent, hash: &[u8], computed: &Hash) -> Result<(), Finding> {
        let position = self.position + 1;
        let finding = |message: &str| Err(self.finding(position, message.to_owned()));
        if recorded.position != position {
            return finding("the event is missing from the log");
        }
        if recorded.recorded_at < self.recorded_at {
            return finding("the event's time is earlier than that of the previous event");
        }
        if hash != computed {
            return finding(
                "the event's hash does not match its content and the previous event: an event was changed, moved or inserted",
            );
        }
        Ok(())
    }

    /// Applies `event` to its account, if the account's state allows it.
    fn evolve(&mut self, place: u32, recorded: &RecordedEvent, event: &Event) -> Result<(), String> {
        let account_id = recorded.stream_id;
        let entry = self.accounts.at_mut(place);
        if recorded.version != entry.version + 1 {
            let (version, previous) = (recorded.version, entry.version);
            return Err(format!("account {account_id} has version {version} directly after version {previous}"));
        }
        let fails = |reason| format!("account {account_id} {reason}");
        check_status(&entry.account, event).map_err(fails)?;
        self.hold = HoldReceipt::of(account_id, &entry.account, std::slice::from_ref(event), recorded.recorded_at);
        self.holds.apply(recorded, event)?;
        entry.version = recorded.version;
        entry.account = std::mem::take(&mut entry.account).evolve(event, recorded.recorded_at);
        let Ok(account) = entry.account.opened() else { return Err(format!("account {account_id} is not opened")) };
        check_acceptance(account, event, recorded.recorded_at).map_err(fails)?;
        self.money.entry(account.currency.code()).or_default().add_event(event);
        Ok(())
    }

    /// Checks the version of an event of another aggregate. No hold is its effect.
    fn advance_other(&mut self, recorded: &RecordedEvent) -> Result<(), String> {
        self.hold = None;
        let (stream, version) = (recorded.stream_id, recorded.version);
        let previous = self.others.insert(stream, version).unwrap_or_default();
        match version == previous + 1 {
            true => Ok(()),
            false => Err(format!("stream {stream} has version {version} directly after version {previous}")),
        }
    }

    fn compare_snapshot(&mut self, recorded: &RecordedEvent) -> Result<(), String> {
        let (account_id, version) = (recorded.stream_id, recorded.version);
        if self.snapshots.get(&account_id).is_none_or(|snapshot| snapshot.version != version) {
            return Ok(());
        }
        let Some(snapshot) = self.snapshots.remove(&account_id) else { return Ok(()) };
        let stored: Option<Account> = serde_json::from_str(&snapshot.state).ok();
        if stored.as_ref() != self.accounts.get(&account_id).map(|entry| &entry.account) {
            return Err(format!("the snapshot of account {account_id} at version {version} does not match its events"));
        }
        self.snapshots_compared += 1;
        Ok(())
    }

    /// Checks that the events end at `head`, and that all pinned heads and snapshots were reached.
    pub(super) fn finish(&mut self, head: &Head) -> Result<(), Finding> {
        let fail = |position, message| Err(self.finding(position, message));
        let last = self.position;
        if head.position > last {
            let head = head.position;
            return fail(
                last + 1,
                format!("the event is missing, and the head is at position {head}: the log was truncated"),
            );
        }
        if head.position < last {
            let head = head.position;
            return fail(head + 1, format!("the log has an event after its head at position {head}"));
        }
        if head.hash != self.hash || (last > 0 && head.recorded_at < self.recorded_at) {
            // A read of a moment, and a key without events, raise the head's time above that of the last event.
            return fail(last, "the hash of the head is not that of the last event, or its time is earlier".to_owned());
        }
        if let Some(pinned) = self.pinned_heads.last() {
            let (source, position) = (pinned.source(), pinned.position);
            return fail(last + 1, format!("the log ends before {source} at position {position}"));
        }
        if let Some(snapshot) = self.snapshots.values().next() {
            let (account_id, version) = (snapshot.stream_id, snapshot.version);
            return fail(
                last,
                format!("account {account_id} has a snapshot of version {version}, which does not exist"),
            );
        }
        for (_, entry) in self.accounts.iter() {
            if let Ok(account) = entry.account.opened() {
                self.money.entry(account.currency.code()).or_default().balances += i128::from(account.balance);
            }
        }
        Ok(())
    }

    /// Adds the totals of this partition to the report.
    pub(super) fn add_to(self, report: &mut Report) {
        report.events += self.position;
        report.accounts += self.accounts.len();
        report.snapshots += self.snapshots_compared;
        for (currency, money) in self.money {
            report.money.entry(currency).or_default().add(money);
        }
    }
}
