-- The position is read from the receipt, which whoever tampers may have written anything into.
SELECT
    caller,
    key,
    CASE WHEN receipt ->> 'position' ~ '^[0-9]{1,18}$' THEN (receipt ->> 'position')::bigint ELSE 0 END AS "position!",
    receipt::text AS "receipt!"
FROM idempotency_key
WHERE partition = $1
ORDER BY 3, caller, key
