-- The events of several streams after the versions that the caller knows, as many as fit into the bytes of one response. The
-- first event is returned whatever its size. Each stream is read through the index, as in load_streams.sql.
SELECT
    sized.stream_id AS "stream_id!",
    sized.version AS "version!",
    sized.type AS "event_type!",
    sized.schema_version AS "schema_version!",
    sized.data AS "data!",
    sized.recorded_at AS "recorded_at!"
FROM (
    SELECT page.*, sum(octet_length(page.data) + $6::bigint) OVER (ORDER BY page.ordinal, page.version) AS bytes,
           row_number() OVER (ORDER BY page.ordinal, page.version) AS number
    FROM (
        SELECT known.ordinal, tail.stream_id, tail.version, tail.type, tail.schema_version, tail.data::text AS data,
               tail.recorded_at
        FROM unnest($2::uuid[], $3::bigint[]) WITH ORDINALITY AS known(id, version, ordinal)
        CROSS JOIN LATERAL (
            SELECT event.stream_id, event.version, event.type, event.schema_version, event.data, event.recorded_at
            FROM event
            WHERE event.partition = $1 AND event.stream_id = known.id AND event.version > known.version
            ORDER BY event.version
            LIMIT $4
        ) AS tail
        ORDER BY known.ordinal, tail.version
        LIMIT $4
    ) AS page
) AS sized
WHERE sized.number = 1 OR sized.bytes <= $5::bigint
ORDER BY sized.ordinal, sized.version
