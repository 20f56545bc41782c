//! Connects to the server that accepts writes. Several servers may be configured. One of them is the primary; a failover makes
//! another one the primary. Once a timeline has taken writes, no connection goes back to an older one.

use std::{
    collections::HashSet,
    future::pending,
    io,
    ops::Range,
    sync::{Arc, Mutex, Once, PoisonError},
    time::{Duration, Instant},
};

use super::{
    confirmation::confirm,
    failure::StorageFailure,
    outage_log::{log_if_unreachable, log_reached},
    primary_search::{Candidate, Search, Seen, search},
    server::{self, Identity, judge},
};
use passbook_telemetry::metrics::METRICS;
use sqlx::{PgConnection, Result, postgres::PgConnectOptions};
use tokio::{sync::watch, time::timeout};

/// How long a new connection waits for the other servers after the first one that can be the primary.
const ANSWER_GRACE: Duration = Duration::from_millis(200);
/// The time limit of a search that waits for every server, and how long it waits after the first one.
pub(super) const FIND_MS_MAX: u64 = 5_000;
pub(super) const FIND_GRACE: Duration = Duration::from_secs(2);
/// How long recording a timeline may take.
const RECORD_MAX: Duration = Duration::from_millis(500);

/// Connects to the configured server that accepts writes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PrimaryConnector {
    pub(super) servers: Vec<PgConnectOptions>,
    /// All clones share it.
    pub(super) shared: Arc<Shared>,
    /// The partitions whose rows each new connection confirms.
    pub(super) confirmed: Option<Range<i16>>,
    /// Whether a new timeline is recorded in the database.
    records_timeline: bool,
    /// Whether the partitions lie on the nodes of a Citus cluster.
    is_distributed: bool,
}

/// What the clones of a connector share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) primary: watch::Sender<Primary>,
    /// The former primaries that were reported, by index and timeline.
    reported: Mutex<HashSet<(usize, i64)>>,
    /// Starts the task that watches for failovers once for all clones.
    pub(super) watch_started: Once,
}

/// The server that accepted writes last.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Primary {
    /// Its index in the list of servers.
    pub(super) index: usize,
    /// `None` before the first connection, and for a server without timelines.
    pub(super) identity: Option<Identity>,
    /// Whether a connection was opened.
    pub(super) is_found: bool,
    /// The time of the last failover.
    pub(super) since: Option<Instant>,
}

/// The primary, as a search found it.
pub(super) struct Found {
    pub(super) connection: PgConnection,
    pub(super) identity: Option<Identity>,
    /// Former primaries that accept writes.
    pub(super) former: Vec<Candidate>,
    all_answered: bool,
}

/// A connection to the primary, after every server was asked.
#[derive(Debug)]
pub struct VerifiedPrimary {
    /// The connection.
    pub connection: PgConnection,
    /// Whether every configured server has answered. One that has not may be the primary.
    pub all_answered: bool,
}

impl PrimaryConnector {
    /// Creates a connector to one server or to several. `servers` must not be empty.
    pub fn new(servers: Vec<PgConnectOptions>) -> Self {
        let shared = Shared {
            primary: watch::Sender::new(Primary::default()),
            reported: Mutex::default(),
            watch_started: Once::new(),
        };
        Self::sharing(Arc::new(shared), servers)
    }

    /// Creates a connector that shares the primary with others.
    pub(super) fn sharing(shared: Arc<Shared>, servers: Vec<PgConnectOptions>) -> Self {
        Self { servers, shared, confirmed: None, records_timeline: false, is_distributed: false }
    }

    /// Returns a connector to the same servers with changed connection options.
    #[must_use]
    pub fn with_options(&self, change: impl Fn(PgConnectOptions) -> PgConnectOptions) -> Self {
        Self { servers: self.servers.iter().cloned().map(change).collect(), ..self.clone() }
    }

    /// Returns a connector whose connections show only rows of the log that the standbys have: each new connection first waits
    /// for a commit, as [`confirm`] does. For readers that pass on what they read.
    #[must_use]
    pub fn confirmed(&self, partitions: Range<i16>) -> Self {
        Self { confirmed: Some(partitions), ..self.clone() }
    }

    /// Returns a connector that records the timeline of each new primary in the database. For connections that write the log.
    #[must_use]
    pub fn recording_timeline(&self) -> Self {
        Self { records_timeline: true, ..self.clone() }
    }

    /// Returns a connector that knows whether the partitions lie on the nodes of a Citus cluster.
    #[must_use]
    pub fn distributed(&self, is_distributed: bool) -> Self {
        Self { is_distributed, ..self.clone() }
    }

    /// Whether the partitions lie on the nodes of a Citus cluster. It plans some statements for every shard, and others take their
    /// place.
    pub fn is_distributed(&self) -> bool {
        self.is_distributed
    }

    /// Connects to the server that accepts writes and has the highest timeline. All servers are asked at once, and one that does
    /// not respond causes little delay.
    ///
    /// # Errors
    /// No server can be reached, none is the primary, or a session setting is not the requested one.
    pub async fn connect(&self) -> Result<PgConnection> {
        let found = self.find(ANSWER_GRACE).await;
        match &found {
            Ok(_) => log_reached(),
            Err(error) => {
                log_if_unreachable(StorageFailure::of(error), error);
            }
        }
        self.confirm(found?.connection).await
    }

    /// Connects as [`Self::connect`], but waits longer for the answer of every server. For a reader that found another history of
    /// the log: a former primary may have shown it.
    ///
    /// # Errors
    /// As [`Self::connect`], and if the search takes too long.
    pub async fn connect_verified(&self) -> Result<VerifiedPrimary> {
        let found = with_timeout(Duration::from_millis(FIND_MS_MAX), self.find(FIND_GRACE)).await?;
        Ok(VerifiedPrimary { connection: self.confirm(found.connection).await?, all_answered: found.all_answered })
    }

    async fn confirm(&self, mut connection: PgConnection) -> Result<PgConnection> {
        if let Some(partitions) = &self.confirmed {
            confirm(&mut connection, partitions.clone()).await?;
        }
        Ok(connection)
    }

    /// Searches for the primary, and makes it the one that all clones use.
    pub(super) async fn find(&self, grace: Duration) -> Result<Found> {
        let known = *self.shared.primary.borrow();
        // The first connection of a process does not know yet which timeline took writes.
        let grace = if known.is_found { grace } else { FIND_GRACE };
        // A single server may be replaced by a restored one of another cluster.
        let identity = known.identity.filter(|_| self.servers.len() > 1);
        let Search { primary, former, is_complete } =
            search(&self.servers, Seen { index: known.index, identity }, grace).await;
        let mut primary = primary?;
        self.advance(primary.index, primary.identity)?;
        if self.records_timeline {
            record(&mut primary).await?;
        }
        let Candidate { connection, identity, .. } = primary;
        Ok(Found { connection, identity, former, all_answered: is_complete })
    }

    /// Makes a server the primary of all clones, unless another connection found a higher timeline meanwhile.
    fn advance(&self, index: usize, identity: Option<Identity>) -> Result<()> {
        let mut judged = Ok(());
        self.shared.primary.send_if_modified(|primary| {
            judged = judge(identity, None, primary.identity);
            if judged.is_err() {
                return false;
            }
            let is_other_timeline = identity.is_some() && primary.identity.is_some_and(|known| Some(known) != identity);
            let is_other_server = primary.index != index;
            let is_failover = is_other_server || is_other_timeline;
            let was_found = primary.is_found;
            let since = if is_failover { Some(Instant::now()) } else { primary.since };
            *primary = Primary { index, identity: identity.or(primary.identity), is_found: true, since };
            let (server, timeline) = (index + 1, identity.map(|identity| identity.timeline));
            match is_other_server && was_found {
                true => tracing::warn!(server, timeline, "another server accepts writes; connecting to it"),
                false if is_other_timeline => {
                    tracing::warn!(server, timeline, "primary has a new timeline; connecting again")
                }
                false => {}
            }
            is_failover
        });
        Ok(judged?)
    }

    /// Logs the former primaries that accept writes, once for each server and timeline. Records there that a newer timeline took
    /// writes: a process that starts while only such a server answers then does not write to it.
    pub(super) async fn report_former(&self, former: Vec<Candidate>, newest: Option<Identity>) {
        METRICS.former_primaries.set(former.len() as i64);
        for mut candidate in former {
            let Some((identity, newest)) = candidate.identity.zip(newest) else { continue };
            let is_first = {
                let mut reported = self.shared.reported.lock().unwrap_or_else(PoisonError::into_inner);
                reported.insert((candidate.index, identity.timeline))
            };
            if is_first {
                let (server, timeline) = (candidate.index + 1, identity.timeline);
                tracing::error!(
                    server,
                    timeline,
                    newer = newest.timeline,
                    "former primary accepts writes; it is not used"
                );
            }
            if candidate.recorded != Some(newest) {
                let recorded = with_timeout(RECORD_MAX, server::record(&mut candidate.connection, newest)).await;
                if let Err(error) = recorded {
                    tracing::debug!(%error, "newer timeline could not be recorded at a former primary");
                }
            }
        }
    }

    /// Watches for failovers. A task that keeps a connection for long must replace it after a failover, even if the former
    /// primary still responds.
    pub fn failover_watch(&self) -> FailoverWatch {
        FailoverWatch(self.shared.primary.subscribe())
    }
}

/// Reports whether a failover happened since the last check.
pub struct FailoverWatch(watch::Receiver<Primary>);

impl FailoverWatch {
    /// Whether another server or another timeline took writes since the last call.
    pub fn has_failed_over(&mut self) -> bool {
        let has_failed_over = self.0.has_changed().unwrap_or(false);
        self.0.mark_unchanged();
        has_failed_over
    }

    /// Waits for the next failover. The next call of [`Self::has_failed_over`] still reports it.
    pub async fn failover(&mut self) {
        match self.0.changed().await {
            Ok(()) => self.0.mark_changed(),
            Err(_) => pending().await,
        }
    }
}

/// Records the timeline of the primary in its database, if it is new there. Best effort: a server that cannot write says so to the
/// next command.
async fn record(primary: &mut Candidate) -> Result<()> {
    let Some(identity) = primary.identity.filter(|_| primary.recorded != primary.identity) else { return Ok(()) };
    match with_timeout(RECORD_MAX, server::record(&mut primary.connection, identity)).await {
        Err(error @ sqlx::Error::Database(_)) => {
            tracing::debug!(%error, "timeline could not be recorded");
            Ok(())
        }
        recorded => recorded,
    }
}

/// Runs database work with a time limit. Every other crate that bounds a statement uses this function.
///
/// # Errors
/// The error of the work, or [`sqlx::Error::Io`] of kind [`io::ErrorKind::TimedOut`] after `limit`. The connection is then in
/// an unknown state: close it, do not reuse it.
pub async fn with_timeout<T>(limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(limit, work).await.unwrap_or_else(|_| {
        let message = format!("no response within {limit:?}");
        Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, message)))
    })
}
