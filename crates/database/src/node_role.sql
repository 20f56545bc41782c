-- Citus connects to the nodes as the current user, so the service role must be able to log in there. The role has no password: the
-- nodes of a cluster admit each other by their own rules, and all other clients need a password.
--
-- Citus does not pass the settings of a session on to the nodes. Those that durability, locks and plans depend on there are
-- settings of the role in this database, which Citus copies to every node. Idle transactions are limited at the coordinator alone:
-- when it ends one, it ends its part at the node.
DO $$
DECLARE
    setting text;
BEGIN
    ALTER ROLE passbook_service LOGIN;
    FOREACH setting IN ARRAY ARRAY[
        'synchronous_commit = on',
        'default_transaction_isolation = ''read committed''',
        'lock_timeout = ''2s''',
        'enable_seqscan = off',
        'enable_bitmapscan = off',
        'enable_sort = off',
        'jit = off',
        'timezone = ''UTC''',
        'datestyle = ''ISO'''
    ] LOOP
        EXECUTE format('ALTER ROLE passbook_service IN DATABASE %I SET %s', current_database(), setting);
    END LOOP;
END
$$;
