-- The append costs less CPU time. Signature and outcomes stay, so releases before and after this migration call it.

-- As in migration 0018, with these differences:
-- - The head is compared and moved by one statement, which also takes the log-head lock. After waiting for the lock, Postgres compares
--   the row as it is then. Only a batch with keys takes the lock before, because its keys are read between lock and update.
-- - Arrays are unnested in the select list, which yields rows one by one. In FROM, each array is materialized first.
-- - The row of an outcome is returned without a query of its own.
-- - It has no settings of its own. The sessions of the service have them, and each call would set and reset them.
CREATE OR REPLACE FUNCTION append_batch_with_reversals(
    p_partition           smallint,
    p_expected_position   bigint,
    p_expected_hash       bytea,
    p_expected_fence      bigint,
    p_recorded_at         timestamptz,
    p_asked_callers       text[],
    p_asked_keys          text[],
    p_ids                 uuid[],
    p_stream_ids          uuid[],
    p_versions            bigint[],
    p_types               text[],
    p_schema_versions     smallint[],
    p_data                text[],
    p_metadata            text[],
    p_hashes              bytea[],
    p_key_callers         text[],
    p_keys                text[],
    p_fingerprints        bytea[],
    p_receipts            text[],
    p_snapshot_stream_ids uuid[],
    p_snapshot_versions   bigint[],
    p_state_version       smallint,
    p_states              text[],
    p_reversed_accounts   uuid[],
    p_reversed_versions   bigint[],
    p_reversal_numbers    integer[],
    p_reversal_amounts    bigint[],
    p_reversed_sums       bigint[],
    p_reversing_versions  bigint[],
    p_key_bytes_max       bigint
) RETURNS TABLE (outcome text, caller text, key text, fingerprint bytea, receipt text)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    last_hash bytea := coalesce(p_hashes[cardinality(p_hashes)], p_expected_hash);
    head      log_head%ROWTYPE;
    has_keys  boolean := false;
BEGIN
    IF cardinality(p_asked_keys) > 0 THEN
        -- The log-head lock: held until the transaction ends.
        PERFORM FROM log_head
        WHERE partition = p_partition AND position = p_expected_position AND hash = p_expected_hash AND fence = p_expected_fence
          AND recorded_at < p_recorded_at AND moved_at IS NULL
        FOR UPDATE;
        has_keys := FOUND;
    END IF;
    IF has_keys THEN
        RETURN QUERY
            SELECT 'key_recorded', recorded.caller, recorded.key, recorded.fingerprint, recorded.receipt
            FROM (
                SELECT
                    found.*,
                    row_number() OVER so_far AS number,
                    sum(octet_length(found.caller) + octet_length(found.key) + octet_length(found.fingerprint)
                        + octet_length(found.receipt) + 64) OVER so_far AS bytes
                FROM unnest(p_asked_callers, p_asked_keys) AS asked(caller, key)
                CROSS JOIN LATERAL (
                    SELECT k.caller, k.key, k.fingerprint, k.receipt::text AS receipt
                    FROM idempotency_key AS k
                    WHERE k.partition = p_partition AND k.caller = asked.caller AND k.key = asked.key
                    LIMIT 1
                ) AS found
                WINDOW so_far AS (ROWS UNBOUNDED PRECEDING)
            ) AS recorded
            WHERE recorded.number = 1 OR recorded.bytes <= p_key_bytes_max;
        IF FOUND THEN
            RETURN;
        END IF;
    END IF;

    -- The log-head lock, if it is not held yet.
    UPDATE log_head
    SET position = p_expected_position + cardinality(p_ids), hash = last_hash, recorded_at = p_recorded_at
    WHERE partition = p_partition AND position = p_expected_position AND hash = p_expected_hash AND fence = p_expected_fence
      AND recorded_at < p_recorded_at AND moved_at IS NULL;
    IF NOT FOUND THEN
        SELECT * INTO STRICT head FROM log_head WHERE partition = p_partition;
        PERFORM refuse_moved_log(head.moved_at);
        outcome := 'head_moved';
        RETURN NEXT;
        RETURN;
    END IF;

    IF cardinality(p_ids) > 0 THEN
        INSERT INTO event (partition, position, id, stream_id, version, type, schema_version, data, metadata, recorded_at, hash)
        SELECT
            p_partition,
            p_expected_position + generate_series(1, cardinality(p_ids)),
            unnest(p_ids),
            unnest(p_stream_ids),
            unnest(p_versions),
            unnest(p_types),
            unnest(p_schema_versions),
            unnest(p_data)::json,
            unnest(p_metadata)::json,
            p_recorded_at,
            unnest(p_hashes);
    END IF;

    IF cardinality(p_keys) > 0 THEN
        INSERT INTO idempotency_key (partition, caller, key, fingerprint, receipt, recorded_at, position)
        SELECT
            p_partition,
            unnest(p_key_callers),
            unnest(p_keys),
            unnest(p_fingerprints),
            unnest(p_receipts)::json,
            p_recorded_at,
            p_expected_position + cardinality(p_ids);
    END IF;

    IF cardinality(p_snapshot_stream_ids) > 0 THEN
        INSERT INTO snapshot AS held (partition, stream_id, version, state_version, state)
        SELECT p_partition, unnest(p_snapshot_stream_ids), unnest(p_snapshot_versions), p_state_version, unnest(p_states)::json
        ON CONFLICT (partition, stream_id) DO UPDATE
        SET version = EXCLUDED.version, state_version = EXCLUDED.state_version, state = EXCLUDED.state
        WHERE held.version < EXCLUDED.version OR held.state_version <> EXCLUDED.state_version;
    END IF;

    IF cardinality(p_reversed_accounts) > 0 THEN
        INSERT INTO reversal (partition, account_id, version, number, amount, reversed, reversing_version)
        SELECT
            p_partition,
            unnest(p_reversed_accounts),
            unnest(p_reversed_versions),
            unnest(p_reversal_numbers),
            unnest(p_reversal_amounts),
            unnest(p_reversed_sums),
            unnest(p_reversing_versions);
    END IF;

    outcome := 'appended';
    RETURN NEXT;
END
$$;
