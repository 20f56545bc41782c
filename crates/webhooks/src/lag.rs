//! Reports the states of all endpoints, and how far the active ones are behind the log.

use chrono::{DateTime, Utc};
use passbook_telemetry::metrics::METRICS;
use sqlx::{PgConnection, query, query_scalar};
use uuid::Uuid;

use crate::{
    service::{Error, WEBHOOKS_MAX, Webhooks},
    views::Webhook,
};

impl Webhooks {
    /// Reports the number of endpoints by state, and the lag of the active ones: also of those that no process delivers to.
    ///
    /// # Errors
    /// The database failed.
    pub(crate) async fn report_lag(&self) -> Result<(), Error> {
        let all = self.list(Uuid::nil(), WEBHOOKS_MAX).await?;
        let count = |state: &str| all.iter().filter(|webhook| webhook.state == state).count() as i64;
        for state in ["active", "failing"] {
            METRICS.webhooks.with_label_values(&[state]).set(count(state));
        }
        let mut lags = Vec::new();
        for webhook in all.iter().filter(|webhook| webhook.state == "active") {
            let oldest = match webhook.lag_events {
                0 => None,
                _ => oldest(&mut *self.inner().pool.acquire().await?, webhook).await?,
            };
            let lag_s = oldest.map_or(0.0, |oldest| (Utc::now() - oldest).as_seconds_f64().max(0.0));
            lags.push((webhook.webhook_id.to_string(), webhook.lag_events, lag_s));
        }
        // Without a pause in between, so that no scrape finds the series missing.
        METRICS.webhook_lag_events.reset();
        METRICS.webhook_lag_seconds.reset();
        for (label, events, lag_s) in &lags {
            METRICS.webhook_lag_events.with_label_values(&[label]).set(*events);
            METRICS.webhook_lag_seconds.with_label_values(&[label]).set(*lag_s);
        }
        Ok(())
    }
}

/// When the first event that an endpoint lacks was recorded. An event that waits for another attempt counts from its first failure.
async fn oldest(connection: &mut PgConnection, webhook: &Webhook) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    let cursors = query!(
        "SELECT log_partition, position FROM webhook_cursor WHERE partition = 0 AND webhook_id = $1",
        webhook.webhook_id
    );
    let mut oldest = webhook.failing_since;
    for cursor in cursors.fetch_all(&mut *connection).await? {
        let next = query_scalar!(
            "SELECT recorded_at FROM event WHERE partition = $1 AND position = $2",
            cursor.log_partition,
            cursor.position + 1
        );
        oldest = [oldest, next.fetch_optional(&mut *connection).await?].into_iter().flatten().min();
    }
    Ok(oldest)
}
