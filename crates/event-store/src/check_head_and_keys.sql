SELECT
    head.position,
    head.hash,
    head.recorded_at,
    head.fence,
    recorded.caller AS "caller?",
    recorded.key AS "key?",
    recorded.fingerprint AS "fingerprint?",
    recorded.receipt AS "receipt?"
FROM log_head AS head
LEFT JOIN (
    -- As many keys as fit into the bytes of one response, of which each row takes 64 besides its columns. The first one is returned
    -- whatever its size.
    SELECT
        found.*,
        row_number() OVER so_far AS number,
        sum(octet_length(found.caller) + octet_length(found.key) + octet_length(found.fingerprint)
            + octet_length(found.receipt) + 64) OVER so_far AS bytes
    FROM unnest($2::text[], $3::text[]) AS asked(caller, key)
    CROSS JOIN LATERAL (
        SELECT k.caller, k.key, k.fingerprint, k.receipt::text AS receipt
        FROM idempotency_key AS k
        WHERE k.partition = $1 AND k.caller = asked.caller AND k.key = asked.key
        LIMIT 1
    ) AS found
    WINDOW so_far AS (ROWS UNBOUNDED PRECEDING)
) AS recorded ON recorded.number = 1 OR recorded.bytes <= $4::bigint
WHERE head.partition = $1
