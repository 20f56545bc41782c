-- The position is read from the receipt, which whoever tampers may have written anything into: $2 finds in it the place in
-- partition $1. A receipt over several partitions is kept in one of them and names all: it is seen from each.
SELECT
    caller,
    key,
    partition AS kept_in,
    coalesce(substring(receipt ->> 'position' FROM $2)::bigint, 0) AS "position!",
    receipt::text AS "receipt!"
FROM idempotency_key
WHERE partition = ANY($3::smallint[])
  AND (partition = $1 OR receipt ->> 'position' ~ $2)
ORDER BY 4, caller, key
