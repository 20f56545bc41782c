-- The audit trail: finding in the log what is rare, and where a time begins.

-- Only what moves no money: such an event is found without reading those between. Movements are most of the log, are
-- found by reading on, and pay nothing for this index. A statement uses it if it repeats the condition.
CREATE INDEX event_rare_type ON event (partition, type, position)
    WHERE type NOT IN ('MoneyDeposited', 'MoneyWithdrawn', 'TransferSent', 'TransferReceived');

-- The position of the last event recorded before p_time; 0 where there is none. Positions are dense and times never
-- decrease along them, so the place is found by halving, through the primary key alone.
CREATE FUNCTION position_at(p_partition smallint, p_time timestamptz) RETURNS bigint
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $$
DECLARE
    -- Everything up to "earlier" was recorded before p_time, nothing behind "last" was.
    earlier  bigint := 0;
    last     bigint;
    middle   bigint;
    recorded timestamptz;
BEGIN
    SELECT position INTO STRICT last FROM log_head WHERE partition = p_partition;
    WHILE earlier < last LOOP
        middle := earlier + (last - earlier + 1) / 2;
        SELECT recorded_at INTO recorded FROM event WHERE partition = p_partition AND position = middle;
        IF recorded < p_time THEN
            earlier := middle;
        ELSE
            last := middle - 1;
        END IF;
    END LOOP;
    RETURN earlier;
END
$$;
