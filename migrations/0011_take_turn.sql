-- Passes the turnstile while others write, too: waits for the writer before, and answers in the same round trip with the head
-- and with what was written since the position that the caller knows, the event there first, to tell whether it is still the one.
--
-- One row at least: the head alone where nothing was written since, or more than the caller wants to read.
-- The lock and the reading are separate statements: the second one sees what was committed during the wait.
CREATE FUNCTION take_turn(p_partition smallint, p_known bigint, p_events_max bigint)
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
