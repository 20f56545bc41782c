SELECT
    wanted.stream_id AS "stream_id!",
    wanted.version AS "version!",
    found.type AS "event_type!",
    found.member AS "member?"
FROM unnest($2::uuid[], $3::bigint[]) AS wanted(stream_id, version)
CROSS JOIN LATERAL (
    SELECT event.type, left(event.data ->> $4::text, 32) AS member
    FROM event
    WHERE event.partition = $1
        AND event.stream_id = wanted.stream_id
        AND event.version = wanted.version
    LIMIT 1
) AS found
