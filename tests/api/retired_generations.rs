//! The deletion of retired generations reads each row a few times at most, whatever the planner knows about the tables.

use passbook_testkit::{App, eventually, spawn_app_in_one_partition};
use sqlx::{query_as, query_scalar};

/// More rows than one slice has.
const ROWS: i64 = 8_000;

/// Without autovacuum the planner does not learn how many rows the tables have.
const NEVER_ANALYSED: &str = "
    ALTER TABLE account_view SET (autovacuum_enabled = off);
    ALTER TABLE account_transaction SET (autovacuum_enabled = off);
    ALTER TABLE reversed_movement SET (autovacuum_enabled = off);
    ALTER TABLE account_hold SET (autovacuum_enabled = off);
    ALTER TABLE held_total SET (autovacuum_enabled = off);
    ALTER TABLE daily_balance SET (autovacuum_enabled = off);
    ALTER TABLE bank_total SET (autovacuum_enabled = off);
    ALTER TABLE ledger_total SET (autovacuum_enabled = off)";

/// Rows of generation 99 of each view.
const RETIRED_ROWS: &str = "
    INSERT INTO account_view
        (partition, generation, account_id, owner, currency, status, balance, version, transaction_count, opened_at,
         last_activity_at)
    SELECT 0, 99, gen_random_uuid(), 'owner', 'EUR', 'open', 0, 1, 0, now(), now()
    FROM generate_series(1, 8000);
    INSERT INTO account_transaction
        (partition, generation, account_id, version, kind, amount, balance_after, recorded_at, event_id)
    SELECT 0, 99, gen_random_uuid(), n, 'deposit', 1, n, now(), gen_random_uuid()
    FROM generate_series(1, 8000) AS n;
    INSERT INTO reversed_movement (partition, generation, account_id, version, reversed)
    SELECT partition, generation, account_id, version, 1 FROM account_transaction WHERE generation = 99;
    INSERT INTO account_hold
        (partition, generation, account_id, version, hold_id, currency, status, amount, captured, placed_at, expires_at)
    SELECT 0, 99, gen_random_uuid(), n, gen_random_uuid(), 'EUR', 'active', 1, 0, now(), now()
    FROM generate_series(1, 8000) AS n;
    INSERT INTO held_total (partition, generation, currency, held)
    SELECT 0, 99, n::text, 0 FROM generate_series(1, 8000) AS n;
    INSERT INTO daily_balance (partition, generation, account_id, day, opening, money_in, money_out, closing, count)
    SELECT 0, 99, gen_random_uuid(), '2026-01-01', 0, 0, 0, 0, 1
    FROM generate_series(1, 8000);
    INSERT INTO bank_total (partition, generation, currency, open, frozen, closed, money, event_count)
    SELECT 0, 99, n::text, 0, 0, 0, 0, 0 FROM generate_series(1, 8000) AS n;
    INSERT INTO ledger_total (partition, generation, day, currency, ledger_account, debit, credit, event_count)
    SELECT 0, 99, '2026-01-01'::date + n, 'EUR', 'assets:cash:atm', 0, 0, 0 FROM generate_series(1, 8000) AS n;
    INSERT INTO projection (partition, name, generation, schema_version, state, position)
    SELECT 0, name, 99, 1, 'retired', 0
    FROM unnest('{accounts,transactions,holds,daily_balances,bank_totals,ledger_totals}'::text[]) AS name";

const TABLES: [&str; 8] = [
    "account_view",
    "account_transaction",
    "reversed_movement",
    "account_hold",
    "held_total",
    "daily_balance",
    "bank_total",
    "ledger_total",
];

async fn is_gone(app: &App) -> bool {
    let gone = "SELECT NOT EXISTS (SELECT FROM projection WHERE generation = 99)";
    query_scalar(gone).fetch_one(&mut app.database().await).await.unwrap()
}

#[tokio::test]
async fn a_retired_generation_of_tables_never_analysed_is_deleted_in_key_order() {
    let mut app = spawn_app_in_one_partition().await;
    app.sabotage(NEVER_ANALYSED).await;
    app.sabotage(RETIRED_ROWS).await;
    eventually("the deletion", async || is_gone(&app).await.then_some(())).await;
    app.stop().await;
    app.wait_until_disconnected().await;
    let read: Vec<(String, i64, i64, bool)> = query_as(
        "SELECT relname::text, seq_tup_read + idx_tup_fetch, n_tup_del, last_analyze IS NULL AND last_autoanalyze IS NULL
         FROM pg_stat_user_tables WHERE relname = ANY($1)",
    )
    .bind(TABLES)
    .fetch_all(&mut app.rows_under_test().await)
    .await
    .unwrap();
    assert_eq!(read.len(), TABLES.len());
    for (table, read, deleted, is_never_analysed) in read {
        assert!(is_never_analysed, "{table} was analysed");
        assert_eq!(deleted, ROWS, "{table}");
        // Once to find the end of a slice, once to delete it, and again what one pass has deleted before the next.
        assert!(read < 5 * ROWS, "{read} rows of {table} were read to delete {deleted}");
    }
}
