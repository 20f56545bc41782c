-- The log: what happened, in the order in which it became visible. Nothing here is ever changed.
--
-- Every key begins with "partition": the same statements run on one node or on many.
-- There is no sequence and no foreign key: positions come from the head below.

-- The turnstile. Whoever appends locks the partition's row first and keeps it until commit, so positions become
-- visible in order and without holes. "fence" is raised when the outcome of an append is unknown: the lost call
-- then finds another fence than it expects and can never succeed later.
CREATE TABLE log_head (
    partition   smallint    PRIMARY KEY,
    position    bigint      NOT NULL CHECK (position >= 0),
    hash        bytea       NOT NULL CHECK (length(hash) = 32),
    recorded_at timestamptz NOT NULL,
    fence       bigint      NOT NULL
);

INSERT INTO log_head VALUES (0, 0, decode(repeat('00', 32), 'hex'), 'epoch', 0);

-- "json", not "jsonb": the bytes stay as they were written, so they can be hashed.
-- The unique key over the stream is the store's own optimistic lock.
CREATE TABLE event (
    partition      smallint    NOT NULL,
    position       bigint      NOT NULL CHECK (position > 0),
    id             uuid        NOT NULL,
    stream_id      uuid        NOT NULL,
    version        bigint      NOT NULL CHECK (version > 0),
    type           text        NOT NULL,
    schema_version smallint    NOT NULL CHECK (schema_version > 0),
    data           json        NOT NULL,
    metadata       json        NOT NULL,
    recorded_at    timestamptz NOT NULL,
    hash           bytea       NOT NULL CHECK (length(hash) = 32),
    CONSTRAINT event_pkey PRIMARY KEY (partition, position),
    CONSTRAINT event_stream_version_key UNIQUE (partition, stream_id, version)
);

-- A recorded fact is not changed or removed, not even by the owner of the table. Only whoever may take the trigger away
-- can, and then the hash chain tells. Once for each statement, so an INSERT pays nothing.
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'events are immutable: % of table % is refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END
$$;

CREATE TRIGGER event_immutable
    BEFORE UPDATE OR DELETE OR TRUNCATE ON event
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Also in sessions that replay a replica's changes.
ALTER TABLE event ENABLE ALWAYS TRIGGER event_immutable;

-- A shortcut to a stream's state, never the truth: rows may be deleted at any time.
CREATE TABLE snapshot (
    partition     smallint NOT NULL,
    stream_id     uuid     NOT NULL,
    version       bigint   NOT NULL CHECK (version > 0),
    state_version smallint NOT NULL,
    state         json     NOT NULL,
    PRIMARY KEY (partition, stream_id)
);

-- The first answer to each idempotency key, recorded in the transaction of its events.
CREATE TABLE idempotency_key (
    partition   smallint    NOT NULL,
    caller      text        NOT NULL,
    key         text        NOT NULL,
    fingerprint bytea       NOT NULL,
    receipt     json        NOT NULL,
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (partition, caller, key)
);

-- The one way to write: locks the head, compares it with what the caller saw last, and writes everything or nothing.
--
-- Answers one row "appended"; or one row "head_moved" (position, hash or fence are not the expected ones);
-- or a row "key_recorded" for each of the asked keys that is recorded already. In the last two cases nothing is written.
-- The lock and the reads are separate statements: after waiting, each reads what was committed meanwhile.
-- The plans of its statements are made once and go through the keys, however empty the tables are at that time.
CREATE FUNCTION append_batch(
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
    head log_head%ROWTYPE;
BEGIN
    -- The turnstile: held until the transaction ends.
    SELECT * INTO STRICT head FROM log_head WHERE partition = p_partition FOR UPDATE;
    IF (head.position, head.hash, head.fence) IS DISTINCT FROM (p_expected_position, p_expected_hash, p_expected_fence) THEN
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

    INSERT INTO event (partition, position, id, stream_id, version, type, schema_version, data, metadata, recorded_at, hash)
    SELECT p_partition, p_expected_position + e.ordinal, e.id, e.stream_id, e.version, e.type, e.schema_version,
           e.data::json, e.metadata::json, p_recorded_at, e.hash
    FROM unnest(p_ids, p_stream_ids, p_versions, p_types, p_schema_versions, p_data, p_metadata, p_hashes)
        WITH ORDINALITY AS e(id, stream_id, version, type, schema_version, data, metadata, hash, ordinal);

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

    UPDATE log_head
    SET position = p_expected_position + cardinality(p_ids), hash = p_hashes[cardinality(p_hashes)], recorded_at = p_recorded_at
    WHERE partition = p_partition;

    RETURN QUERY SELECT 'appended', NULL::text, NULL::text, NULL::bytea, NULL::text;
END
$$;
