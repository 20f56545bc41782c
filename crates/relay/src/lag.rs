//! How far behind a stream is: in figures all the time, in the log each minute.

use std::time::Duration;

use chrono::Utc;
use sqlx::PgPool;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::checkpoint;
use passbook_telemetry::metrics::METRICS;

/// How often it is measured.
const MEASURE_MS: u64 = 1_000;
/// How often it is told in the log.
const TELL_MS: u64 = 60_000;

/// Measures until it is dropped. The figures stay as they are while the database is away.
pub(super) async fn watch(pool: PgPool, partition: i16, name: String, published: watch::Receiver<Option<i64>>) {
    let mut told_at = Instant::now();
    let mut told = None;
    loop {
        sleep(Duration::from_millis(MEASURE_MS)).await;
        let reached = *published.borrow();
        let position = match reached {
            Some(position) => position,
            // Nobody has seen the stream yet: it reaches as far as it did when somebody noted it.
            None => match checkpoint::load(&pool, partition, &name).await {
                Ok(noted) => noted.position,
                Err(_) => continue,
            },
        };
        let Ok(lag) = checkpoint::lag(&pool, partition, position).await else { continue };
        let events = (lag.head - position).max(0);
        let waited = lag.waiting_since.map_or(0, |since| (Utc::now() - since).num_milliseconds().max(0));
        let seconds = waited as f64 / 1_000.0;
        METRICS.relay_lag_events.with_label_values(&[&name]).set(events);
        METRICS.relay_lag_seconds.with_label_values(&[&name]).set(seconds);
        let since = position - *told.get_or_insert(position);
        if told_at.elapsed() >= Duration::from_millis(TELL_MS) {
            tracing::info!(
                stream = name,
                position,
                lag_events = events,
                lag_s = seconds,
                published = since,
                "relaying"
            );
            (told_at, told) = (Instant::now(), Some(position));
        }
    }
}
