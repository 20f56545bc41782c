-- What searches need. `passbook migrate` builds the indexes after the migrations, without blocking writers
-- (crates/database/src/late_indexes.rs).

-- A text without the difference between upper and lower case. Two texts of which one begins with the other still do so afterwards,
-- because each character is mapped by itself; lower() would treat a sigma at the end of a word differently. The collation decides
-- which letters are mapped. That of the database can be C, which maps ASCII alone, so the first of these that the server has is used:
-- ICU, the two collations that Postgres 17 and 18 contain, that of the operating system.
DO $$
DECLARE
    chosen text;
BEGIN
    IF current_setting('server_encoding') = 'UTF8' THEN
        SELECT quote_ident(collname) INTO chosen
        FROM pg_collation
        WHERE collnamespace = 'pg_catalog'::regnamespace
          AND collname IN ('und-x-icu', 'pg_unicode_fast', 'pg_c_utf8', 'C.utf8')
        ORDER BY array_position(ARRAY['und-x-icu', 'pg_unicode_fast', 'pg_c_utf8', 'C.utf8'], collname::text)
        LIMIT 1;
    END IF;
    EXECUTE format(
        'CREATE FUNCTION fold_case(text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS %L',
        CASE
            WHEN chosen IS NULL THEN 'SELECT pg_catalog.upper($1)'
            ELSE format('SELECT pg_catalog.upper($1 COLLATE pg_catalog.%s)', chosen)
        END
    );
END
$$;

-- At most p_limit accounts of the live view whose id contains a text of hexadecimal digits, without hyphens. All are found if there
-- are fewer. The index is a GIN index, which only bitmap scans can read; the sessions of queries avoid those.
CREATE FUNCTION accounts_with_id_part(p_partition smallint, p_part text, p_limit bigint)
RETURNS TABLE (view_position bigint, view_generation smallint, account_ids uuid[])
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_custom_plan
SET enable_bitmapscan = on
SET enable_indexscan = off
SET enable_seqscan = off
AS $$
BEGIN
    SELECT position, generation INTO view_position, view_generation
    FROM projection
    WHERE partition = p_partition AND name = 'accounts' AND state = 'live';
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT coalesce(array_agg(found.account_id), '{}') INTO account_ids
    FROM (
        SELECT account_id
        FROM account_view
        WHERE partition = p_partition
          AND generation = view_generation
          AND replace(account_id::text, '-', '') LIKE '%' || p_part || '%'
        LIMIT p_limit
    ) AS found;
    RETURN NEXT;
END
$$;

-- As accounts_with_id_part, for accounts whose metadata has all these pairs, a JSON object of texts.
CREATE FUNCTION accounts_with_metadata(p_partition smallint, p_pairs text, p_limit bigint)
RETURNS TABLE (view_position bigint, view_generation smallint, account_ids uuid[])
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_custom_plan
SET enable_bitmapscan = on
SET enable_indexscan = off
SET enable_seqscan = off
AS $$
BEGIN
    SELECT position, generation INTO view_position, view_generation
    FROM projection
    WHERE partition = p_partition AND name = 'accounts' AND state = 'live';
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT coalesce(array_agg(found.account_id), '{}') INTO account_ids
    FROM (
        SELECT account_id
        FROM account_view
        WHERE partition = p_partition
          AND generation = view_generation
          AND metadata IS NOT NULL
          AND metadata::jsonb @> p_pairs::jsonb
        LIMIT p_limit
    ) AS found;
    RETURN NEXT;
END
$$;

-- For each stream, the last version at this position or before it; 0 if there is none. A binary search in the key of the stream.
CREATE FUNCTION versions_at_position(p_partition smallint, p_stream_ids uuid[], p_position bigint) RETURNS bigint[]
LANGUAGE plpgsql STABLE
SET enable_seqscan = off
AS $$
DECLARE
    versions  bigint[] := '{}';
    stream    uuid;
    low       bigint;
    high      bigint;
    middle    bigint;
    found_at  bigint;
BEGIN
    FOREACH stream IN ARRAY p_stream_ids LOOP
        low := 0;
        SELECT version INTO high
        FROM event
        WHERE partition = p_partition AND stream_id = stream
        ORDER BY version DESC
        LIMIT 1;
        high := coalesce(high, 0);
        WHILE low < high LOOP
            middle := low + (high - low + 1) / 2;
            SELECT position INTO found_at
            FROM event
            WHERE partition = p_partition AND stream_id = stream AND version = middle;
            IF found_at <= p_position THEN
                low := middle;
            ELSE
                high := middle - 1;
            END IF;
        END LOOP;
        versions := versions || low;
    END LOOP;
    RETURN versions;
END
$$;
