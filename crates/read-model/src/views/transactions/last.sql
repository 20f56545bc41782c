SELECT
    wanted.account_id AS "account_id!",
    last.balance_after,
    last.transaction_count,
    last.status
FROM unnest($3::uuid[]) AS wanted(account_id)
CROSS JOIN LATERAL (
    SELECT movement.balance_after, movement.transaction_count, movement.status
    FROM account_transaction AS movement
    WHERE movement.partition = $1
      AND movement.generation = $2
      AND movement.account_id = wanted.account_id
    ORDER BY movement.version DESC
    LIMIT 1
) AS last
