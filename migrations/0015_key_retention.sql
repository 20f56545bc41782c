-- Idempotency keys know their position in the log and are deleted by age.
--
-- `passbook migrate` builds the index idempotency_key_recorded_at (partition, recorded_at) after the migrations, without
-- blocking writers (crates/database/src/key_index.rs).

-- The position of the last event recorded at "recorded_at" or before it: for a command that succeeded, the last event of its
-- batch. Null for keys that were recorded before this migration, or copied by an older release.
ALTER TABLE idempotency_key ADD COLUMN position bigint;

-- As in migration 0013, and each key gets its position. Older releases call it, too.
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
        INSERT INTO idempotency_key (partition, caller, key, fingerprint, receipt, recorded_at, position)
        SELECT p_partition, k.caller, k.key, k.fingerprint, k.receipt::json, p_recorded_at,
               p_expected_position + cardinality(p_ids)
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

-- Deletes up to p_rows_max keys of a partition, oldest first, that were recorded at p_after or later and more than
-- p_retention_days before the present. Returns their number and the time of the last one, at which the next slice begins: a
-- slice that began at the oldest key again would read the deleted rows of all slices before it.
--
-- The only way in which the service's role can delete keys. It deletes no key that is younger than a day. The present is the
-- database's clock, but not later than the log's last batch: if that clock is wrong, no young key is deleted.
-- Two instances that delete at the same time take different rows, and no row that a command could read or write is locked.
CREATE FUNCTION delete_old_keys(p_partition smallint, p_retention_days integer, p_after timestamptz, p_rows_max integer)
RETURNS TABLE (deleted bigint, last_recorded_at timestamptz)
LANGUAGE plpgsql
SECURITY DEFINER
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $$
DECLARE
    kept_from    timestamptz;
    old_callers  text[];
    old_keys     text[];
    rows_deleted bigint;
    slice_end    timestamptz;
BEGIN
    IF p_retention_days IS NULL OR p_retention_days < 1 THEN
        RAISE EXCEPTION 'idempotency keys are kept for at least one day' USING ERRCODE = 'restrict_violation';
    END IF;
    SELECT least(log_head.recorded_at, clock_timestamp()) - make_interval(days => p_retention_days)
    INTO STRICT kept_from
    FROM log_head
    WHERE log_head.partition = p_partition;

    SELECT array_agg(slice.caller), array_agg(slice.key), max(slice.recorded_at)
    INTO old_callers, old_keys, slice_end
    FROM (
        SELECT k.caller, k.key, k.recorded_at
        FROM idempotency_key AS k
        WHERE k.partition = p_partition AND k.recorded_at >= p_after AND k.recorded_at < kept_from
        ORDER BY k.recorded_at
        LIMIT p_rows_max
        FOR UPDATE SKIP LOCKED
    ) AS slice;

    DELETE FROM idempotency_key AS k
    USING unnest(old_callers, old_keys) AS old(caller, key)
    WHERE k.partition = p_partition AND k.caller = old.caller AND k.key = old.key;
    GET DIAGNOSTICS rows_deleted = ROW_COUNT;
    RETURN QUERY SELECT rows_deleted, slice_end;
END
$$;

-- The function has the rights of its owner, so names in it must not resolve to tables of the caller.
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION delete_old_keys SET search_path = %I, pg_temp', current_schema());
END
$$;
