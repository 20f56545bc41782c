//! The fold of the whole log, and what must hold at each event of it.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Finding, Money, Report, Witness};
use passbook_domain::{Account, OpenedAccount, Event, Status, money::MINOR_UNITS_MAX};
use passbook_event_store::{
    Hash, Partitions, Position, RecordedEvent, chain,
    log::Head,
    whole::{LinkedEvent, RecordedSnapshot},
};

/// Everything that the log has said so far.
pub(super) struct Books {
    partitions: Partitions,
    partition: i16,
    position: i64,
    hash: Hash,
    recorded_at: DateTime<Utc>,
    accounts: HashMap<Uuid, Entry>,
    money: BTreeMap<&'static str, Money>,
    /// Snapshots that the pass has not reached yet.
    snapshots: HashMap<Uuid, RecordedSnapshot>,
    snapshots_compared: u64,
    /// What a witness saw, until the pass has reached it.
    witness: Option<Witness>,
}

/// An account as its events make it.
#[derive(Default)]
pub(super) struct Entry {
    pub version: i64,
    pub account: Account,
}

impl Books {
    pub(super) fn new(
        partitions: Partitions,
        partition: i16,
        snapshots: Vec<RecordedSnapshot>,
        witness: Option<Witness>,
    ) -> Self {
        Self {
            partitions,
            partition,
            position: 0,
            hash: [0; 32],
            recorded_at: DateTime::UNIX_EPOCH,
            accounts: HashMap::new(),
            money: BTreeMap::new(),
            snapshots: snapshots.into_iter().map(|snapshot| (snapshot.stream_id, snapshot)).collect(),
            snapshots_compared: 0,
            witness,
        }
    }

    /// What is wrong at a position of this partition.
    pub(super) fn finding(&self, position: i64, sentence: String) -> Finding {
        Finding::in_partition(self.partitions, self.partition, position, sentence)
    }

    /// A place in this partition.
    pub(super) fn place(&self, position: i64) -> Position {
        self.partitions.position(self.partition, position)
    }

    /// How many partitions the log has.
    pub(super) fn partitions(&self) -> Partitions {
        self.partitions
    }

    /// Which partition this is.
    pub(super) fn partition(&self) -> i16 {
        self.partition
    }

    /// An opened account, if it is one.
    pub(super) fn book(&self, account_id: Uuid) -> Option<(i64, &OpenedAccount)> {
        let entry = self.accounts.get(&account_id)?;
        Some((entry.version, entry.account.opened().ok()?))
    }

    /// One more event: it follows the one before, is what was recorded, and may happen to its account.
    pub(super) fn record(&mut self, linked: &LinkedEvent) -> Result<Event, Finding> {
        let recorded = &linked.event;
        let position = self.position + 1;
        let (partitions, partition) = (self.partitions, self.partition);
        let broken = |sentence: String| Finding::in_partition(partitions, partition, position, sentence);
        if recorded.position != position {
            return Err(broken("the event is missing from the log".to_owned()));
        }
        if recorded.recorded_at < self.recorded_at {
            return Err(broken("the event was recorded earlier than the one before it".to_owned()));
        }
        let hash = chain::hash(&self.hash, linked.link(self.partition));
        if linked.hash != hash {
            let what = "the event's hash is not that of its content and of the event before it: it was changed, moved or put in";
            return Err(broken(what.to_owned()));
        }
        let event = Event::decode(&recorded.event_type, recorded.schema_version, &recorded.data)
            .map_err(|error| broken(error.to_string()))?;
        self.fold(recorded, &event).map_err(broken)?;
        self.compare_snapshot(recorded).map_err(broken)?;
        if let Some(witness) = self.witness.take_if(|witness| witness.position == position)
            && !witness.agrees_with(&hash)
        {
            return Err(broken(
                "the event is not the one that the witness wrote down: the log was rewritten".to_owned(),
            ));
        }
        (self.position, self.hash, self.recorded_at) = (position, hash, recorded.recorded_at);
        Ok(event)
    }

    /// The account after `event`, if that may happen to it.
    fn fold(&mut self, recorded: &RecordedEvent, event: &Event) -> Result<(), String> {
        let account_id = recorded.stream_id;
        let entry = self.accounts.entry(account_id).or_default();
        if recorded.version != entry.version + 1 {
            let (found, before) = (recorded.version, entry.version);
            return Err(format!("version {found} of account {account_id} follows version {before}"));
        }
        match (&entry.account, event) {
            (Account::Unopened, Event::AccountOpened(_)) => {}
            (Account::Unopened, _) => return Err(format!("account {account_id} was not opened before")),
            (Account::Opened(_), Event::AccountOpened(_)) => {
                return Err(format!("account {account_id} is opened a second time"));
            }
            (Account::Opened(OpenedAccount { status: Status::Closed, .. }), _) => {
                return Err(format!("something happens to account {account_id}, which was closed before"));
            }
            (Account::Opened(_), _) => {}
        }
        entry.version = recorded.version;
        entry.account = std::mem::take(&mut entry.account).evolve(event);
        let Ok(book) = entry.account.opened() else { return Err(format!("account {account_id} is not there")) };
        if !(0..=MINOR_UNITS_MAX).contains(&book.balance) {
            return Err(format!("account {account_id} has a balance of {}", book.balance));
        }
        self.money.entry(book.currency.code()).or_default().record(event);
        Ok(())
    }

    fn compare_snapshot(&mut self, recorded: &RecordedEvent) -> Result<(), String> {
        let (account_id, version) = (recorded.stream_id, recorded.version);
        if self.snapshots.get(&account_id).is_none_or(|snapshot| snapshot.version != version) {
            return Ok(());
        }
        let Some(snapshot) = self.snapshots.remove(&account_id) else { return Ok(()) };
        let kept: Option<Account> = serde_json::from_str(&snapshot.state).ok();
        if kept.as_ref() != self.accounts.get(&account_id).map(|entry| &entry.account) {
            return Err(format!(
                "the snapshot of account {account_id} at version {version} is not what its events say"
            ));
        }
        self.snapshots_compared += 1;
        Ok(())
    }

    /// The log ends where its head says, and nothing that was kept speaks of more.
    pub(super) fn close(&mut self, head: &Head) -> Result<(), Finding> {
        let broken = |position, sentence| Err(self.finding(position, sentence));
        let last = self.position;
        if head.position > last {
            let missing = head.position - last;
            return broken(
                last + 1,
                format!("the log ends before, and its head is {missing} further: the end was cut off"),
            );
        }
        if head.position < last {
            return broken(head.position + 1, "the log goes on behind its head".to_owned());
        }
        if head.hash != self.hash || (last > 0 && head.recorded_at != self.recorded_at) {
            return broken(last, "the head's hash or time is not that of the last event".to_owned());
        }
        if let Some(witness) = &self.witness {
            return broken(last + 1, format!("the log ends before position {}, which a witness saw", witness.position));
        }
        if let Some(snapshot) = self.snapshots.values().next() {
            let (account_id, version) = (snapshot.stream_id, snapshot.version);
            return broken(
                last,
                format!("the snapshot of account {account_id} is of version {version}, which never was"),
            );
        }
        for account in self.accounts.values() {
            if let Ok(book) = account.account.opened() {
                self.money.entry(book.currency.code()).or_default().balances += i128::from(book.balance);
            }
        }
        Ok(())
    }

    /// Puts what this partition comes to beside that of the others.
    pub(super) fn add_to(self, report: &mut Report) {
        report.events += self.position;
        report.accounts += self.accounts.len();
        report.snapshots += self.snapshots_compared;
        for (currency, money) in self.money {
            report.money.entry(currency).or_default().add(money);
        }
    }
}
