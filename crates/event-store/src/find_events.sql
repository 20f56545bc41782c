SELECT
    event.position,
    event.id,
    event.stream_id,
    event.version,
    event.type AS event_type,
    event.schema_version,
    event.data::text AS "data!",
    event.metadata::text AS "metadata!",
    event.recorded_at,
    event.hash,
    NULL::bytea AS previous_hash
FROM unnest($2::uuid[], $3::bigint[]) AS wanted(stream_id, version)
CROSS JOIN LATERAL (
    SELECT found.*
    FROM event AS found
    WHERE found.partition = $1 AND found.stream_id = wanted.stream_id AND found.version = wanted.version
    LIMIT 1
) AS event
