//! Searches for the primary: asks every configured server for its timeline, and takes the highest one.
//!
//! Several servers may accept writes at the same time, for example when a frozen primary wakes up after its standby was promoted.
//! The answer that comes first therefore does not decide.

use std::time::Duration;

use futures_util::{StreamExt, stream::FuturesUnordered};
use sqlx::{Connection, PgConnection, Result, postgres::PgConnectOptions};
use tokio::time::{Instant, sleep_until};

use super::{
    outage_log::explained,
    server::{self, Identity, NotPrimary, judge},
    session::check_session,
};

/// A server that accepts writes.
pub(super) struct Candidate {
    /// Its index in the list of servers.
    pub(super) index: usize,
    pub(super) connection: PgConnection,
    pub(super) identity: Option<Identity>,
    /// The highest timeline that its database recorded.
    pub(super) recorded: Option<Identity>,
}

/// The primary that was used last.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) index: usize,
    pub(super) identity: Option<Identity>,
}

/// The result of a search.
pub(super) struct Search {
    /// The server with the highest timeline, or why there is none.
    pub(super) primary: Result<Candidate>,
    /// Former primaries that accept writes.
    pub(super) former: Vec<Candidate>,
    /// Whether every server has answered.
    pub(super) is_complete: bool,
}

/// Connects, and checks the session settings.
async fn connect_checked(server: &PgConnectOptions) -> Result<PgConnection> {
    let mut connection = PgConnection::connect_with(server).await.map_err(explained)?;
    check_session(&mut connection, server).await?;
    Ok(connection)
}

/// Asks all servers at once. After the first one that can be the primary, it waits at most `grace` for the others, so that a server
/// that does not answer causes little delay.
pub(super) async fn search(servers: &[PgConnectOptions], seen: Seen, grace: Duration) -> Search {
    // Statements at a single server that is read-only fail with an error that says so.
    let accepts_read_only = servers.len() == 1;
    let mut asked = FuturesUnordered::new();
    for (index, server) in servers.iter().enumerate() {
        asked.push(ask(index, server, accepts_read_only));
    }
    let (mut candidates, mut failures) = (Vec::new(), Vec::new());
    let mut deadline = None;
    let mut answers = 0;
    loop {
        let answer = tokio::select! {
            answer = asked.next() => answer,
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => None,
        };
        match answer {
            None => break,
            Some(Ok(Some(candidate))) => {
                answers += 1;
                if refusal(&candidate, seen).is_none() {
                    deadline.get_or_insert_with(|| Instant::now() + grace);
                }
                candidates.push(candidate);
            }
            Some(Ok(None)) => answers += 1,
            Some(Err(error)) => failures.push(error),
        }
    }
    let is_complete = answers == servers.len();
    let has_read_only = answers > candidates.len();
    let (primary, former) = choose(candidates, seen);
    let primary = primary.and_then(|found| {
        found.ok_or_else(|| match failures.into_iter().max_by_key(is_setting) {
            Some(error) if is_setting(&error) || !has_read_only => error,
            Some(_) | None => NotPrimary::ReadOnly.into(),
        })
    });
    Search { primary, former, is_complete }
}

/// Whether an operator must change a setting. Such an error is reported before all others.
fn is_setting(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Configuration(_))
}

/// Connects to a server. `None`: it accepts no writes.
async fn ask(index: usize, server: &PgConnectOptions, accepts_read_only: bool) -> Result<Option<Candidate>> {
    let mut connection = connect_checked(server).await?;
    let state = server::identify(&mut connection).await?;
    if state.is_read_only && !accepts_read_only {
        // Best effort: the connection is closed either way.
        let _ = connection.close().await;
        return Ok(None);
    }
    let recorded = server::recorded(&mut connection).await?;
    Ok(Some(Candidate { index, connection, identity: state.identity, recorded }))
}

fn refusal(candidate: &Candidate, seen: Seen) -> Option<NotPrimary> {
    judge(candidate.identity, candidate.recorded, seen.identity).err()
}

/// Chooses the primary among the servers that accept writes. Also returns the former primaries among them.
fn choose(candidates: Vec<Candidate>, seen: Seen) -> (Result<Option<Candidate>>, Vec<Candidate>) {
    let system = |candidate: &Candidate| candidate.identity.map(|identity| identity.system_identifier);
    let known = seen.identity.map(|identity| identity.system_identifier);
    let expected = known.or_else(|| candidates.iter().find_map(system));
    let (own, foreign): (Vec<_>, Vec<_>) =
        candidates.into_iter().partition(|candidate| system(candidate).is_none_or(|found| Some(found) == expected));
    if !foreign.is_empty() && (own.is_empty() || known.is_none()) {
        return (Err(NotPrimary::OtherCluster.into()), Vec::new());
    }
    let (mut refused, mut accepted) = (Vec::new(), Vec::new());
    let mut reason = None;
    for candidate in own {
        match refusal(&candidate, seen) {
            None => accepted.push(candidate),
            Some(found) => {
                refused.push(candidate);
                reason = Some(found);
            }
        }
    }
    accepted.sort_by_key(|candidate| rank(candidate, seen));
    let primary = accepted.pop();
    let highest = primary.as_ref().and_then(|primary| primary.identity);
    let is_behind = |candidate: &Candidate| {
        candidate.identity.zip(highest).is_some_and(|(identity, highest)| identity.is_before(highest))
    };
    refused.extend(accepted.into_iter().filter(is_behind));
    match (primary, reason) {
        (None, Some(reason)) => (Err(reason.into()), refused),
        (primary, Some(_) | None) => (Ok(primary), refused),
    }
}

/// The highest timeline comes last. Of equal ones it is the server that took writes on this timeline, then the one that was used
/// last.
fn rank(candidate: &Candidate, seen: Seen) -> (Option<i64>, bool, bool) {
    let timeline = candidate.identity.map(|identity| identity.timeline);
    let took_writes = candidate.identity.is_some() && candidate.recorded == candidate.identity;
    (timeline, took_writes, candidate.index == seen.index)
}
