//! Blocks the executors of an app, so that the commands of a test are executed as one batch.

use std::{future::Future, time::Duration};

use passbook_event_store::Partitions;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::App;
use crate::{ApiClient, eventually};

/// The time for commands to reach the queue before they are executed as one batch.
const BATCH_FILL_MS: u64 = 250;

impl App {
    /// Locks the log heads, which blocks every append until the returned connection is closed.
    pub async fn lock_log_heads(&self) -> PgConnection {
        self.lock_rows("log_head", "true").await
    }

    /// Locks the checkpoints until the returned connection is closed. Projectors skip checkpoints that another transaction has locked.
    pub async fn lock_checkpoints(&self) -> PgConnection {
        self.lock_rows("projection", "true").await
    }

    /// Locks rows of the partitions under test until the returned connection is closed. One statement locks the rows of one partition:
    /// Citus refuses `FOR UPDATE` without a partition.
    pub async fn lock_rows(&self, table: &str, condition: &str) -> PgConnection {
        let mut connection = self.database().await;
        let locks = self.partitions_under_test().into_iter().map(|partition| {
            format!("SELECT FROM public.{table} WHERE partition = {partition} AND {condition} FOR UPDATE;")
        });
        let sql = format!("BEGIN; {}", locks.collect::<String>());
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        connection
    }

    /// Blocks the executors with an opening until `commands` are in the queue, so that they are executed as one batch.
    pub async fn run_as_one_batch<T>(&self, commands: impl Future<Output = T>) -> T {
        self.run_as_one_batch_after(self.client(), commands).await
    }

    /// Like [`run_as_one_batch`](Self::run_as_one_batch); `client` sends the opening that blocks.
    pub async fn run_as_one_batch_after<T>(&self, client: ApiClient, commands: impl Future<Output = T>) -> T {
        let log_head_lock = self.lock_log_heads().await;
        let blocking = tokio::spawn(block_executors(client, self.view.map_or(self.partitions(), |_| Partitions::ONE)));
        self.wait_for_blocked_writer().await;
        let release = async {
            tokio::time::sleep(Duration::from_millis(BATCH_FILL_MS)).await;
            log_head_lock.close().await.unwrap();
        };
        let ((), responses) = tokio::join!(release, commands);
        blocking.await.unwrap();
        responses
    }

    /// Waits until an executor's connection waits for a lock.
    pub async fn wait_for_blocked_writer(&self) {
        // On a cluster its statement waits at a node, under a name of Citus.
        let waits = match self.database.is_distributed() {
            true => "SELECT count(*) > 0 FROM citus_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
            false => {
                "SELECT count(*) > 0 FROM pg_stat_activity
                 WHERE datname = current_database() AND application_name = 'passbook writer' AND wait_event_type = 'Lock'"
            }
        };
        eventually("a writer that waits for a lock", async || {
            let mut connection = self.database().await;
            let waiting: bool = sqlx::query_scalar(waits).fetch_one(&mut connection).await.unwrap();
            connection.close().await.unwrap();
            waiting.then_some(())
        })
        .await;
    }
}

/// Gives every executor a command, which blocks if the log heads are locked.
async fn block_executors(client: ApiClient, partitions: Partitions) {
    if !partitions.is_partitioned() {
        client.open_with_balance(0).await;
        return;
    }
    let new_id_in = |partition| partitions.new_id_in(partition);
    let openings = partitions.all().map(|partition| {
        let body = serde_json::json!({"currency": "EUR", "account_id": new_id_in(partition)});
        let client = client.clone();
        async move { client.open(body).await.expect(201) }
    });
    // The accounts do not exist. A refusal also waits for the lock.
    let transfer = client.transfer(new_id_in(0), new_id_in(1), 1);
    let (_, refused) = tokio::join!(futures_util::future::join_all(openings), transfer);
    refused.expect_problem(404, "account_not_found");
}
