-- The position is read from the receipt, which whoever tampers may have written anything into: $2 finds in it the place in
-- partition $1, and $4 takes whatever is a place anywhere. A receipt over several partitions is kept in one of them and
-- names all: it is seen from each.
SELECT
    caller,
    key,
    partition AS kept_in,
    coalesce(substring(receipt ->> 'position' FROM $2)::bigint, 0) AS "position!",
    receipt::text AS "receipt!"
FROM idempotency_key
WHERE partition = ANY($3::smallint[])
  AND (receipt ->> 'position' ~ $2 OR (partition = $1 AND (receipt ->> 'position' ~ $4) IS NOT TRUE))
ORDER BY 4, caller, key
