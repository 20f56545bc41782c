SELECT
    wanted.account_id AS "account_id!",
    wanted.version AS "version!",
    found.id AS "event_id?",
    last.number AS "number?",
    last.amount AS "amount?",
    last.reversed AS "reversed?",
    last.reversing_version AS "reversing_version?"
FROM unnest($2::uuid[], $3::bigint[]) AS wanted(account_id, version)
LEFT JOIN LATERAL (
    SELECT event.id
    FROM event
    WHERE event.partition = $1
        AND event.stream_id = wanted.account_id
        AND event.version = wanted.version
    LIMIT 1
) AS found ON true
LEFT JOIN LATERAL (
    SELECT reversal.number, reversal.amount, reversal.reversed, reversal.reversing_version
    FROM reversal
    WHERE reversal.partition = $1
        AND reversal.account_id = wanted.account_id
        AND reversal.version = wanted.version
    ORDER BY reversal.number DESC
    LIMIT 1
) AS last ON true
