-- The role that a running service takes, whoever it connects as: it appends, and cannot change what is recorded.
-- Run by the tables' owner; running it again changes nothing.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'passbook_service') THEN
        CREATE ROLE passbook_service NOLOGIN;
    END IF;
EXCEPTION
    -- Another database of this cluster is migrated at the same moment.
    WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;

-- The owner may serve, too, and then takes the role like everybody else.
DO $$
BEGIN
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        EXECUTE format('GRANT passbook_service TO %I', current_user);
    END IF;
EXCEPTION
    -- Somebody who may has given it to the owner already, or the next statement says that nobody has.
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

GRANT SELECT ON _sqlx_migrations TO passbook_service;
GRANT SELECT, INSERT ON event, idempotency_key TO passbook_service;
GRANT SELECT, INSERT, UPDATE ON log_head TO passbook_service;
GRANT SELECT, INSERT ON log_layout TO passbook_service;
GRANT SELECT, INSERT, UPDATE ON copy_progress TO passbook_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON snapshot, projection TO passbook_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON account_view, account_transaction, daily_balance, bank_total TO passbook_service;
GRANT SELECT, INSERT, UPDATE ON relay TO passbook_service;
