-- Creates the role that the running service takes after it has connected, and grants its rights: it appends events and cannot
-- change them. The owner of the tables runs this script. It is idempotent.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'passbook_service') THEN
        CREATE ROLE passbook_service NOLOGIN;
    END IF;
EXCEPTION
    -- Another database of this Postgres cluster is migrated at the same time and has created the role.
    WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;

-- The service may also connect as the owner of the tables, so the owner must be able to take the role.
DO $$
BEGIN
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        EXECUTE format('GRANT passbook_service TO %I', current_user);
    END IF;
EXCEPTION
    -- A superuser may have granted the role to the owner already. If not, SET ROLE below fails.
    WHEN insufficient_privilege THEN NULL;
END
$$;

SET LOCAL ROLE passbook_service;
RESET ROLE;

DO $$
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO passbook_service', current_schema());
END
$$;

-- Every role may execute a new function by default.
REVOKE ALL ON FUNCTION delete_old_keys FROM PUBLIC;
GRANT EXECUTE ON FUNCTION delete_old_keys TO passbook_service;
GRANT SELECT ON _sqlx_migrations TO passbook_service;
GRANT SELECT, INSERT ON event, idempotency_key, reversal TO passbook_service;
GRANT SELECT, INSERT, UPDATE ON log_head TO passbook_service;
GRANT SELECT, INSERT ON log_layout, wrapping_key, log_identity TO passbook_service;
GRANT SELECT, INSERT, UPDATE ON log_key TO passbook_service;
GRANT SELECT, INSERT, UPDATE ON copy_progress TO passbook_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON snapshot, projection TO passbook_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON account_view, account_transaction, reversed_movement, account_hold, held_total,
    daily_balance, bank_total, ledger_total TO passbook_service;
GRANT SELECT, INSERT, UPDATE ON relay TO passbook_service;
GRANT SELECT, INSERT, UPDATE ON server_timeline TO passbook_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON webhook, webhook_cursor, webhook_parked, webhook_delivery TO passbook_service;
