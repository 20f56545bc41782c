//! A random history with holds, limits and reversals. The domain decides each command at a time of its own, and the events are
//! written to the log with these times, so that tests can read moments of the past.

use std::collections::BTreeMap;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use passbook_domain::{
    Account, AccountCommand, Amount, Channel, Currency, Event, Limits, Metadata, Transfer,
    command::{CaptureHold, CaptureTo, Movement, PlaceHold, Reverse, ReverseTransfer, ReversedSide},
    reversal::{self, MovementKind, RecordedMovement},
    transfer,
};
use passbook_testkit::{App, Rng, audit::expected_hashes, log};
use sqlx::{Connection, query};
use uuid::Uuid;

const ACCOUNTS: usize = 3;
/// The history begins so many days ago and ends at most this long after it began.
const STARTED_DAYS_AGO: i64 = 200;
const STEP_HOURS_MAX: i64 = 40;

/// An account after one of its events.
pub struct Moment {
    pub account_id: Uuid,
    pub recorded_at: DateTime<Utc>,
    pub state: Account,
}

/// The accounts, their moments in the order of the log, and the events.
pub struct DomainHistory {
    pub accounts: BTreeMap<Uuid, Account>,
    pub moments: Vec<Moment>,
    events: Vec<log::Event>,
    movements: Vec<(Uuid, RecordedMovement)>,
    reversed: BTreeMap<Uuid, i64>,
    now: DateTime<Utc>,
    rng: Rng,
}

impl DomainHistory {
    /// A history of so many commands, some of which the domain refuses.
    pub fn new(app: &App, seed: u64, commands: usize) -> Self {
        let now = (Utc::now() - TimeDelta::days(STARTED_DAYS_AGO)).trunc_subsecs(6);
        let mut history = Self {
            accounts: BTreeMap::new(),
            moments: vec![],
            events: vec![],
            movements: vec![],
            reversed: BTreeMap::new(),
            now,
            rng: Rng::new(seed),
        };
        for owner in 0..ACCOUNTS {
            let account_id = app.new_account_id();
            history.accounts.insert(account_id, Account::default());
            let metadata = Metadata::new([("number".to_owned(), owner.to_string())].into()).unwrap();
            let (owner, currency) = (format!("customer-{owner}").into(), Currency::EUR);
            history.execute(account_id, &AccountCommand::Open { owner, currency, initial_deposit: 5_000, metadata });
        }
        history.go_on(commands);
        history
    }

    /// Withdraws all that is available on each account, its overdraft included. So many commands follow.
    pub fn overdraw(&mut self, commands: usize) {
        let ids: Vec<Uuid> = self.accounts.keys().copied().collect();
        for account_id in ids {
            let limits = Limits { overdraft: 3_000, ..Limits::default() };
            self.execute(account_id, &AccountCommand::SetLimits(limits));
            let available = self.accounts[&account_id].opened().unwrap().available(self.now);
            let movement = self.movement(Amount::try_from(available).unwrap());
            self.execute(account_id, &AccountCommand::Withdraw(movement, Some(Channel::Atm)));
        }
        self.go_on(commands);
    }

    fn go_on(&mut self, commands: usize) {
        for _ in 0..commands {
            self.step();
        }
        assert!(self.now < Utc::now(), "the history is over");
    }

    fn step(&mut self) {
        let hours = i64::try_from(self.rng.between(1, STEP_HOURS_MAX.unsigned_abs())).unwrap();
        let pause = [TimeDelta::microseconds(1), TimeDelta::seconds(1), TimeDelta::hours(hours)];
        self.now += *self.rng.pick(&pause);
        let ids: Vec<Uuid> = self.accounts.keys().copied().collect();
        let account_id = *self.rng.pick(&ids);
        let other = *self.rng.pick(&ids);
        let amount = Amount::try_from(i64::try_from(self.rng.between(1, 900)).unwrap()).unwrap();
        match self.rng.below(12) {
            0 => self.execute(account_id, &AccountCommand::Deposit(self.movement(amount), None)),
            1 => self.execute(account_id, &AccountCommand::Withdraw(self.movement(amount), None)),
            2..=4 => self.place(account_id, amount),
            5 | 6 => self.capture(account_id, other, amount),
            7 => {
                let hold_id = self.any_hold(account_id);
                self.execute(account_id, &AccountCommand::VoidHold { hold_id, was_placed: true, reason: None });
            }
            8 => self.execute(account_id, &AccountCommand::ReleaseExpired { holds_max: 2 }),
            9 => self.transfer(account_id, other, amount),
            10 => {
                let overdraft = i64::try_from(self.rng.below(3_000)).unwrap();
                let limits =
                    Limits { overdraft, out_per_month: Some(8_000), out_per_day: Some(3_000), per_movement: None };
                self.execute(account_id, &AccountCommand::SetLimits(limits));
            }
            _ => self.reverse(amount),
        }
    }

    fn movement(&self, amount: Amount) -> Movement {
        let reference = Some(format!("movement {}", self.events.len()));
        let metadata = Metadata::new([("order".to_owned(), self.events.len().to_string())].into()).unwrap();
        Movement { amount, currency: None, reference, metadata }
    }

    fn place(&mut self, account_id: Uuid, amount: Amount) {
        // No hold ends near the moment at which the test reads.
        let seconds = [1, 7_200, 604_800, 31_536_000];
        let (unique, expires_in_seconds) = (self.rng.uuid(), *self.rng.pick(&seconds));
        let place = PlaceHold { unique, movement: self.movement(amount), expires_in_seconds };
        self.execute(account_id, &AccountCommand::PlaceHold(place));
    }

    fn capture(&mut self, account_id: Uuid, other: Uuid, amount: Amount) {
        let hold_id = self.any_hold(account_id);
        let amount = Some(amount).filter(|_| self.rng.chance(60));
        let (is_final, reference) = (self.rng.chance(30), Some("capture".to_owned()));
        let capture = CaptureHold { hold_id, was_placed: true, amount, is_final, reference };
        if account_id == other {
            return self.execute(account_id, &AccountCommand::CaptureHold(capture));
        }
        let command = CaptureTo { transfer_id: self.rng.uuid(), from: account_id, to: other, capture };
        let (from, to) = (&self.accounts[&account_id], &self.accounts[&other]);
        if let Ok((sent, received)) = transfer::decide_capture(from, to, &command, self.now) {
            self.record(account_id, sent);
            self.record(other, received);
        }
    }

    fn transfer(&mut self, from: Uuid, to: Uuid, amount: Amount) {
        if from == to {
            return;
        }
        let transfer = Transfer { transfer_id: self.rng.uuid(), from, to, movement: self.movement(amount) };
        let decided = transfer::decide(&self.accounts[&from], &self.accounts[&to], &transfer, self.now);
        if let Ok((sent, received)) = decided {
            self.record(from, sent);
            self.record(to, received);
        }
    }

    /// Reverses any movement, in part or whole.
    fn reverse(&mut self, amount: Amount) {
        let (account_id, original) = *self.rng.pick(&self.movements);
        let reversed = self.reversed.get(&original.event_id).copied().unwrap_or_default();
        let amount = Some(amount).filter(|_| self.rng.chance(60));
        let MovementKind::Sent { transfer_id, to } = original.kind else {
            let (version, event_id) = (original.version, Some(original.event_id));
            let reverse = Reverse { version, event_id, original: Some(original), reversed, amount, reason: None };
            return self.execute(account_id, &AccountCommand::Reverse(reverse));
        };
        let is_other_side = |(_, movement): &&(Uuid, RecordedMovement)| matches!(movement.kind, MovementKind::Received { transfer_id: id, .. } if id == transfer_id);
        let received = self.movements.iter().find(is_other_side).unwrap().1;
        let side = |account_id, movement: RecordedMovement| {
            let RecordedMovement { version, event_id, .. } = movement;
            ReversedSide { account_id, version, event_id }
        };
        let command = ReverseTransfer {
            account_id,
            transfer_id,
            sent: side(account_id, original),
            received: side(to, received),
            original: original.amount,
            reversed,
            amount,
            reason: None,
        };
        let decided = reversal::decide_transfer(&self.accounts[&account_id], &self.accounts[&to], &command, self.now);
        if let Ok((sender, receiver)) = decided {
            self.record(account_id, sender);
            self.record(to, receiver);
        }
    }

    /// The id of a hold whose end is not recorded; a new id if there is none.
    fn any_hold(&mut self, account_id: Uuid) -> Uuid {
        let holds = &self.accounts[&account_id].opened().unwrap().holds;
        let ids: Vec<Uuid> = holds.active(DateTime::<Utc>::MIN_UTC).map(|hold| hold.hold_id).collect();
        if ids.is_empty() { Uuid::from_u128(1) } else { *self.rng.pick(&ids) }
    }

    fn execute(&mut self, account_id: Uuid, command: &AccountCommand) {
        for event in self.accounts[&account_id].decide(command, self.now).unwrap_or_default() {
            self.record(account_id, event);
        }
    }

    fn record(&mut self, account_id: Uuid, event: Event) {
        let event_id = self.rng.uuid();
        let account = self.accounts.get_mut(&account_id).unwrap();
        *account = std::mem::take(account).evolve(&event, self.now);
        let version = account.opened().unwrap().version;
        self.movements.extend(RecordedMovement::of_event(&event, version, event_id).map(|moved| (account_id, moved)));
        if let Event::MovementReversed(reversed) = &event {
            *self.reversed.entry(reversed.reverses_event_id).or_default() += reversed.amount.minor_units();
        }
        self.moments.push(Moment { account_id, recorded_at: self.now, state: account.clone() });
        self.events.push(log::Event {
            partition: 0,
            position: 0,
            id: event_id,
            stream_id: account_id,
            version,
            event_type: event.name().to_owned(),
            schema_version: event.schema_version(),
            data: serde_json::to_string(&event).unwrap(),
            metadata: r#"{"user_id":"anonymous","correlation_id":"test","causation_id":"test"}"#.to_owned(),
            recorded_at: self.now,
            hash: vec![],
        });
    }

    /// Writes the events to the log of the app, which is empty, and waits until the views have read them.
    pub async fn append_to(&mut self, app: &App) {
        let partition = app.partition_under_test();
        for (position, event) in (1..).zip(&mut self.events) {
            (event.partition, event.position) = (partition, position);
        }
        for (hash, event) in expected_hashes(&self.events).into_iter().zip(&mut self.events) {
            event.hash = hash;
        }
        let mut connection = app.database().await;
        let mut transaction = connection.begin().await.unwrap();
        for event in &self.events {
            let insert = query(
                "INSERT INTO event
                 (partition, position, id, stream_id, version, type, schema_version, data, metadata, recorded_at, hash)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8::text::json, $9::text::json, $10, $11)",
            );
            let insert = insert.bind(event.partition).bind(event.position).bind(event.id).bind(event.stream_id);
            let insert = insert.bind(event.version).bind(&event.event_type).bind(event.schema_version);
            let insert = insert.bind(&event.data).bind(&event.metadata).bind(event.recorded_at).bind(&event.hash);
            insert.execute(&mut *transaction).await.unwrap();
        }
        let last = self.events.last().unwrap();
        query("UPDATE log_head SET position = $2, hash = $3, recorded_at = $4 WHERE partition = $1")
            .bind(partition)
            .bind(last.position)
            .bind(&last.hash)
            .bind(last.recorded_at)
            .execute(&mut *transaction)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        connection.close().await.unwrap();
        app.wait_until_projected().await;
    }
}
