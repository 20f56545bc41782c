//! How far behind a stream is: in figures all the time, in the log each minute.

use std::time::Duration;

use chrono::Utc;
use sqlx::PgPool;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::checkpoint;
use crate::metrics::METRICS;

/// How often it is measured.
const MEASURE_MS: u64 = 1_000;
/// How often it is told in the log.
const TELL_MS: u64 = 60_000;

/// Measures until it is dropped. The figures stay as they are while the database is away.
pub(super) async fn watch(pool: PgPool, partition: i16, name: String, published: watch::Receiver<i64>) {
    let mut told_at = Instant::now();
    let mut told = 0;
    loop {
        sleep(Duration::from_millis(MEASURE_MS)).await;
        let position = *published.borrow();
        let Ok(lag) = checkpoint::lag(&pool, partition, position).await else { continue };
        let events = (lag.head - position).max(0);
        let waited = lag.waiting_since.map_or(0, |since| (Utc::now() - since).num_milliseconds().max(0));
        let seconds = waited as f64 / 1_000.0;
        METRICS.relay_lag_events.with_label_values(&[&name]).set(events);
        METRICS.relay_lag_seconds.with_label_values(&[&name]).set(seconds);
        if told_at.elapsed() >= Duration::from_millis(TELL_MS) {
            let since = position - told;
            tracing::info!(
                stream = name,
                position,
                lag_events = events,
                lag_s = seconds,
                published = since,
                "relaying"
            );
            (told_at, told) = (Instant::now(), position);
        }
    }
}
