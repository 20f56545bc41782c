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
    previous.hash AS "previous_hash?"
FROM event
LEFT JOIN LATERAL (
    SELECT before.hash
    FROM event AS before
    WHERE before.partition = $1 AND before.position = event.position - 1
    LIMIT 1
) AS previous ON true
WHERE event.partition = $1 AND event.stream_id = $2 AND event.version > $3
ORDER BY event.version
LIMIT $4
