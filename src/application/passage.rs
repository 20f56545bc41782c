//! One passage through the turnstile: load, decide, append; on the fast way in one round trip, on the slow way
//! behind the lock.
//!
//! Nothing is answered before the state it rests on is confirmed: by the commit, or for a batch without events by a
//! look at the head. What is held changes only after that.

use std::{collections::HashMap, num::NonZeroUsize, pin::pin, sync::Arc};

use futures_util::TryStreamExt;
use lru::LruCache;
use sqlx::{Connection, PgConnection};
use tokio::sync::watch;
use uuid::Uuid;

use super::{
    Answer, Error, Pending, Settings,
    batch::{self, Decided, Held, Loaded, Undecodable},
    executor::Doubt,
    failure::{Failure, Nature, STATEMENT_MAX, within},
    newer::Newer,
};
use crate::{
    domain::{Event, account::STATE_VERSION, event::DecodeError},
    event_store::{
        StreamVersion,
        log::{self, Head, Key, KeyId, Outcome},
        stream::{self, Piece},
    },
    metrics::{METRICS, phase},
    timestamp,
};

/// When others have written more than this since our last look, every held account is dropped.
const CATCH_UP_EVENTS_MAX: i64 = 10_000;
/// After so many batches on the slow way in which nobody else wrote, the fast way is tried again.
const QUIET_BATCHES: u32 = 16;
/// A head this far ahead of the clock is worth a warning.
const CLOCK_BEHIND_MS_MAX: i64 = 1_000;

/// What this process knows of the log's end, and the accounts that it holds as they were there.
pub(super) struct Turnstile {
    partition: i16,
    snapshot_every: i64,
    head: Option<Head>,
    held: LruCache<Uuid, Held>,
    /// How many more batches take the slow way, because somebody else writes.
    slow_batches: u32,
    pub newer: Newer,
}

/// A decided batch that stands.
struct Passed {
    decided: Decided,
    loaded: Loaded,
    head: Head,
}

impl Turnstile {
    pub(super) fn new(settings: &Settings, newer: Arc<watch::Sender<Option<StreamVersion>>>) -> Self {
        let capacity = NonZeroUsize::new(settings.cache_accounts).unwrap_or(NonZeroUsize::MIN);
        Self {
            partition: settings.partition,
            snapshot_every: settings.snapshot_every,
            head: None,
            held: LruCache::new(capacity),
            slow_batches: 0,
            newer: Newer(newer),
        }
    }

    /// The log's last position as this process knows it.
    pub(super) fn position(&self) -> i64 {
        self.head.as_ref().map_or(0, |head| head.position)
    }

    /// Drops all that is held: the database refused what was decided on it.
    pub(super) fn distrust(&mut self) {
        self.held.clear();
        self.tread_carefully();
    }

    /// Takes the slow way for a while, on which a database that cannot be written to says so before anything is sent.
    pub(super) fn tread_carefully(&mut self) {
        self.slow_batches = QUIET_BATCHES;
    }

    /// Carries `batch` to its answers. What was sent without an answer is left in `doubt`.
    pub(super) async fn pass(
        &mut self,
        connection: &mut PgConnection,
        batch: &[Pending],
        doubt: &mut Option<Doubt>,
    ) -> Result<Vec<Result<Answer, Error>>, Failure> {
        self.newer.look_again(connection, self.partition).await?;
        if self.slow_batches == 0 {
            if let Some(passed) = self.pass_fast(connection, batch, doubt).await? {
                METRICS.batches.with_label_values(&["fast"]).inc();
                return Ok(self.keep(passed));
            }
            self.slow_batches = QUIET_BATCHES;
        }
        let passed = self.pass_slow(connection, batch, doubt).await?;
        METRICS.batches.with_label_values(&["slow"]).inc();
        Ok(self.keep(passed))
    }

    /// Whether an append without an answer stands. If not, it never will.
    pub(super) async fn settle(&mut self, connection: &mut PgConnection, doubt: &Doubt) -> Result<bool, Failure> {
        // Either way the head is not the one we know: the next passage catches up behind the lock.
        self.tread_carefully();
        within(STATEMENT_MAX, log::settle(connection, self.partition, doubt.position, doubt.event_id)).await
    }

    /// Decides on what is held and appends in one autocommit call. `None`: somebody else has written since.
    async fn pass_fast(
        &mut self,
        connection: &mut PgConnection,
        batch: &[Pending],
        doubt: &mut Option<Doubt>,
    ) -> Result<Option<Passed>, Failure> {
        let head = match &self.head {
            Some(head) => head.clone(),
            None => within(STATEMENT_MAX, log::head(connection, self.partition)).await?,
        };
        let loaded = self.load(connection, batch).await?;
        let mut recorded = HashMap::new();
        loop {
            let decided = self.decide(batch, &loaded, &recorded, &head);
            match self.write(connection, &head, &decided).await {
                Ok(Outcome::Done(head)) => return Ok(Some(Passed { decided, loaded, head })),
                Ok(Outcome::HeadMoved) => return Ok(None),
                Ok(Outcome::KeysRecorded(keys)) => remember(&mut recorded, keys),
                Err(failure) => return Err(leave_in_doubt(failure, decided, &head, doubt)),
            }
        }
    }

    /// Locks the head first. Nothing can be outrun here.
    async fn pass_slow(
        &mut self,
        connection: &mut PgConnection,
        batch: &[Pending],
        doubt: &mut Option<Doubt>,
    ) -> Result<Passed, Failure> {
        let mut transaction = within(STATEMENT_MAX, connection.begin()).await?;
        let turnstile = phase("turnstile");
        let head = within(STATEMENT_MAX, log::lock_head(&mut transaction, self.partition)).await?;
        turnstile.observe_duration();
        self.catch_up(&mut transaction, &head).await?;
        let loaded = self.load(&mut transaction, batch).await?;
        let mut recorded = HashMap::new();
        let (decided, next) = loop {
            let decided = self.decide(batch, &loaded, &recorded, &head);
            match self.write(&mut transaction, &head, &decided).await? {
                Outcome::Done(next) => break (decided, next),
                Outcome::KeysRecorded(keys) => remember(&mut recorded, keys),
                Outcome::HeadMoved => {
                    let outage = "the database let two writers through the turnstile";
                    return Err(Failure { nature: Nature::Away, outage, reason: outage.to_owned() });
                }
            }
        };
        match within(STATEMENT_MAX, transaction.commit()).await {
            Ok(()) => Ok(Passed { decided, loaded, head: next }),
            Err(failure) => Err(leave_in_doubt(failure, decided, &head, doubt)),
        }
    }

    /// Drops every held account that others have changed since our last look, and takes `head` for known.
    async fn catch_up(&mut self, connection: &mut PgConnection, head: &Head) -> Result<(), Failure> {
        if let Some(known) = &self.head
            && (known.position, known.hash) == (head.position, head.hash)
        {
            self.slow_batches = self.slow_batches.saturating_sub(1);
            self.head = Some(head.clone());
            return Ok(());
        }
        self.slow_batches = QUIET_BATCHES;
        let changed = match &self.head {
            Some(known) if (1..=CATCH_UP_EVENTS_MAX).contains(&(head.position - known.position)) => {
                within(STATEMENT_MAX, log::streams_since(connection, self.partition, known)).await?
            }
            Some(_) | None => None,
        };
        match changed {
            Some(streams) => streams.iter().for_each(|stream_id| drop(self.held.pop(stream_id))),
            // Too much, or a history that does not contain what we saw: nothing held can be trusted.
            None => self.held.clear(),
        }
        self.head = Some(head.clone());
        Ok(())
    }

    /// The accounts of the batch: those held, and the others folded from the store in one statement.
    async fn load(&mut self, connection: &mut PgConnection, batch: &[Pending]) -> Result<Loaded, Failure> {
        let mut loaded = Loaded::new();
        let mut missing = Vec::new();
        for stream_id in batch.iter().flat_map(|pending| batch::streams(&pending.command)) {
            loaded.entry(stream_id).or_insert_with(|| match self.held.get(&stream_id) {
                Some(held) => Ok(held.clone()),
                None => {
                    missing.push(stream_id);
                    Ok(Held::default())
                }
            });
        }
        METRICS.cache_lookups.with_label_values(&["hit"]).inc_by((loaded.len() - missing.len()) as u64);
        METRICS.cache_lookups.with_label_values(&["miss"]).inc_by(missing.len() as u64);
        if !missing.is_empty() {
            let _load = phase("load");
            let unreadable = self.fold(connection, &missing, Some(STATE_VERSION), &mut loaded).await?;
            if !unreadable.is_empty() {
                self.fold(connection, &unreadable, None, &mut loaded).await?;
            }
        }
        Ok(loaded)
    }

    /// Folds streams from the store into `loaded`, and returns those whose snapshot cannot be read: it is a shortcut,
    /// and the events are the truth.
    async fn fold(
        &self,
        connection: &mut PgConnection,
        ids: &[Uuid],
        state_version: Option<i16>,
        loaded: &mut Loaded,
    ) -> Result<Vec<Uuid>, Failure> {
        let mut unreadable = Vec::new();
        let mut pieces = pin!(stream::load(connection, self.partition, ids, state_version));
        // Each piece is bounded in time, and not the whole: a long stream takes as long as it takes.
        while let Some((stream_id, piece)) = within(STATEMENT_MAX, pieces.try_next()).await? {
            if unreadable.last() == Some(&stream_id) {
                continue;
            }
            let before = loaded.remove(&stream_id).unwrap_or_else(|| Ok(Held::default()));
            let after = match piece {
                Piece::Snapshot { version, state } => match serde_json::from_str(&state) {
                    Ok(account) => {
                        METRICS.snapshots_used.inc();
                        Ok(Held { version, account })
                    }
                    Err(error) => {
                        tracing::warn!(%stream_id, version, %error, "a snapshot cannot be read");
                        unreadable.push(stream_id);
                        before
                    }
                },
                Piece::Event { version, event_type, schema_version, data } => {
                    let event = Event::decode(&event_type, schema_version, &data);
                    let event = self.newer.read(stream_id, version, event)?;
                    before.and_then(|held| {
                        evolve(held, version, event).map_err(|reason| {
                            tracing::error!(%stream_id, reason, "a stream cannot be folded");
                            Undecodable
                        })
                    })
                }
            };
            loaded.insert(stream_id, after);
        }
        Ok(unreadable)
    }

    fn decide(&self, batch: &[Pending], loaded: &Loaded, recorded: &HashMap<KeyId, Key>, head: &Head) -> Decided {
        let clock = timestamp::now();
        let earliest = head.recorded_at + chrono::Duration::microseconds(1);
        let ahead = earliest - clock;
        if ahead.num_milliseconds() > CLOCK_BEHIND_MS_MAX {
            tracing::warn!(ahead_ms = ahead.num_milliseconds(), "the log's last event is later than this clock");
        }
        batch::decide(batch, loaded, recorded, head, clock.max(earliest), self.snapshot_every)
    }

    async fn write(&self, connection: &mut PgConnection, head: &Head, decided: &Decided) -> Result<Outcome, Failure> {
        let _write = phase("write");
        let write = &decided.write;
        match write.events.is_empty() {
            true => within(STATEMENT_MAX, log::confirm(connection, self.partition, head, &write.asked)).await,
            false => within(STATEMENT_MAX, log::append(connection, self.partition, head, write)).await,
        }
    }

    /// Holds what the batch left behind, now that it stands.
    fn keep(&mut self, passed: Passed) -> Vec<Result<Answer, Error>> {
        let Passed { decided, loaded, head } = passed;
        let read = loaded.into_iter().filter_map(|(stream_id, held)| Some((stream_id, held.ok()?)));
        for (stream_id, held) in read.filter(|(_, held)| held.version > 0).chain(decided.changed) {
            self.held.put(stream_id, held);
        }
        METRICS.appended_events.inc_by(decided.write.events.len() as u64);
        self.head = Some(head);
        decided.answers
    }
}

/// The account after the event at `version` of its stream, or why it cannot be folded.
fn evolve(held: Held, version: i64, event: Result<Event, DecodeError>) -> Result<Held, String> {
    match event {
        Ok(event) if version == held.version + 1 => Ok(Held { version, account: held.account.evolve(&event) }),
        Ok(_) => Err(format!("version {version} follows version {}", held.version)),
        Err(error) => Err(error.to_string()),
    }
}

fn remember(recorded: &mut HashMap<KeyId, Key>, keys: Vec<Key>) {
    recorded.extend(keys.into_iter().map(|key| (key.id.clone(), key)));
}

/// Keeps what is needed to find out later whether a lost write stands.
fn leave_in_doubt(failure: Failure, decided: Decided, head: &Head, doubt: &mut Option<Doubt>) -> Failure {
    if let (Nature::Lost, Some(first)) = (failure.nature, decided.write.events.first()) {
        *doubt = Some(Doubt { position: head.position + 1, event_id: first.id, answers: decided.answers });
    }
    failure
}
