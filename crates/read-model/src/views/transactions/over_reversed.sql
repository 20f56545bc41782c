-- A movement of which more was reversed than its amount, or that does not exist.
SELECT reversed_movement.account_id, reversed_movement.version
FROM reversed_movement
LEFT JOIN LATERAL (
    SELECT movement.amount
    FROM account_transaction AS movement
    WHERE movement.partition = $1
      AND movement.generation = reversed_movement.generation
      AND movement.account_id = reversed_movement.account_id
      AND movement.version = reversed_movement.version
    LIMIT 1
) AS original ON true
WHERE reversed_movement.partition = $1
  AND reversed_movement.generation = $2
  AND reversed_movement.reversed NOT BETWEEN 1 AND coalesce(original.amount, 0)
LIMIT 1
