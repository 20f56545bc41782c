-- The holds can be long and are read by holds.sql.
SELECT
    wanted.account_id AS "account_id!",
    last.balance_after,
    last.transaction_count,
    last.status,
    last.overdraft,
    last.holds_version,
    octet_length(held.holds::text) AS "holds_bytes?"
FROM unnest($3::uuid[]) AS wanted(account_id)
CROSS JOIN LATERAL (
    SELECT
        movement.balance_after, movement.transaction_count, movement.status, movement.overdraft, movement.holds_version
    FROM account_transaction AS movement
    WHERE movement.partition = $1
      AND movement.generation = $2
      AND movement.account_id = wanted.account_id
    ORDER BY movement.version DESC
    LIMIT 1
) AS last
LEFT JOIN LATERAL (
    SELECT movement.holds
    FROM account_transaction AS movement
    WHERE movement.partition = $1
      AND movement.generation = $2
      AND movement.account_id = wanted.account_id
      AND movement.version = last.holds_version
    LIMIT 1
) AS held ON true
