-- The rules of appending: a key can be recorded without events, no event is recorded at or before a time that a read has
-- declared final, and a log that was moved to another database takes no more writes.

-- When `passbook copy` moved the log into another database; null while this is the log.
ALTER TABLE log_head ADD COLUMN moved_at timestamptz;

-- Fails if the log was moved. SQLSTATE PB001 lets the service say so.
CREATE FUNCTION refuse_moved_log(p_moved_at timestamptz) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF p_moved_at IS NOT NULL THEN
        RAISE EXCEPTION 'the log was moved to another database by passbook copy at %', p_moved_at
            USING ERRCODE = 'PB001', HINT = 'Connect to the new database.';
    END IF;
END
$$;

-- Locks the head, compares it with what the caller saw last, and writes everything or nothing. It has the signature and the
-- outcomes of migration 0001, so releases before this migration call it, too.
--
-- "head_moved" also if the batch is not later than the head: a read may have raised the head's time (see settle_moment), or
-- a batch of keys alone. A batch without events leaves position and hash of the head as they are, and raises its time.
CREATE OR REPLACE FUNCTION append_batch(
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
    p_states              text[]
) RETURNS TABLE (outcome text, caller text, key text, fingerprint bytea, receipt text)
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
    head      log_head%ROWTYPE;
    last_hash bytea;
BEGIN
    -- The log-head lock: held until the transaction ends.
    SELECT * INTO STRICT head FROM log_head WHERE partition = p_partition FOR UPDATE;
    PERFORM refuse_moved_log(head.moved_at);
    IF (head.position, head.hash, head.fence) IS DISTINCT FROM (p_expected_position, p_expected_hash, p_expected_fence)
        OR p_recorded_at <= head.recorded_at
    THEN
        RETURN QUERY SELECT 'head_moved', NULL::text, NULL::text, NULL::bytea, NULL::text;
        RETURN;
    END IF;

    IF cardinality(p_asked_keys) > 0 THEN
        RETURN QUERY
            SELECT 'key_recorded', recorded.caller, recorded.key, recorded.fingerprint, recorded.receipt::text
            FROM unnest(p_asked_callers, p_asked_keys) AS asked(caller, key)
            CROSS JOIN LATERAL (
                SELECT k.caller, k.key, k.fingerprint, k.receipt
                FROM idempotency_key AS k
                WHERE k.partition = p_partition AND k.caller = asked.caller AND k.key = asked.key
                LIMIT 1
            ) AS recorded;
        IF FOUND THEN
            RETURN;
        END IF;
    END IF;

    IF cardinality(p_ids) > 0 THEN
        INSERT INTO event (partition, position, id, stream_id, version, type, schema_version, data, metadata, recorded_at, hash)
        SELECT p_partition, p_expected_position + e.ordinal, e.id, e.stream_id, e.version, e.type, e.schema_version,
               e.data::json, e.metadata::json, p_recorded_at, e.hash
        FROM unnest(p_ids, p_stream_ids, p_versions, p_types, p_schema_versions, p_data, p_metadata, p_hashes)
            WITH ORDINALITY AS e(id, stream_id, version, type, schema_version, data, metadata, hash, ordinal);
    END IF;

    IF cardinality(p_keys) > 0 THEN
        INSERT INTO idempotency_key (partition, caller, key, fingerprint, receipt, recorded_at)
        SELECT p_partition, k.caller, k.key, k.fingerprint, k.receipt::json, p_recorded_at
        FROM unnest(p_key_callers, p_keys, p_fingerprints, p_receipts) AS k(caller, key, fingerprint, receipt);
    END IF;

    IF cardinality(p_snapshot_stream_ids) > 0 THEN
        INSERT INTO snapshot AS held (partition, stream_id, version, state_version, state)
        SELECT p_partition, s.stream_id, s.version, p_state_version, s.state::json
        FROM unnest(p_snapshot_stream_ids, p_snapshot_versions, p_states) AS s(stream_id, version, state)
        ON CONFLICT (partition, stream_id) DO UPDATE
        SET version = EXCLUDED.version, state_version = EXCLUDED.state_version, state = EXCLUDED.state
        WHERE held.version < EXCLUDED.version OR held.state_version <> EXCLUDED.state_version;
    END IF;

    last_hash := coalesce(p_hashes[cardinality(p_hashes)], p_expected_hash);
    UPDATE log_head
    SET position = p_expected_position + cardinality(p_ids), hash = last_hash, recorded_at = p_recorded_at
    WHERE partition = p_partition;

    RETURN QUERY SELECT 'appended', NULL::text, NULL::text, NULL::bytea, NULL::text;
END
$$;

-- As in migration 0011, but fails if the log was moved.
CREATE OR REPLACE FUNCTION take_turn(p_partition smallint, p_known bigint, p_events_max bigint)
RETURNS TABLE (
    head_position    bigint,
    head_hash        bytea,
    head_recorded_at timestamptz,
    head_fence       bigint,
    event_hash       bytea,
    stream_id        uuid,
    version          bigint,
    type             text,
    schema_version   smallint,
    data             text
)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    head log_head%ROWTYPE;
BEGIN
    SELECT * INTO STRICT head FROM log_head WHERE log_head.partition = p_partition FOR UPDATE;
    PERFORM refuse_moved_log(head.moved_at);
    RETURN QUERY
    SELECT
        head.position, head.hash, head.recorded_at, head.fence,
        event.hash, event.stream_id, event.version, event.type, event.schema_version, event.data::text
    FROM event
    WHERE event.partition = p_partition
        AND event.position >= p_known
        AND head.position - p_known BETWEEN 1 AND p_events_max
    ORDER BY event.position;
    IF NOT FOUND THEN
        RETURN QUERY
        SELECT
            head.position, head.hash, head.recorded_at, head.fence,
            NULL::bytea, NULL::uuid, NULL::bigint, NULL::text, NULL::smallint, NULL::text;
    END IF;
END
$$;

-- Makes a moment final: returns the position of the last event recorded at p_moment or before it, and guarantees that no
-- event is ever recorded there later. A moment after the head's time raises that time; append_batch refuses earlier batches.
--
-- A moment after the head's time and after the database's clock is not final: "is_future", and nothing is changed.
-- Each statement sees what was committed before it, so after the wait for the row lock the position is that of the new head.
CREATE FUNCTION settle_moment(p_partition smallint, p_moment timestamptz)
RETURNS TABLE (final_position bigint, is_future boolean)
LANGUAGE plpgsql
AS $$
DECLARE
    head_position bigint;
    head_time     timestamptz;
BEGIN
    SELECT position, recorded_at INTO STRICT head_position, head_time FROM log_head WHERE partition = p_partition;
    IF head_time < p_moment THEN
        IF p_moment > clock_timestamp() THEN
            RETURN QUERY SELECT head_position, true;
            RETURN;
        END IF;
        UPDATE log_head
        SET recorded_at = p_moment
        WHERE partition = p_partition AND recorded_at < p_moment
        RETURNING position INTO head_position;
        IF FOUND THEN
            RETURN QUERY SELECT head_position, false;
            RETURN;
        END IF;
    END IF;
    RETURN QUERY SELECT position_at(p_partition, p_moment + interval '1 microsecond'), false;
END
$$;
