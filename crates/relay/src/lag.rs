//! Reports how far a stream is behind its partition of the log: each second as metrics, each minute in a log line.

use std::{convert::Infallible, time::Duration};

use chrono::Utc;
use sqlx::PgPool;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::checkpoint;
use passbook_telemetry::metrics::METRICS;

/// The interval between two measurements.
const MEASURE_MS: u64 = 1_000;
/// The interval between two log lines.
const LOG_MS: u64 = 60_000;

/// Measures the lag until it is dropped. The metrics keep their values while the database is unavailable.
///
/// `published` is the stream's last position, or `None` until the relay has read it from the NATS server.
pub(super) async fn report(
    pool: PgPool,
    partition: i16,
    stream: String,
    published: watch::Receiver<Option<i64>>,
) -> Infallible {
    let mut logged_at = Instant::now();
    let mut logged_position = None;
    loop {
        sleep(Duration::from_millis(MEASURE_MS)).await;
        let last = *published.borrow();
        let position = match last {
            Some(position) => position,
            // The NATS server has not answered yet, so the stored checkpoint is the best known value.
            None => match checkpoint::load(&pool, partition, &stream).await {
                Ok(checkpoint) => checkpoint.position,
                Err(_) => continue,
            },
        };
        let Ok(lag) = checkpoint::lag(&pool, partition, position).await else { continue };
        let lag_events = (lag.head - position).max(0);
        let lag_ms = lag.oldest_recorded_at.map_or(0, |at| (Utc::now() - at).num_milliseconds().max(0));
        let lag_s = lag_ms as f64 / 1_000.0;
        METRICS.relay_lag_events.with_label_values(&[&stream]).set(lag_events);
        METRICS.relay_lag_seconds.with_label_values(&[&stream]).set(lag_s);
        let published = position - *logged_position.get_or_insert(position);
        if logged_at.elapsed() >= Duration::from_millis(LOG_MS) {
            tracing::info!(stream, position, lag_events, lag_s, published, "relay progress");
            (logged_at, logged_position) = (Instant::now(), Some(position));
        }
    }
}
