-- Functions that a Citus cluster runs on the node of a partition. Citus refuses a function that reads tables in a statement that
-- reads tables itself, so what a query needs before it reads its rows is a call of its own. On one server nothing else changes.

-- For each time, the last version of an account that the live view of transactions has recorded at that time or before it, with the
-- checkpoint and the generation of the view. All are read in one snapshot. Without a live generation it returns no row.
CREATE FUNCTION live_versions_at(p_partition smallint, p_account_id uuid, p_times timestamptz[])
RETURNS TABLE (view_position bigint, view_generation smallint, versions bigint[])
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    moment timestamptz;
BEGIN
    SELECT position, generation INTO view_position, view_generation
    FROM projection
    WHERE partition = p_partition AND name = 'transactions' AND state = 'live';
    IF NOT FOUND THEN
        RETURN;
    END IF;
    versions := '{}';
    FOREACH moment IN ARRAY p_times LOOP
        versions := versions || version_at(p_partition, view_generation, p_account_id, moment);
    END LOOP;
    RETURN NEXT;
END
$$;

-- For each time, the position of the last event recorded before it, as position_at.
CREATE FUNCTION positions_at(p_partition smallint, p_times timestamptz[]) RETURNS bigint[]
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    positions bigint[] := '{}';
    moment    timestamptz;
BEGIN
    FOREACH moment IN ARRAY p_times LOOP
        positions := positions || position_at(p_partition, moment);
    END LOOP;
    RETURN positions;
END
$$;

-- As in migration 0020, with these differences for several nodes:
-- - Statements that change the head refer to single values, never to an array: Citus sends each value with the statement.
-- - A single event, and a single key, is inserted by its values. Citus copies the rows of a query into the shard, which costs
--   several times as much for one row.
-- - Snapshots are written one by one. Citus plans an upsert of one row for its shard, and one of many rows for every shard.
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
    last_hash     bytea := coalesce(p_hashes[cardinality(p_hashes)], p_expected_hash);
    last_position bigint := p_expected_position + cardinality(p_ids);
    head          log_head%ROWTYPE;
    has_keys      boolean := false;
    event_row     event%ROWTYPE;
    key_row       idempotency_key%ROWTYPE;
    snapshot_row  record;
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
    SET position = last_position, hash = last_hash, recorded_at = p_recorded_at
    WHERE partition = p_partition AND position = p_expected_position AND hash = p_expected_hash AND fence = p_expected_fence
      AND recorded_at < p_recorded_at AND moved_at IS NULL;
    IF NOT FOUND THEN
        SELECT * INTO STRICT head FROM log_head WHERE partition = p_partition;
        PERFORM refuse_moved_log(head.moved_at);
        outcome := 'head_moved';
        RETURN NEXT;
        RETURN;
    END IF;

    IF cardinality(p_ids) = 1 THEN
        event_row.id := p_ids[1];
        event_row.stream_id := p_stream_ids[1];
        event_row.version := p_versions[1];
        event_row.type := p_types[1];
        event_row.schema_version := p_schema_versions[1];
        event_row.data := p_data[1];
        event_row.metadata := p_metadata[1];
        INSERT INTO event (partition, position, id, stream_id, version, type, schema_version, data, metadata, recorded_at, hash)
        VALUES (
            p_partition, last_position, event_row.id, event_row.stream_id, event_row.version, event_row.type,
            event_row.schema_version, event_row.data, event_row.metadata, p_recorded_at, last_hash
        );
    ELSIF cardinality(p_ids) > 1 THEN
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

    IF cardinality(p_keys) = 1 THEN
        key_row.caller := p_key_callers[1];
        key_row.key := p_keys[1];
        key_row.fingerprint := p_fingerprints[1];
        key_row.receipt := p_receipts[1];
        INSERT INTO idempotency_key (partition, caller, key, fingerprint, receipt, recorded_at, position)
        VALUES (
            p_partition, key_row.caller, key_row.key, key_row.fingerprint, key_row.receipt, p_recorded_at, last_position
        );
    ELSIF cardinality(p_keys) > 1 THEN
        INSERT INTO idempotency_key (partition, caller, key, fingerprint, receipt, recorded_at, position)
        SELECT
            p_partition,
            unnest(p_key_callers),
            unnest(p_keys),
            unnest(p_fingerprints),
            unnest(p_receipts)::json,
            p_recorded_at,
            last_position;
    END IF;

    -- Few batches have snapshots, and those have few.
    IF cardinality(p_snapshot_stream_ids) > 0 THEN
        FOR snapshot_row IN
            SELECT unnest(p_snapshot_stream_ids) AS stream_id, unnest(p_snapshot_versions) AS version, unnest(p_states) AS state
        LOOP
            INSERT INTO snapshot AS held (partition, stream_id, version, state_version, state)
            VALUES (
                p_partition, snapshot_row.stream_id, snapshot_row.version, p_state_version, snapshot_row.state::json
            )
            ON CONFLICT (partition, stream_id) DO UPDATE
            SET version = EXCLUDED.version, state_version = EXCLUDED.state_version, state = EXCLUDED.state
            WHERE held.version < EXCLUDED.version OR held.state_version <> EXCLUDED.state_version;
        END LOOP;
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
