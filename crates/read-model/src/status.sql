SELECT
    projection.name,
    projection.generation,
    projection.schema_version,
    CASE WHEN projection.state = 'live' AND projection.failure IS NOT NULL THEN 'stopped' ELSE projection.state
        END AS "state!",
    projection.failure,
    projection.position,
    greatest(log_head.position - projection.position, 0) AS "lag_events!",
    coalesce(
        greatest(extract(epoch FROM clock_timestamp() - next.recorded_at), 0), 0
    )::float8 AS "lag_seconds!"
FROM projection
JOIN log_head ON log_head.partition = $1
LEFT JOIN event AS next
    ON next.partition = $1 AND next.position = projection.position + 1
WHERE projection.partition = $1
ORDER BY projection.name, projection.generation
