-- The size of each table, TOAST table and index of the service, as one line of JSON. Only tables of views have a column
-- `generation`, apart from the table of their checkpoints.
WITH service_table AS (
    SELECT
        oid,
        relname,
        reltoastrelid,
        CASE
            WHEN relname = 'event' OR relname LIKE 'event\_%' THEN 'log'
            WHEN relname <> 'projection'
                AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = pg_class.oid AND attname = 'generation') THEN 'views'
            ELSE 'other'
        END AS part
    FROM pg_class
    WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace
), relation AS (
    SELECT relname::text AS name, part, pg_table_size(oid) - coalesce(pg_total_relation_size(nullif(reltoastrelid, 0)), 0) AS bytes
    FROM service_table
    UNION ALL
    SELECT relname || ', TOAST', part, pg_total_relation_size(reltoastrelid)
    FROM service_table
    WHERE reltoastrelid <> 0
    UNION ALL
    SELECT service_table.relname || ', index ' || index_class.relname, part, pg_total_relation_size(index_class.oid)
    FROM service_table
    JOIN pg_index ON pg_index.indrelid = service_table.oid
    JOIN pg_class AS index_class ON index_class.oid = pg_index.indexrelid
)
SELECT json_agg(json_build_object('name', name, 'part', part, 'bytes', bytes) ORDER BY part, name)
FROM relation
WHERE bytes > 0;
