-- Holds and limits depend on the time of each event, and a reversal depends on the reversals before it.

-- One row for each reversal. The movement of a transfer is that of the sender. "number" counts the reversals of a movement from 1,
-- "reversed" is the sum of their amounts up to this one, and "reversing_version" is the version of the event in the account's stream.
-- Two batches that decide on the same sum write the same number, so the primary key refuses the second one.
CREATE TABLE reversal (
    partition         smallint NOT NULL,
    account_id        uuid     NOT NULL,
    version           bigint   NOT NULL,
    number            integer  NOT NULL CHECK (number >= 1),
    amount            bigint   NOT NULL CHECK (amount >= 1),
    reversed          bigint   NOT NULL CHECK (reversed >= amount),
    reversing_version bigint   NOT NULL CHECK (reversing_version > version),
    PRIMARY KEY (partition, account_id, version, number)
);

-- As append_batch of migration 0015, and writes the rows of reversals. It returns as many recorded keys as fit into
-- p_key_bytes_max, of which each row takes 64 besides its columns; the first one is returned whatever its size. An older release
-- keeps using append_batch.
CREATE FUNCTION append_batch_with_reversals(
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

    IF cardinality(p_reversed_accounts) > 0 THEN
        INSERT INTO reversal (partition, account_id, version, number, amount, reversed, reversing_version)
        SELECT p_partition, r.account_id, r.version, r.number, r.amount, r.reversed, r.reversing_version
        FROM unnest(p_reversed_accounts, p_reversed_versions, p_reversal_numbers, p_reversal_amounts, p_reversed_sums,
                    p_reversing_versions)
            AS r(account_id, version, number, amount, reversed, reversing_version);
    END IF;

    last_hash := coalesce(p_hashes[cardinality(p_hashes)], p_expected_hash);
    UPDATE log_head
    SET position = p_expected_position + cardinality(p_ids), hash = last_hash, recorded_at = p_recorded_at
    WHERE partition = p_partition;

    RETURN QUERY SELECT 'appended', NULL::text, NULL::text, NULL::bytea, NULL::text;
END
$$;

-- As take_turn of migration 0013, with the time of each event: the state of an account depends on it since accounts have holds and
-- limits. It returns only the head if there are more events than p_events_max, or if they have more bytes than p_bytes_max, of which
-- each row takes p_row_bytes besides its data. An older release keeps using take_turn.
CREATE FUNCTION lock_head_and_read_since(
    p_partition  smallint,
    p_known      bigint,
    p_events_max bigint,
    p_bytes_max  bigint,
    p_row_bytes  bigint
) RETURNS TABLE (
    head_position    bigint,
    head_hash        bytea,
    head_recorded_at timestamptz,
    head_fence       bigint,
    event_hash       bytea,
    stream_id        uuid,
    version          bigint,
    type             text,
    schema_version   smallint,
    data             text,
    recorded_at      timestamptz
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
        sized.hash, sized.stream_id, sized.version, sized.type, sized.schema_version, sized.data, sized.recorded_at
    FROM (
        SELECT page.*, sum(octet_length(page.data) + p_row_bytes) OVER () AS bytes
        FROM (
            SELECT
                event.position, event.hash, event.stream_id, event.version, event.type, event.schema_version,
                event.data::text AS data, event.recorded_at
            FROM event
            WHERE event.partition = p_partition
                AND event.position >= p_known
                AND head.position - p_known BETWEEN 1 AND p_events_max
            ORDER BY event.position
            LIMIT p_events_max + 1
        ) AS page
    ) AS sized
    WHERE sized.bytes <= p_bytes_max
    ORDER BY sized.position;
    IF NOT FOUND THEN
        RETURN QUERY
        SELECT
            head.position, head.hash, head.recorded_at, head.fence,
            NULL::bytea, NULL::uuid, NULL::bigint, NULL::text, NULL::smallint, NULL::text, NULL::timestamptz;
    END IF;
END
$$;
