-- The functions of a Citus cluster, installed by `passbook migrate --distribute`.

-- Keeps the shards of a partition where they are until the transaction ends. Raises an error if they are on another node.
--
-- Citus takes this lock, which is one for all tables, for its own writes. It moves shards only while no transaction on any node holds
-- it. Citus gives the lock to the owner of the tables alone, so this function runs with the owner's rights. A transaction takes it
-- before the log-head lock: in the other order, two transactions and a move would wait for each other, and Citus would end the move.
CREATE OR REPLACE FUNCTION keep_shards(p_partition smallint, p_table regclass) RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    share_lock constant integer := 5;
    shard      constant bigint := get_shard_id_for_distribution_column(p_table, p_partition);
BEGIN
    PERFORM lock_shard_metadata(share_lock, ARRAY[shard]);
    -- A statement of its own: the shards may have moved while this one waited.
    PERFORM
    FROM pg_dist_placement
    JOIN pg_dist_local_group ON pg_dist_local_group.groupid = pg_dist_placement.groupid
    WHERE shardid = shard;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the shards of partition % are on another node', p_partition
            USING ERRCODE = 'serialization_failure', HINT = 'Try again: the coordinator knows the new node.';
    END IF;
END
$$;

REVOKE ALL ON FUNCTION keep_shards FROM PUBLIC;
GRANT EXECUTE ON FUNCTION keep_shards TO passbook_service;

-- The name of the shard of a table that holds a partition, as SQL takes it.
CREATE OR REPLACE FUNCTION shard_of(p_partition smallint, p_table regclass) RETURNS text
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN shard_name(p_table, get_shard_id_for_distribution_column(p_table, p_partition));
END
$$;

-- As in migration 0018, and keeps the shards before it takes the log-head lock.
CREATE OR REPLACE FUNCTION lock_head_and_read_since(
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
    PERFORM keep_shards(p_partition, 'log_head');
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

-- The append. It replaces the function of the migrations, which has the same signature and the same outcomes.
--
-- Citus runs the call on the node of the partition. There it plans each statement on a distributed table once more, and copies
-- inserted rows into the shard, which costs several times as much as the rows. This function locks the shards where they are and
-- writes to them by their own names, which Postgres plans alone.
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
    head_shard    text;
    rows          text := '';
    found_rows    bigint;
    head          log_head%ROWTYPE;
BEGIN
    PERFORM keep_shards(p_partition, 'log_head');
    head_shard := shard_of(p_partition, 'log_head');

    IF cardinality(p_asked_keys) > 0 THEN
        -- The log-head lock: held until the transaction ends. The keys are read by a later statement.
        EXECUTE format(
            'SELECT FROM %s
             WHERE partition = $1 AND position = $2 AND hash = $3 AND fence = $4 AND recorded_at < $5 AND moved_at IS NULL
             FOR UPDATE',
            head_shard
        )
        USING p_partition, p_expected_position, p_expected_hash, p_expected_fence, p_recorded_at;
        GET DIAGNOSTICS found_rows = ROW_COUNT;
        IF found_rows > 0 THEN
            RETURN QUERY EXECUTE format(
                'SELECT ''key_recorded'', recorded.caller, recorded.key, recorded.fingerprint, recorded.receipt
                 FROM (
                     SELECT
                         found.*,
                         row_number() OVER so_far AS number,
                         sum(octet_length(found.caller) + octet_length(found.key) + octet_length(found.fingerprint)
                             + octet_length(found.receipt) + 64) OVER so_far AS bytes
                     FROM unnest($2, $3) AS asked(caller, key)
                     CROSS JOIN LATERAL (
                         SELECT k.caller, k.key, k.fingerprint, k.receipt::text AS receipt
                         FROM %s AS k
                         WHERE k.partition = $1 AND k.caller = asked.caller AND k.key = asked.key
                         LIMIT 1
                     ) AS found
                     WINDOW so_far AS (ROWS UNBOUNDED PRECEDING)
                 ) AS recorded
                 WHERE recorded.number = 1 OR recorded.bytes <= $4',
                shard_of(p_partition, 'idempotency_key')
            )
            USING p_partition, p_asked_callers, p_asked_keys, p_key_bytes_max;
            IF FOUND THEN
                RETURN;
            END IF;
        END IF;
    END IF;

    -- One statement compares and moves the head, which takes the log-head lock, and writes the rows if the head was as expected. No
    -- part of it reads what another one writes.
    IF cardinality(p_ids) > 0 THEN
        rows := rows || format(
            ', events AS (
                 INSERT INTO %s (
                     partition, position, id, stream_id, version, type, schema_version, data, metadata, recorded_at, hash
                 )
                 SELECT
                     $1, $2 + generate_series(1, cardinality($8)), unnest($8), unnest($9), unnest($10), unnest($11),
                     unnest($12), unnest($13)::json, unnest($14)::json, $5, unnest($15)
                 FROM head
             )',
            shard_of(p_partition, 'event')
        );
    END IF;
    IF cardinality(p_keys) > 0 THEN
        rows := rows || format(
            ', keys AS (
                 INSERT INTO %s (partition, caller, key, fingerprint, receipt, recorded_at, position)
                 SELECT $1, unnest($16), unnest($17), unnest($18), unnest($19)::json, $5, $6
                 FROM head
             )',
            shard_of(p_partition, 'idempotency_key')
        );
    END IF;
    IF cardinality(p_snapshot_stream_ids) > 0 THEN
        rows := rows || format(
            ', snapshots AS (
                 INSERT INTO %s AS held (partition, stream_id, version, state_version, state)
                 SELECT $1, unnest($20), unnest($21), $22, unnest($23)::json
                 FROM head
                 ON CONFLICT (partition, stream_id) DO UPDATE
                 SET version = EXCLUDED.version, state_version = EXCLUDED.state_version, state = EXCLUDED.state
                 WHERE held.version < EXCLUDED.version OR held.state_version <> EXCLUDED.state_version
             )',
            shard_of(p_partition, 'snapshot')
        );
    END IF;
    IF cardinality(p_reversed_accounts) > 0 THEN
        rows := rows || format(
            ', reversals AS (
                 INSERT INTO %s (partition, account_id, version, number, amount, reversed, reversing_version)
                 SELECT $1, unnest($24), unnest($25), unnest($26), unnest($27), unnest($28), unnest($29)
                 FROM head
             )',
            shard_of(p_partition, 'reversal')
        );
    END IF;
    EXECUTE format(
        'WITH head AS (
             UPDATE %s
             SET position = $6, hash = $7, recorded_at = $5
             WHERE partition = $1 AND position = $2 AND hash = $3 AND fence = $4 AND recorded_at < $5 AND moved_at IS NULL
             RETURNING partition
         )
         %s
         SELECT FROM head',
        head_shard,
        rows
    )
    USING
        p_partition, p_expected_position, p_expected_hash, p_expected_fence, p_recorded_at, last_position, last_hash,
        p_ids, p_stream_ids, p_versions, p_types, p_schema_versions, p_data, p_metadata, p_hashes,
        p_key_callers, p_keys, p_fingerprints, p_receipts,
        p_snapshot_stream_ids, p_snapshot_versions, p_state_version, p_states,
        p_reversed_accounts, p_reversed_versions, p_reversal_numbers, p_reversal_amounts, p_reversed_sums,
        p_reversing_versions;
    GET DIAGNOSTICS found_rows = ROW_COUNT;
    IF found_rows = 0 THEN
        SELECT * INTO STRICT head FROM log_head WHERE partition = p_partition;
        PERFORM refuse_moved_log(head.moved_at);
        outcome := 'head_moved';
        RETURN NEXT;
        RETURN;
    END IF;

    outcome := 'appended';
    RETURN NEXT;
END
$$;
