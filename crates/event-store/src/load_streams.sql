-- Each stream is read through the indexes on its own: Postgres cannot plan a LATERAL subquery with ORDER BY or LIMIT as one
-- scan of the whole table. That holds even if the table was small when the statement was prepared. Rows arrive stream by
-- stream, each stream in the order of its versions. Only the first row of a stream has the snapshot, which can be long.
SELECT
    wanted.id AS "stream_id!",
    held.version AS "snapshot_version?",
    CASE WHEN coalesce(tail.version = held.version + 1, true) THEN held.state::text END AS "snapshot_state?",
    tail.version AS "version?",
    tail.type AS "event_type?",
    tail.schema_version AS "schema_version?",
    tail.data::text AS "data?",
    tail.recorded_at AS "recorded_at?"
FROM unnest($2::uuid[]) AS wanted(id)
LEFT JOIN LATERAL (
    SELECT snapshot.version, snapshot.state
    FROM snapshot
    WHERE snapshot.partition = $1 AND snapshot.stream_id = wanted.id AND snapshot.state_version = $3
    LIMIT 1
) AS held ON true
LEFT JOIN LATERAL (
    SELECT event.version, event.type, event.schema_version, event.data, event.recorded_at
    FROM event
    WHERE event.partition = $1 AND event.stream_id = wanted.id AND event.version > coalesce(held.version, 0)
    ORDER BY event.version
    LIMIT $4
) AS tail ON true
