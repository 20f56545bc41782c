-- Views are rebuilt beside the live ones, and an account's view of any moment is one row away.

-- A generation is built, answers queries, and is retired once the next one answers; one whose check failed stays to say so.
ALTER TABLE projection DROP CONSTRAINT projection_state_check;
ALTER TABLE projection ADD CONSTRAINT projection_state_check CHECK (state IN ('building', 'live', 'retired', 'failed'));

-- Compare every row with the log before the generation goes live, in place of a sample.
ALTER TABLE projection ADD COLUMN check_all boolean NOT NULL DEFAULT false;

-- One generation a view is built at a time.
CREATE UNIQUE INDEX projection_building_key ON projection (partition, name) WHERE state = 'building';

-- From schema version 2 of the view on, one row for each event of an account: what it was then. Where no money moved, the
-- amount is 0. Rows of version 1 have neither column.
ALTER TABLE account_transaction ADD COLUMN status text;
ALTER TABLE account_transaction ADD COLUMN transaction_count bigint;

-- The last version of an account that was recorded at a time or before it; 0 before the opening. Times never decrease
-- along an account's versions, so halving finds it in a few reads of the key, however long the history is.
CREATE FUNCTION version_at(
    p_partition  smallint,
    p_generation smallint,
    p_account_id uuid,
    p_time       timestamptz
) RETURNS bigint
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $$
DECLARE
    low      bigint := 0;
    high     bigint;
    middle   bigint;
    found_at record;
BEGIN
    SELECT version, recorded_at INTO found_at
    FROM account_transaction
    WHERE partition = p_partition AND generation = p_generation AND account_id = p_account_id
    ORDER BY version DESC
    LIMIT 1;
    IF NOT FOUND OR found_at.recorded_at <= p_time THEN
        RETURN coalesce(found_at.version, 0);
    END IF;
    high := found_at.version - 1;
    WHILE low < high LOOP
        middle := (low + high + 1) / 2;
        -- A version may have no row of its own in version 1 of the view: the next one that has.
        SELECT version, recorded_at INTO found_at
        FROM account_transaction
        WHERE partition = p_partition AND generation = p_generation AND account_id = p_account_id AND version >= middle
        ORDER BY version
        LIMIT 1;
        IF found_at.recorded_at <= p_time THEN
            low := found_at.version;
        ELSE
            high := middle - 1;
        END IF;
    END LOOP;
    RETURN low;
END
$$;
