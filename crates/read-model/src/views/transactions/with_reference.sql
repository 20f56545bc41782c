-- The keys of at most $4 rows whose reference begins with $2, in any case. The index has the first 64 characters of a reference, and $3
-- is greater than any character.
SELECT
    projection.position,
    found.account_id AS "account_id?",
    found.version AS "version?"
FROM projection
LEFT JOIN LATERAL (
    SELECT movement.account_id, movement.version
    FROM account_transaction AS movement
    WHERE movement.partition = $1
      AND movement.generation = projection.generation
      AND movement.generation > 0
      AND movement.reference IS NOT NULL
      AND (fold_case(left(movement.reference, 64)) COLLATE "C") >= fold_case(left($2, 64))
      AND (fold_case(left(movement.reference, 64)) COLLATE "C") < fold_case(left($2, 64)) || $3
    ORDER BY fold_case(left(movement.reference, 64)) COLLATE "C"
    LIMIT $4
) AS found ON true
WHERE projection.partition = $1 AND projection.name = 'transactions' AND projection.state = 'live'
