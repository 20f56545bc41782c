SELECT
    head.position,
    head.hash,
    head.fence,
    recorded.caller AS "caller?",
    recorded.key AS "key?",
    recorded.fingerprint AS "fingerprint?",
    recorded.receipt AS "receipt?"
FROM log_head AS head
LEFT JOIN (
    unnest($2::text[], $3::text[]) AS asked(caller, key)
    CROSS JOIN LATERAL (
        SELECT k.caller, k.key, k.fingerprint, k.receipt::text AS receipt
        FROM idempotency_key AS k
        WHERE k.partition = $1 AND k.caller = asked.caller AND k.key = asked.key
        LIMIT 1
    ) AS recorded
) ON true
WHERE head.partition = $1
LIMIT $4
