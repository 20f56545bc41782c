SELECT
    head_position AS "head_position!",
    head_hash AS "head_hash!",
    head_recorded_at AS "head_recorded_at!",
    head_fence AS "head_fence!",
    event_hash AS "event_hash?",
    stream_id AS "stream_id?",
    version AS "version?",
    type AS "event_type?",
    schema_version AS "schema_version?",
    data AS "data?",
    recorded_at AS "recorded_at?"
FROM lock_head_and_read_since($1, $2, $3, $4, $5)
