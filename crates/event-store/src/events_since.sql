-- The events from a position on, as many as fit into the bytes of one response. The first one is returned whatever its size.
SELECT
    sized.position AS "position!",
    sized.hash AS "hash!",
    sized.id AS "id!",
    sized.stream_id AS "stream_id!",
    sized.version AS "version!",
    sized.type AS "event_type!",
    sized.schema_version AS "schema_version!",
    sized.data AS "data!",
    sized.recorded_at AS "recorded_at!"
FROM (
    SELECT page.*, sum(octet_length(page.data) + $5::bigint) OVER (ORDER BY page.position) AS bytes
    FROM (
        SELECT position, hash, id, stream_id, version, type, schema_version, data::text AS data, recorded_at
        FROM event
        WHERE partition = $1 AND position >= $2
        ORDER BY position
        LIMIT $3
    ) AS page
) AS sized
WHERE sized.position = $2 OR sized.bytes <= $4::bigint
ORDER BY sized.position
