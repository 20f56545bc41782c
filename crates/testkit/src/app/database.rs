//! Direct access to the database of an app: reads that need no service, damage, and events without the service.

use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use sqlx::{AssertSqlSafe, Connection, PgConnection, query, raw_sql};

use super::App;

impl App {
    /// Connects to the database as its owner. In a test of one partition the tables of positions show only that
    /// one.
    pub async fn database(&self) -> PgConnection {
        let mut connection = self.database.connect().await;
        if let Some(view) = self.view {
            let sql = format!(
                "CREATE TEMP VIEW log_head AS SELECT * FROM public.log_head WHERE partition = {0};
                 CREATE TEMP VIEW projection AS SELECT * FROM public.projection WHERE partition = {0}",
                view.partition
            );
            raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        }
        connection
    }

    /// Executes SQL that damages the database.
    pub async fn sabotage(&self, sql: &'static str) {
        self.execute(sql).await;
    }

    /// Executes SQL. Partition 0 in it means the partition under test; `TRUNCATE` and restores apply to all partitions.
    async fn execute(&self, sql: &str) {
        let partition = self.partition_under_test();
        let sql = sql
            .replace("SELECT 0,", &format!("SELECT {partition},"))
            .replace("VALUES (0,", &format!("VALUES ({partition},"));
        let is_for_all_partitions = sql.contains("TRUNCATE ") || sql.contains("saved.");
        let connections = if is_for_all_partitions {
            vec![self.database.connect().await]
        } else if self.database.is_distributed() && consists_of(&sql, &["UPDATE ", "DELETE "]) {
            join_all(self.partitions_under_test().into_iter().map(|at| self.database.connect_to_partition(at))).await
        } else if self.database.is_distributed() && consists_of(&sql, &["UPDATE ", "DELETE ", "INSERT "]) {
            vec![self.rows_under_test().await]
        } else {
            vec![self.database().await]
        };
        // Citus passes the whole text on to the nodes, which accept one change of a table.
        let is_split = self.database.is_distributed() && consists_of(&sql, &["ALTER TABLE "]);
        let texts: Vec<&str> = if is_split { sql.split(';').collect() } else { vec![sql.as_str()] };
        for mut connection in connections {
            for text in &texts {
                raw_sql(AssertSqlSafe(*text)).execute(&mut connection).await.unwrap();
            }
            connection.close().await.unwrap();
        }
    }

    /// Connects to the rows and statistics of the partition under test, on a Citus cluster at its node. If the test is about several
    /// partitions, it connects as [`database`](Self::database).
    pub async fn rows_under_test(&self) -> PgConnection {
        match self.view.is_some() || !self.partitions().is_partitioned() {
            true => self.database.connect_to_partition(self.partition_under_test()).await,
            false => self.database().await,
        }
    }

    /// Executes SQL with the trigger disabled that makes events immutable. Distributed tables have no trigger.
    pub async fn tamper(&self, sql: &str) {
        if self.database.is_distributed() {
            self.execute(sql).await;
            return;
        }
        let sql = format!(
            "ALTER TABLE event DISABLE TRIGGER event_immutable; {sql}; ALTER TABLE event ENABLE ALWAYS TRIGGER event_immutable"
        );
        self.execute(&sql).await;
    }

    /// Raises the time of the log's heads, as reads of a moment do. The next batch gets the next microsecond, if the clock of its
    /// instance is behind that.
    pub async fn raise_log_time(&self, time: DateTime<Utc>) {
        let mut connection = self.database.connect().await;
        let raising = query("UPDATE log_head SET recorded_at = $1 WHERE recorded_at <= $1").bind(time);
        let raised = raising.execute(&mut connection).await.unwrap().rows_affected();
        assert_eq!(raised, u64::from(self.partitions().count().unsigned_abs()), "the log is ahead of {time}");
        connection.close().await.unwrap();
    }

    /// Changes a setting of the database and ends all service connections, so that new ones use it.
    pub async fn alter_database(&self, setting: &str) {
        let mut connection = self.database().await;
        let sql = format!(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I {setting}', current_database()); END $$;
             SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name LIKE 'passbook%'"
        );
        raw_sql("SET default_transaction_read_only = off").execute(&mut connection).await.unwrap();
        raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    /// Refuses connections to the database from now on, and ends those that exist.
    pub async fn refuse_connections(&self) {
        self.database.refuse_connections().await;
    }

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
                    '{{\"user_id\":\"anonymous\",\"correlation_id\":\"bulk\",\"causation_id\":\"01900000-0000-7000-8000-0000000000cc\"}}',
                    (SELECT recorded_at FROM log_head) + interval '1 microsecond', sha256((head.last + n)::text::bytea)
             FROM head, stream, generate_series(1, {count}) AS n;
             UPDATE log_head SET position = position + {count}, recorded_at = recorded_at + interval '1 microsecond',
                    hash = (SELECT hash FROM event WHERE partition = {partition} ORDER BY position DESC LIMIT 1)"
        );
        let mut connection = self.rows_under_test().await;
        let mut transaction = connection.begin().await.unwrap();
        let lock = format!("SELECT FROM log_head WHERE partition = {partition} FOR UPDATE");
        raw_sql(AssertSqlSafe(lock)).execute(&mut *transaction).await.unwrap();
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

/// Whether each statement of a script begins with one of these, or controls a transaction.
fn consists_of(script: &str, verbs: &[&str]) -> bool {
    let mut statements = script.split(';').map(str::trim_start).filter(|statement| !statement.is_empty());
    let known = [verbs, &["BEGIN", "COMMIT", "LOCK "]].concat();
    statements.all(|statement| known.iter().any(|verb| statement.starts_with(verb)))
}
