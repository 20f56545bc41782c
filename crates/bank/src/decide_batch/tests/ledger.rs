//! A log in memory. It does what the appender and the event store do around a decision, without a database.

use std::{
    collections::{HashMap, HashSet},
    fmt::Write,
};

use chrono::{DateTime, Utc};
use passbook_domain::{Command, Event, command::ReversedSide, reversal::RecordedMovement};
use passbook_event_store::{
    NewEvent, Partitions, StreamVersion,
    log::{Head, Reversal as ReversalRow},
    reversals::Movement,
};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::super::{Basis, Decided, HeadsByPartition, RecordedKeys, commands, decide};
use crate::{
    account_cache::CachedAccount,
    command::{CommandContext, IdempotencyKey},
    history::{History, captured_or_voided_hold, reversed_events},
    pending::{AtomicBatch, CommandInContext, Pending, Work},
    reversal_lookup::{Reversal, command_of, transfer_of},
};

/// The time of the first batch.
const START: &str = "2026-03-01T12:00:00Z";
/// A snapshot is taken of an account that passes a multiple of this many versions.
const SNAPSHOT_EVERY: i64 = 2;

/// The log, and the accounts at its heads.
#[derive(Clone)]
pub(super) struct Ledger {
    pub partitions: Partitions,
    heads: HeadsByPartition,
    accounts: HashMap<Uuid, CachedAccount>,
    keys: RecordedKeys,
    events: HashMap<StreamVersion, (Uuid, Event)>,
    reversals: HashMap<StreamVersion, ReversalRow>,
}

impl Ledger {
    pub(super) fn new(partitions: i16) -> Self {
        let partitions = Partitions::new(partitions).expect("a number of partitions");
        let recorded_at = START.parse().expect("a time");
        let head = Head { position: 0, hash: [0; 32], recorded_at, fence: 0 };
        Self {
            partitions,
            heads: partitions.all().map(|partition| (partition, head.clone())).collect(),
            accounts: HashMap::new(),
            keys: HashMap::new(),
            events: HashMap::new(),
            reversals: HashMap::new(),
        }
    }

    /// Decides work as one batch, and appends it.
    pub(super) fn execute(&mut self, work: Vec<Work>) -> Decided {
        let decided = self.decide(work);
        self.append(&decided);
        decided
    }

    /// Decides work as one batch.
    pub(super) fn decide(&self, work: Vec<Work>) -> Decided {
        let batch: Vec<Pending> = work.into_iter().map(Pending::of_test).collect();
        let load = |account_id: Uuid| (account_id, Ok(self.account(account_id)));
        let basis = Basis {
            heads: self.heads.clone(),
            accounts: batch.iter().flat_map(Pending::accounts).map(load).collect(),
            recorded_keys: self.keys.clone(),
            history: self.history(&batch),
        };
        decide(&batch, &basis, self.partitions, self.next_time(), SNAPSHOT_EVERY)
    }

    /// The account at the head.
    pub(super) fn account(&self, account_id: Uuid) -> CachedAccount {
        self.accounts.get(&account_id).cloned().unwrap_or_default()
    }

    pub(super) fn balance(&self, account_id: Uuid) -> i64 {
        self.account(account_id).account.opened().expect("an opened account").balance
    }

    /// How many events the log has.
    pub(super) fn events(&self) -> usize {
        self.events.len()
    }

    pub(super) fn keys(&self) -> usize {
        self.keys.len()
    }

    /// The command that reverses a movement of the log, as [`crate::Bank`] looks it up.
    pub(super) fn reversal(&self, reversal: Reversal) -> Command {
        let at = StreamVersion { stream_id: reversal.account_id, version: reversal.version };
        let found = self.movement(at);
        let transfer = found.and_then(|(_, movement)| transfer_of(movement?));
        let other = transfer.and_then(|transfer| {
            let sides = self.events.keys().filter(|at| at.stream_id == transfer.other);
            let movement = sides
                .filter_map(|at| self.movement(*at)?.1)
                .find(|movement| transfer_of(*movement).is_some_and(|side| side.is_other_of(transfer)))?;
            let RecordedMovement { version, event_id, .. } = movement;
            Some(ReversedSide { account_id: transfer.other, version, event_id })
        });
        command_of(reversal, found, other)
    }

    fn movement(&self, at: StreamVersion) -> Option<(Uuid, Option<RecordedMovement>)> {
        let (id, event) = self.events.get(&at)?;
        Some((*id, RecordedMovement::of_event(event, at.version, *id)))
    }

    fn history(&self, batch: &[Pending]) -> History {
        let movement = |event: StreamVersion| {
            let event_id = self.events.get(&event).map(|(id, _)| *id);
            (event, Movement { event, event_id, last: self.reversals.get(&event).copied() })
        };
        let reversed = commands(batch).flat_map(reversed_events).flatten();
        let placed: HashSet<_> = commands(batch).filter_map(captured_or_voided_hold).collect();
        let was_placed = |(account_id, hold_id): &(Uuid, Uuid)| {
            let is_placement = |event: &Event| matches!(event, Event::HoldPlaced(placed) if placed.hold_id == *hold_id);
            self.events.iter().any(|(at, (_, event))| at.stream_id == *account_id && is_placement(event))
        };
        let placed = placed.into_iter().filter(was_placed).collect();
        History::of_test(placed, reversed.map(|(event, _)| movement(event)).collect())
    }

    fn next_time(&self) -> DateTime<Utc> {
        let last = self.heads.values().map(|head| head.recorded_at).max().expect("a head");
        last + chrono::Duration::microseconds(1)
    }

    /// Appends a decided batch, and asserts that it could be committed and leaves the accounts that it says.
    fn append(&mut self, decided: &Decided) {
        let now = self.next_time();
        for (partition, append) in &decided.appends {
            assert_eq!(append.recorded_at, now);
            for event in &append.events {
                self.fold(*partition, event, now);
            }
            for reversal in &append.reversals {
                let last = self.reversals.insert(reversal.movement, *reversal);
                assert_eq!(reversal.number, last.map_or(0, |last| last.number) + 1, "{reversal:?} after {last:?}");
                assert_eq!(reversal.reversed, last.map_or(0, |last| last.reversed) + reversal.amount);
            }
            for key in &append.keys {
                let before = self.keys.insert((*partition, key.id.clone()), key.clone());
                assert!(before.is_none() && append.keys_to_check.contains(&key.id), "{key:?} is recorded twice");
            }
            for snapshot in &append.snapshots {
                let account = serde_json::to_string(&self.accounts[&snapshot.stream_id].account).expect("JSON");
                assert_eq!((snapshot.version, &snapshot.state), (self.accounts[&snapshot.stream_id].version, &account));
            }
            let head = self.heads.get_mut(partition).expect("a head");
            head.position += append.events.len() as i64;
            head.recorded_at = now;
        }
        for (account_id, changed) in &decided.changed {
            let folded = self.account(*account_id);
            assert_eq!((folded.version, folded.account), (changed.version, changed.account.clone()), "{account_id}");
        }
    }

    fn fold(&mut self, partition: i16, event: &NewEvent, now: DateTime<Utc>) {
        let at = StreamVersion { stream_id: event.stream_id, version: event.version };
        assert_eq!(partition, self.partitions.partition_of(at.stream_id));
        let decoded = Event::decode(event.event_type, event.schema_version, &event.data).expect("an event");
        let account = self.accounts.entry(at.stream_id).or_default();
        assert_eq!(at.version, account.version + 1, "the version of {event:?}");
        account.version = at.version;
        account.account = std::mem::take(&mut account.account).evolve(&decoded, now);
        self.events.insert(at, (event.id, decoded));
    }
}

/// Everything that a batch writes and leaves. Ids of events, which differ from run to run, are replaced by their numbers.
pub(super) fn written(decided: &Decided) -> String {
    let mut text = String::new();
    for (partition, append) in &decided.appends {
        let _ = writeln!(text, "partition {partition}: {append:#?}");
    }
    let mut changed: Vec<_> = decided.changed.iter().collect();
    changed.sort_unstable_by_key(|(account_id, _)| **account_id);
    let _ = writeln!(text, "{changed:#?}");
    without_event_ids(text, decided)
}

/// Results, with numbers in place of the ids of the events of `decided`.
pub(super) fn results_text(results: &[crate::pending::CommandResult], decided: &Decided) -> String {
    without_event_ids(format!("{results:#?}"), decided)
}

/// A text with numbers in place of the ids of events.
pub(super) fn without_event_ids(mut text: String, decided: &Decided) -> String {
    let events = decided.appends.values().flat_map(|append| &append.events);
    for (number, event) in events.enumerate() {
        text = text.replace(&event.id.to_string(), &format!("event {number}"));
    }
    text
}

pub(super) fn context() -> CommandContext {
    CommandContext {
        caller: "ada".into(),
        access: crate::AccountAccess::Any,
        visibility: crate::AccountAccess::Any,
        correlation_id: "test".into(),
        causation_id: Uuid::nil(),
        idempotency_key: None,
        if_match: None,
        dry_run: false,
        batch_id: None,
    }
}

pub(super) fn key(name: &str, fingerprint: u8) -> IdempotencyKey {
    IdempotencyKey { key: name.to_owned(), fingerprint: [fingerprint; 32] }
}

pub(super) fn in_context(command: Command) -> CommandInContext {
    CommandInContext { command, context: context() }
}

pub(super) fn single(command: Command) -> Work {
    Work::Command(in_context(command).into(), oneshot::channel().0)
}

pub(super) fn keyed(command: Command, key: IdempotencyKey) -> Work {
    let context = CommandContext { idempotency_key: Some(key), ..context() };
    Work::Command(Box::new(CommandInContext { command, context }), oneshot::channel().0)
}

pub(super) fn atomic(commands: Vec<Command>, key: Option<IdempotencyKey>) -> Work {
    let commands = commands.into_iter().map(in_context).collect();
    Work::Atomic(AtomicBatch { batch_id: Uuid::nil(), commands, key }, oneshot::channel().0)
}

pub(super) fn dry(command: Command) -> CommandInContext {
    CommandInContext { command, context: CommandContext { dry_run: true, ..context() } }
}

pub(super) fn dry_run(commands: Vec<Command>) -> Work {
    let responses = commands.iter().map(|_| oneshot::channel().0).collect();
    Work::DryRun(commands.into_iter().map(dry).collect(), responses)
}
