//! Pools of connections to the primary, and the tasks that follow it after a failover.

use std::{
    ops::Range,
    sync::{Arc, Weak},
    time::Duration,
};

use super::{
    confirmation::confirm,
    primary::{FIND_GRACE, FIND_MS_MAX, Found, Primary, PrimaryConnector, Shared, with_timeout},
    server::{self, judge},
    session::check_session,
};
use passbook_telemetry::supervision;
use sqlx::{
    Connection, PgConnection, PgPool, Result,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::{sync::watch, time::sleep};

/// How long a connection attempt may take. A connection that opens within this time after a failover may lead to the former
/// primary, because its attempt may have started before.
const CONNECTING_MAX: Duration = Duration::from_secs(2);
/// How often the primary is searched for while nothing is written.
const WATCH_INTERVAL_MS: u64 = 2_000;

impl PrimaryConnector {
    /// Creates a pool of connections to the primary. After a failover the pool drops its old connections, even if the former
    /// primary still responds.
    ///
    /// With several servers it spawns tasks, so it must be called within a Tokio runtime.
    pub fn pool(&self, options: PgPoolOptions) -> PgPool {
        let current = self.servers[self.shared.primary.borrow().index].clone();
        let (checked, shared) = (CheckedConnections::of(self, &current), Arc::downgrade(&self.shared));
        let options = options
            .after_connect(move |connection, _| {
                let checked = checked.clone();
                Box::pin(async move { checked.check(connection).await })
            })
            .before_acquire(move |_, connection| {
                let since = shared.upgrade().and_then(|shared| shared.primary.borrow().since);
                let leads_to_primary = since.is_none_or(|at| connection.age + CONNECTING_MAX < at.elapsed());
                Box::pin(async move { Ok(leads_to_primary) })
            });
        let pool = options.connect_lazy_with(current);
        if self.servers.len() > 1 {
            self.shared.watch_started.call_once(|| {
                let watch = watch_primary(self.servers.clone(), Arc::downgrade(&self.shared));
                drop(supervision::spawn("primary watch", watch));
            });
            let retarget = retarget_pool(self.servers.clone(), self.shared.primary.subscribe(), pool.clone());
            supervision::spawn("pool retarget", retarget);
        }
        pool
    }
}

/// Checks the new connections of a pool. It does not keep the connector alive.
#[derive(Clone)]
struct CheckedConnections {
    server: PgConnectOptions,
    servers: Vec<PgConnectOptions>,
    shared: Weak<Shared>,
    confirmed: Option<Range<i16>>,
}

impl CheckedConnections {
    fn of(connector: &PrimaryConnector, server: &PgConnectOptions) -> Self {
        let PrimaryConnector { servers, shared, confirmed, .. } = connector.clone();
        Self { server: server.clone(), servers, shared: Arc::downgrade(&shared), confirmed }
    }

    /// Checks the session settings and the timeline, and confirms what the connection shows.
    async fn check(self, connection: &mut PgConnection) -> Result<()> {
        check_session(connection, &self.server).await?;
        if let Some(shared) = self.shared.upgrade() {
            if self.servers.len() > 1 && !shared.primary.borrow().is_found {
                // The pool connects to the first server of the list, which may be a former primary.
                PrimaryConnector::sharing(Arc::clone(&shared), self.servers).connect().await?;
            }
            let seen = shared.primary.borrow().identity;
            judge(server::identify(connection).await?.identity, None, seen)?;
        }
        match self.confirmed {
            Some(partitions) => confirm(connection, partitions).await,
            None => Ok(()),
        }
    }
}

/// Searches for the primary at intervals, because an instance that only reads would not notice a failover. Ends when the last
/// connector is dropped.
async fn watch_primary(servers: Vec<PgConnectOptions>, shared: Weak<Shared>) {
    loop {
        sleep(Duration::from_millis(WATCH_INTERVAL_MS)).await;
        let Some(shared) = shared.upgrade() else { return };
        let connector = PrimaryConnector::sharing(shared, servers.clone());
        let finding = with_timeout(Duration::from_millis(FIND_MS_MAX), connector.find(FIND_GRACE));
        if let Ok(Found { connection, identity, former, .. }) = finding.await {
            connector.report_former(former, identity).await;
            // Best effort: the connection is closed either way.
            let _ = connection.close().await;
        }
    }
}

/// Points the pool to each new primary. Ends when the last connector is dropped.
async fn retarget_pool(servers: Vec<PgConnectOptions>, mut primary: watch::Receiver<Primary>, pool: PgPool) {
    while primary.changed().await.is_ok() {
        let index = primary.borrow_and_update().index;
        pool.set_connect_options(servers[index].clone());
    }
}
