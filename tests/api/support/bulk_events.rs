//! Inserts thousands of events by SQL, without the service.

use sqlx::{AssertSqlSafe, Connection, raw_sql};

use super::App;

impl App {
    /// Appends `count` deposits to the account that was opened first, each with a reference of this size. The events
    /// are readable, but their hashes form no chain.
    pub async fn insert_deposits(&self, count: i64, reference_bytes: usize) {
        let partition = self.partition_under_test();
        let sql = format!(
            "WITH head AS (SELECT position AS last FROM log_head WHERE partition = {partition}),
                  stream AS (SELECT stream_id AS id, max(version) AS last FROM event
                             WHERE partition = {partition} AND stream_id = (SELECT stream_id FROM event WHERE partition = {partition} AND position = 1)
                             GROUP BY stream_id)
             INSERT INTO event
             SELECT {partition}, head.last + n, gen_random_uuid(), stream.id, stream.last + n, 'MoneyDeposited', 1,
                    ('{{\"amount\":1,\"reference\":\"' || repeat('x', {reference_bytes}) || '\"}}')::json,
                    '{{\"user_id\":\"anonymous\",\"correlation_id\":\"bulk\",\"causation_id\":\"bulk\"}}',
                    (SELECT recorded_at FROM log_head) + interval '1 microsecond', sha256((head.last + n)::text::bytea)
             FROM head, stream, generate_series(1, {count}) AS n;
             UPDATE log_head SET position = position + {count}, recorded_at = recorded_at + interval '1 microsecond',
                    hash = (SELECT hash FROM event WHERE partition = {partition} ORDER BY position DESC LIMIT 1)"
        );
        let mut connection = self.database().await;
        let mut transaction = connection.begin().await.unwrap();
        raw_sql("SELECT FROM log_head FOR UPDATE").execute(&mut *transaction).await.unwrap();
        raw_sql(AssertSqlSafe(sql)).execute(&mut *transaction).await.unwrap();
        transaction.commit().await.unwrap();
        connection.close().await.unwrap();
    }

    /// Replaces the last event, as happens if a backup is restored and other commands follow.
    pub async fn replace_last_event(&self) {
        self.tamper(
            "UPDATE event SET hash = sha256('another') WHERE position = (SELECT position FROM log_head);
             UPDATE log_head SET hash = sha256('another')",
        )
        .await;
    }
}
